"""Flick a switch."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from genima_sim.motions import Motion, MoveTo, back_off
from genima_sim.parts import add_box, add_hinge, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, SceneObject, Task

_HOUSING, _PLATE, _LEVER = (0.86, 0.86, 0.84), (0.25, 0.27, 0.31), (0.85, 0.33, 0.10)
_PIVOT, _LENGTH = 0.055, 0.055  # m: height of the lever's axis, length of the lever
_TILT = 0.6  # rad from the vertical, to either side
_ON = 1.0  # rad
_TIP_HEIGHT = 0.056  # m above the axis: the fingers end 35 mm below the tip
_BEFORE, _AFTER = 0.085, 0.012  # m between the tip and the axis before and after the push


class Switch(SceneObject):
    """Housing with a lever that leans towards the robot."""

    name = "switch"
    region = Region((0.50, 0.62), (-0.25, 0.25), (-0.78, 0.78))
    radius = 0.11

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        switch = spec.worldbody.add_body(name=self.name)
        add_box(switch, [0, 0, 0.02], [0.085, 0.06, 0.02], _HOUSING)
        add_box(switch, [0, 0, 0.042], [0.065, 0.04, 0.002], _PLATE)
        add_site(switch, "switch", [0, 0, _PIVOT], x=(0, 1, 0))
        lever = switch.add_body(
            name="switch_lever", pos=[0, 0, _PIVOT], quat=[np.cos(_TILT / 2), 0, -np.sin(_TILT / 2), 0]
        )
        add_hinge(lever, "switch_lever", [0, 0, 0], [0, 1, 0], (0, 2 * _TILT), damping=0.05, friction=0.2)
        # Slippery, with a priority over the fingers: they slide along it.
        add_box(
            lever, [0, 0, _LENGTH / 2], [0.01, 0.028, _LENGTH / 2], _LEVER,
            mass=0.03, friction=[0.3, 0.005, 0.0001], priority=1,
        )  # fmt: skip
        spec.add_exclude(bodyname1=self.name, bodyname2="switch_lever")


class PressSwitch(Task):
    """Judged as RLBench does: the lever has turned by 1 rad."""

    instructions = ("press the switch", "turn the switch on", "flick the switch")
    objects = (Switch(),)
    allows_scaling = True
    near_misses = {
        "touched": {"switch_lever": 0.1},
        "lever upright": {"switch_lever": _TILT},
        "turned by 90%": {"switch_lever": 0.9 * _ON},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.moved("switch_lever") > _ON

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        switch = scene.frame("switch")
        ahead = scene.body("switch")[:3, 0]

        def at(along: float) -> np.ndarray:
            frame = back_off(switch, _TIP_HEIGHT)
            frame[:3, 3] += along * ahead
            return frame

        yield MoveTo(back_off(at(-_BEFORE), 0.1), 1.8, 0.0, straight=False)
        yield MoveTo(at(-_BEFORE), 1.2, 0.0)
        yield MoveTo(at(_AFTER), 1.5, 0.0)
