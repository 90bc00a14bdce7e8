"""Take the protruding block out of a Jenga tower."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import mujoco
import numpy as np

from genima_sim.motions import GRIP_TIME, Motion, MoveTo, grasp, shift
from genima_sim.parts import add_box, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, RelativePose, SceneObject, Task

_SMOOTH = [0.3, 0.005, 0.0001]  # friction
_WOODS = (0.66, 0.42, 0.22), (0.78, 0.55, 0.32), (0.84, 0.64, 0.42)
_LENGTH, _WIDTH, _HEIGHT, _GAP = 0.045, 0.015, 0.012, 0.0004  # m: half edges of a block, and half a gap
_SLACK = 0.0006  # m by which half the protruding block's height is less than the others'
_PROTRUSION = 0.05  # m
_LEVEL = 5 * _HEIGHT - _SLACK  # m, height of the protruding block's centre
_GRASP = 0.018  # m above it: the fingers end above the table when the block is down
_PULL = 0.10  # m
_IN_PLACE = 0.02  # m
_ACROSS = [k * 2 * (_WIDTH + _GAP) for k in (-1, 0, 1)]
# Blocks by level; those that bear on each other over their whole faces move as one, which keeps the physics fast.
_BLOCKS: Mapping[str, Sequence[tuple[int, Sequence[float]]]] = {
    "bottom_blocks": [(0, _ACROSS), (1, _ACROSS)],
    "left_block": [(2, _ACROSS[2:])],
    "right_block": [(2, _ACROSS[:1])],
    "top_blocks": [(3, _ACROSS), (4, _ACROSS)],
}


class JengaTower(SceneObject):
    """Tower of loose blocks, one of which protrudes towards the robot."""

    name = "protruding_block"
    region = Region((0.52, 0.60), (-0.15, 0.15), (-0.39, 0.39))
    radius = 0.1

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        world = spec.worldbody
        block = world.add_body(name=self.name, pos=[-_PROTRUSION, 0, _LEVEL])
        block.add_freejoint(name=self.name)
        add_box(block, [0, 0, 0], [_LENGTH, _WIDTH, _HEIGHT - _SLACK], _WOODS[1], mass=0.03, friction=_SMOOTH)
        add_site(block, "block_centre", [0, 0, 0])
        add_site(block, "block_end", [-_LENGTH + 0.012, 0, _GRASP], x=(0, 1, 0))
        tower = world.add_body(name="tower")
        add_site(tower, "block_slot", [0, 0, _LEVEL])
        add_site(tower, "tower_top", [0, 0, 11 * _HEIGHT])
        # A block whose centre is outside is out of the tower over its whole length.
        add_site(tower, "tower", [0, 0, 5 * _HEIGHT], half=(2 * _LENGTH, 0.06, 6.5 * _HEIGHT))
        for name, levels in _BLOCKS.items():
            blocks = world.add_body(name=name)
            blocks.add_freejoint(name=name)
            for level, across in levels:
                self._add_level(blocks, level, across)

    def _add_level(self, body: mujoco.MjsBody, level: int, across: Sequence[float]) -> None:
        """Add neighbouring blocks of a level, which collide as one box."""
        turned, z = level % 2 == 1, (2 * level + 1) * _HEIGHT
        for y, rgb in zip(across, _WOODS[level % 2 :] + _WOODS, strict=False):
            half = [_LENGTH + 0.0004, _WIDTH + 0.0003, _HEIGHT + 0.0003]  # hides the box that collides
            pos, half = ([y, 0, z], [half[1], half[0], half[2]]) if turned else ([0, y, z], half)
            add_box(body, pos, half, rgb, contype=0, conaffinity=0, mass=0)
        y, width = float(np.mean(across)), (across[-1] - across[0]) / 2 + _WIDTH
        pos, half = ([y, 0, z], [width, _LENGTH, _HEIGHT]) if turned else ([0, y, z], [_LENGTH, width, _HEIGHT])
        add_box(body, pos, half, _WOODS[0], mass=0.03 * len(across), friction=_SMOOTH)


class PlayJenga(Task):
    """Judged as in the GENIMA paper, appendix A."""

    instructions = (
        "play jenga",
        "pull out the protruding jenga block",
        "take the protruding block out of the jenga tower without the tower toppling",
    )
    objects = (JengaTower(),)
    allows_scaling = True
    near_misses = {
        "half pulled out": {"protruding_block": RelativePose("block_slot", (-0.065, 0.0, 0.0))},
        "on top of the tower": {"protruding_block": RelativePose("tower_top", (0.0, 0.0, 0.001))},
        "pulled out, a block fallen": {
            "protruding_block": RelativePose("block_slot", (-0.2, 0.0, -0.02)),
            "left_block": RelativePose("block_slot", (0.0, 0.2, -0.045)),
        },
        "pulled out, the top fallen": {
            "protruding_block": RelativePose("block_slot", (-0.2, 0.0, -0.02)),
            "top_blocks": RelativePose("block_slot", (0.2, 0.0, -0.13)),
        },
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        out = not state.is_inside("block_centre", "tower") and not state.is_touched("protruding_block")
        return out and all(state.displacement(name) < _IN_PLACE for name in _BLOCKS)

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        end = scene.frame("block_end")
        yield from grasp(end)
        x, y, _ = -_PULL * scene.frame("block_slot")[:3, 0]
        out = shift(end, x, y)
        yield MoveTo(out, 2.0, 0.0)
        low = shift(out, z=0.002 - _LEVEL + _HEIGHT)
        yield MoveTo(low, 0.8, 0.0)
        yield MoveTo(low, GRIP_TIME, 1.0)
