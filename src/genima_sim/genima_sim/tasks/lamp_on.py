"""Turn on a lamp by its button."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco

from genima_sim.motions import Motion, MoveTo, back_off
from genima_sim.parts import add_ball, add_box, add_cylinder, add_site, add_slide
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, SceneObject, Task

_BASE, _STEM, _SHADE = (0.20, 0.22, 0.30), (0.60, 0.60, 0.62), (0.95, 0.85, 0.45)
_CAP, _COLLAR = (0.85, 0.12, 0.10), (0.40, 0.42, 0.50)
_STROKE, _ON = 0.006, 0.003  # m
_TOP = 0.048  # m, height of the button
_PRESSED = 0.035 - 0.010  # m of the tip over the button at the start: the fingers end 35 mm below the tip


class Lamp(SceneObject):
    """Lamp with a button on its base, on the robot's side."""

    name = "lamp"
    region = Region((0.50, 0.62), (-0.22, 0.22), (-0.78, 0.78))
    radius = 0.13

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        lamp = spec.worldbody.add_body(name=self.name)
        add_box(lamp, [0, 0, 0.015], [0.11, 0.06, 0.015], _BASE)
        add_cylinder(lamp, [0.085, 0, 0.09], 0.008, 0.06, _STEM)
        add_ball(lamp, [0.085, 0, 0.17], 0.035, _SHADE)
        button = lamp.add_body(name="lamp_button", pos=[-0.055, 0, 0.036])
        add_slide(button, "lamp_button", [0, 0, 1], (-_STROKE, 0), 8, 0, stiffness=[600, 0, 0], springref=0.004)
        add_cylinder(button, [0, 0, 0], 0.024, _TOP - 0.036, _CAP, mass=0.02)
        add_site(button, "lamp_button", [0, 0, _TOP - 0.036], x=(0, 1, 0))
        for side in (-1, 1):  # a collar: only the fingers press the button
            add_box(lamp, [-0.055 + side * 0.030, 0, 0.04], [0.004, 0.034, 0.012], _COLLAR)
            add_box(lamp, [-0.055, side * 0.030, 0.04], [0.034, 0.004, 0.012], _COLLAR)
        spec.add_exclude(bodyname1=self.name, bodyname2="lamp_button")  # the button sinks into the base


class LampOn(Task):
    """Judged as RLBench does: the button is down by 3 mm."""

    instructions = ("turn on the light", "press the button to turn on the lamp", "press the light switch")
    objects = (Lamp(),)
    allows_scaling = True
    near_misses = {
        "touched": {"lamp_button": -0.1 * _ON},
        "half pressed": {"lamp_button": -0.5 * _ON},
        "almost pressed": {"lamp_button": -0.9 * _ON},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.joint("lamp_button") < -_ON

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        pressed = back_off(scene.frame("lamp_button"), _PRESSED)
        yield MoveTo(back_off(pressed, 0.1), 1.8, 0.0, straight=False)
        yield MoveTo(pressed, 1.4, 0.0)
        yield MoveTo(pressed, 0.4, 0.0)
