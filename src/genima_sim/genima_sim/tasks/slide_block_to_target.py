"""Slide a block onto a target."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from genima_sim.motions import Motion, MoveTo, top_down_grasp
from genima_sim.parts import add_box, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, RelativePose, SceneObject, Task

_RED, _GREEN = (0.62, 0.12, 0.12), (0.15, 0.62, 0.22)
_BLOCK = (0.035, 0.045, 0.03)  # m, half edges
_TARGET = 0.085  # m, half edge
_APART = 0.19  # m between the block and the target at the start
_BEHIND = 0.085  # m between the tip and the block before the push
_CONTACT = 0.05  # m between the tip and the block during the push: half of the block and of a finger
_PUSH_HEIGHT = 0.05  # m of the tip: the fingers end 33 mm below


class BlockAndTarget(SceneObject):
    """Block in front of a square on the table."""

    name = "target"
    region = Region((0.50, 0.58), (-0.17, 0.17), (-0.78, 0.78))
    radius = 0.18

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        target = spec.worldbody.add_body(name=self.name, pos=[_APART / 2, 0, 0])
        add_box(target, [0, 0, 0.001], [_TARGET, _TARGET, 0.001], _GREEN, contype=0, conaffinity=0)
        inside = [_TARGET - _BLOCK[0], _TARGET - _BLOCK[1], 0.01]
        add_site(target, "target", [0, 0, _BLOCK[2]], z=(0, 0, 1), half=inside)
        block = spec.worldbody.add_body(name="block", pos=[-_APART / 2, 0, _BLOCK[2]])
        block.add_freejoint(name="block")
        add_box(block, [0, 0, 0], _BLOCK, _RED, mass=0.15)
        add_site(block, "block", [0, 0, 0])


class SlideBlockToTarget(Task):
    """Judged as in the GENIMA paper, appendix A: the block lies inside the target."""

    instructions = (
        "slide the block to the target",
        "push the block until it is sitting on top of the target",
        "slide the block towards the green square",
    )
    objects = (BlockAndTarget(),)
    allows_scaling = True
    near_misses = {
        "partly on the target": {"block": RelativePose("target", (-0.065, 0.0, 0.0))},
        "beside the target": {"block": RelativePose("target", (0.0, 0.14, 0.0))},
        "past the target": {"block": RelativePose("target", (0.15, 0.0, 0.0))},
        "in the air above the target": {"block": RelativePose("target", (0.0, 0.0, 0.55))},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.is_inside("block", "target")

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        block, target = scene.frame("block")[:2, 3], scene.frame("target")[:2, 3]
        distance = float(np.linalg.norm(target - block))
        ahead = (target - block) / distance

        def at(along: float, z: float) -> np.ndarray:
            x, y = block + along * ahead
            return top_down_grasp(x, y, z, np.arctan2(ahead[0], -ahead[1]))

        yield MoveTo(at(-_BEHIND, _PUSH_HEIGHT + 0.1), 1.8, 0.0, straight=False)
        yield MoveTo(at(-_BEHIND, _PUSH_HEIGHT), 1.0, 0.0)
        yield MoveTo(at(distance - _CONTACT, _PUSH_HEIGHT), 2.5, 0.0)
