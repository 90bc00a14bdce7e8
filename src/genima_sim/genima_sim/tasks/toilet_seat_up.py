"""Lift the lid of a toilet seat to an upright position."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco

from genima_sim.motions import Motion, MoveJoint, grasp
from genima_sim.parts import add_bar, add_box, add_cylinder, add_hinge, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, SceneObject, Task

_WHITE, _GREY = (0.86, 0.87, 0.88), (0.35, 0.42, 0.55)
_HEIGHT, _LENGTH, _HALF, _RIM = 0.16, 0.17, 0.085, 0.05  # m; the rim keeps the fingers' ends off the bowl
_UPRIGHT = 1.40  # rad


class Toilet(SceneObject):
    """Toilet with a hinged lid, whose handle is towards the robot."""

    name = "toilet"
    region = Region((0.56, 0.62), (-0.16, 0.16), (-0.39, 0.39))
    radius = 0.2

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        toilet = spec.worldbody.add_body(name=self.name)
        add_cylinder(toilet, [0, 0, _HEIGHT / 2], 0.075, _HEIGHT / 2, _WHITE)
        add_box(toilet, [0.13, 0, 0.15], [0.03, 0.10, 0.15], _WHITE)
        lid = toilet.add_body(name="toilet_lid", pos=[0.09, 0, _HEIGHT + 0.01])
        add_hinge(lid, "toilet_lid", [0, 0, 0], [0, 1, 0], (0, 1.75), friction=0.05)
        add_box(lid, [-_LENGTH / 2, 0, 0], [_LENGTH / 2, _HALF, 0.006], _GREY, mass=0.15)
        x = -_LENGTH - _RIM
        add_bar(lid, [x, -0.045, 0], [x, 0.045, 0], 0.009, _GREY, mass=0.02)
        for side in (-1, 1):
            add_bar(lid, [x, side * 0.045, 0], [-_LENGTH, side * 0.045, 0], 0.006, _GREY, mass=0.01)
        add_site(lid, "toilet_handle", [x, 0, 0], z=(0.3, 0, -1), x=(0, 0, 1))


class ToiletSeatUp(Task):
    """Judged as RLBench does: the lid has turned by 1.40 rad."""

    instructions = (
        "lift the toilet seat up",
        "put the toilet seat up",
        "leave the lid of the toilet seat in an upright position",
    )
    objects = (Toilet(),)
    allows_scaling = True
    near_misses = {
        "ajar": {"toilet_lid": 0.2},
        "raised by half": {"toilet_lid": 0.5 * _UPRIGHT},
        "raised by 90%": {"toilet_lid": 0.9 * _UPRIGHT},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.moved("toilet_lid") > _UPRIGHT

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        yield from grasp(scene.frame("toilet_handle"))
        yield MoveJoint("toilet_lid", 1.63, 4.0, turn=0.0)
