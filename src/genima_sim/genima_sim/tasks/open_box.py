"""Grasp the lid of a box and open it."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from genima_sim.motions import Motion, MoveJoint, grasp
from genima_sim.parts import add_bar, add_box, add_hinge, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, SceneObject, Task

_CARDBOARD, _LID, _STEEL = (0.70, 0.55, 0.35), (0.82, 0.66, 0.40), (0.15, 0.15, 0.18)
_HALF, _HEIGHT, _RIM = 0.08, 0.12, 0.05  # m; the rim keeps the fingers' ends off the wall
_OPEN = np.pi / 2  # rad


class Box(SceneObject):
    """Box with a hinged lid, whose handle is towards the robot."""

    name = "box"
    region = Region((0.52, 0.58), (-0.18, 0.18), (-0.39, 0.39))
    radius = 0.18

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        box = spec.worldbody.add_body(name=self.name)
        add_box(box, [0, 0, 0.004], [_HALF, _HALF, 0.004], _CARDBOARD)
        for side in (-1, 1):
            add_box(box, [side * _HALF, 0, _HEIGHT / 2], [0.005, _HALF, _HEIGHT / 2], _CARDBOARD)
            add_box(box, [0, side * _HALF, _HEIGHT / 2], [_HALF, 0.005, _HEIGHT / 2], _CARDBOARD)
        lid = box.add_body(name="box_lid", pos=[_HALF, 0, _HEIGHT + 0.007])
        add_hinge(lid, "box_lid", [0, 0, 0], [0, 1, 0], (0, 1.9), friction=0.05)
        add_box(lid, [-_HALF, 0, 0], [_HALF, _HALF, 0.004], _LID, mass=0.12)
        x = -2 * _HALF - _RIM
        add_bar(lid, [x, -0.05, 0], [x, 0.05, 0], 0.009, _STEEL, mass=0.02)
        for side in (-1, 1):
            add_bar(lid, [x, side * 0.05, 0], [-2 * _HALF, side * 0.05, 0], 0.006, _STEEL, mass=0.01)
        add_site(lid, "box_handle", [x, 0, 0], z=(0.3, 0, -1), x=(0, 0, 1))


class OpenBox(Task):
    """Judged as in the GENIMA paper, appendix A: the lid has turned by 90 deg."""

    instructions = ("open the box", "grasp the lid and open the box", "lift the lid of the box up until it is open")
    objects = (Box(),)
    allows_scaling = True
    near_misses = {
        "ajar": {"box_lid": 0.2},
        "open by half": {"box_lid": 0.5 * _OPEN},
        "open by 90%": {"box_lid": 0.9 * _OPEN},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.moved("box_lid") > _OPEN

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        yield from grasp(scene.frame("box_handle"))
        yield MoveJoint("box_lid", 1.65, 4.0, turn=0.25)
