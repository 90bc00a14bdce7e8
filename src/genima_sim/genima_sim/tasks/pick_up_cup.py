"""Pick up the cup of a colour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import mujoco
import numpy as np

from genima_sim.motions import Motion, MoveTo, grasp, radial_grasp, shift
from genima_sim.parts import GRIP, add_cylinder, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, RelativePose, SceneObject, Task

_INSIDE = (0.05, 0.05, 0.06)
_RADIUS, _HALF = 0.034, 0.05  # m
_LIFTED, _ASIDE = 0.10, 0.10  # m from the start, for success: at least up, at most aside
_LIFT = 0.16  # m


class RedCup(SceneObject):
    """Cup that is grasped at its sides."""

    name = "red_cup"
    region = Region((0.38, 0.60), (-0.25, 0.25))
    radius = 0.085  # m: the gripper finds room beside it
    color_matters = True
    rgb: ClassVar[tuple[float, float, float]] = (0.82, 0.10, 0.08)

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        cup = spec.worldbody.add_body(name=self.name, pos=[0, 0, _HALF])
        cup.add_freejoint(name=self.name)
        add_cylinder(cup, [0, 0, 0], _RADIUS, _HALF, self.rgb, mass=0.08, friction=GRIP)
        add_cylinder(cup, [0, 0, _HALF], _RADIUS - 0.006, 0.001, _INSIDE, mass=0, contype=0, conaffinity=0)
        add_site(cup, self.name, [0, 0, 0])


class BlueCup(RedCup):
    """Cup of another colour."""

    name = "blue_cup"
    rgb = (0.12, 0.25, 0.85)


class PickUpCup(Task):
    """Judged as in the GENIMA paper, appendix A: the cup is held above its place."""

    instructions = ("pick up the {colour} cup", "grasp the {colour} cup and lift it", "lift the {colour} cup")
    variations = ({"colour": "red"}, {"colour": "blue"})
    objects = (RedCup(), BlueCup())
    allows_scaling = True
    near_misses = {
        "in the air, not held": {"red_cup": RelativePose("red_cup", (0.0, 0.0, 0.16))},
        "lifted too little": {"red_cup": RelativePose("red_cup", (0.0, 0.0, 0.05))},
        "toppled": {"red_cup": RelativePose("red_cup", (0.0, 0.0, _RADIUS - _HALF), (0.0, np.pi / 2, 0.0))},
        "the blue cup": {"blue_cup": RelativePose("blue_cup", (0.0, 0.0, 0.16))},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        cup = f"{self.values['colour']}_cup"
        position = state.position(cup)
        is_above = position[2] > _HALF + _LIFTED and np.linalg.norm(position[:2] - state.placements[cup].xy) < _ASIDE
        return bool(is_above and state.is_held(cup))

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        cup = radial_grasp(scene.body(f"{self.values['colour']}_cup")[:3, 3])
        yield from grasp(cup)
        yield MoveTo(shift(cup, z=_LIFT), 1.5, 0.0)
