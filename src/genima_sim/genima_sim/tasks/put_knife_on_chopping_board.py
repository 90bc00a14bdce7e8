"""Put a knife on a chopping board."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from genima_sim.motions import GRIP_TIME, Motion, MoveTo, grasp, shift
from genima_sim.parts import GRIP, add_box, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, RelativePose, SceneObject, Task

_BOARD, _WOOD = (0.35, 0.58, 0.40), (0.40, 0.25, 0.15)
_STEEL, _HANDLE = (0.78, 0.80, 0.84), (0.08, 0.08, 0.09)
_TILT = 0.2  # rad of the slot
_HEIGHT = 0.08  # m of the slot's mouth above the table
_HANDLE_HALF, _BLADE_HALF = (0.055, 0.013, 0.016), (0.05, 0.0015, 0.014)  # m
_GRASP = -0.06, 0.0, 0.021  # m in the knife's frame: the fingers end above the lower edge of the handle
_PULL = 0.14  # m, until the blade is out of its slot
_BOARD_HALF = 0.125, 0.08, 0.008  # m
_LAID = 0.003  # m above the board where the knife is released
_YAW = (-0.9, -0.2)  # rad: handles point to the robot and to the left


class KnifeBlock(SceneObject):
    """Block with a slanted slot, and a knife in it."""

    name = "knife_block"
    region = Region((0.52, 0.58), (-0.20, -0.12), _YAW)
    radius = 0.1

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        block = spec.worldbody.add_body(name=self.name)
        add_box(block, [0.055, 0, 0.015], [0.05, 0.04, 0.015], _WOOD)
        tilt = [np.cos(_TILT / 2), 0, np.sin(_TILT / 2), 0]
        slot = block.add_body(name="knife_slot", pos=[0, 0, _HEIGHT], quat=tilt)
        for side in (-1, 1):
            add_box(slot, [0.055, side * 0.023, -0.005], [0.055, 0.018, 0.03], _WOOD)
        add_box(slot, [0.055, 0, -0.025], [0.055, 0.005, 0.01], _WOOD)
        add_box(slot, [0.055, 0, 0.0205], [0.055, 0.005, 0.0045], _WOOD)
        knife = spec.worldbody.add_body(name="knife", pos=[-0.002, 0, _HEIGHT], quat=tilt)
        knife.add_freejoint(name="knife")
        add_box(knife, [-_HANDLE_HALF[0], 0, 0], _HANDLE_HALF, _HANDLE, mass=0.04, friction=GRIP)
        add_box(knife, [_BLADE_HALF[0], 0, 0], _BLADE_HALF, _STEEL, mass=0.06, friction=[0.3, 0.005, 0.0001])
        add_site(knife, "knife", [0, 0, 0])
        add_site(knife, "knife_handle", _GRASP, x=(0, 1, 0))


class ChoppingBoard(SceneObject):
    """Board on the table."""

    name = "chopping_board"
    region = Region((0.42, 0.54), (0.12, 0.20), _YAW)
    radius = 0.12
    receives = True

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        board = spec.worldbody.add_body(name=self.name)
        half = _BOARD_HALF
        add_box(board, [0, 0, half[2]], half, _BOARD)
        add_site(board, "board", [0, 0, 2 * half[2] + 0.02], half=(half[0] - 0.02, half[1], 0.02))
        height = 2 * half[2] + _HANDLE_HALF[2] + _GRASP[2] + _LAID
        add_site(board, "laid_knife_handle", [_GRASP[0], 0, height], x=(0, 1, 0))


class PutKnifeOnChoppingBoard(Task):
    """Judged as in the GENIMA paper, appendix A."""

    instructions = (
        "put the knife on the chopping board",
        "slide the knife out of the knife block and put it down on the chopping board",
        "pick up the knife and leave it on the chopping board",
    )
    objects = (KnifeBlock(), ChoppingBoard())
    allows_scaling = True
    near_misses = {
        "beside the board": {"knife": RelativePose("board", (-0.14, -0.13, -0.02))},
        "beside the edge of the board": {"knife": RelativePose("board", (0.0, -0.14, 0.0))},
        "above the board": {"knife": RelativePose("board", (0.0, 0.0, 0.6))},
        "on the table before the block": {"knife": RelativePose("knife", (-0.1, 0.06, -0.05))},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        lies = state.is_inside("knife", "board") and state.touch("knife", "chopping_board")
        return lies and not state.is_touched("knife")

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        handle, laid = scene.frame("knife_handle"), scene.frame("laid_knife_handle")
        yield from grasp(handle)
        out = handle.copy()
        out[:3, 3] -= _PULL * scene.frame("knife")[:3, 0]
        yield MoveTo(out, 1.0, 0.0)
        yield MoveTo(shift(laid, z=0.05), 1.5, 0.0)
        yield MoveTo(laid, 0.7, 0.0)
        yield MoveTo(laid, GRIP_TIME, 1.0)
