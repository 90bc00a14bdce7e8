"""Move a hanger from one rack to another."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco

from genima_sim.motions import GRIP_TIME, Motion, MoveTo, grasp, shift
from genima_sim.parts import GRIP, add_bar, add_box, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, RelativePose, SceneObject, Task

_STEEL, _BASE, _HANGER = (0.72, 0.73, 0.76), (0.25, 0.27, 0.30), (0.75, 0.35, 0.10)
_ROD = 0.18  # m, height of the rods
_ROD_RADIUS, _ROD_LENGTH = 0.007, 0.11  # m
_SEAT = 0.05  # m before the post
_LIFT = 0.10  # m: the hanger clears the rods
_SPAN, _DROP = 0.12, 0.065  # m of the shoulders
_KNOB = 0.036  # m, half the height


def _add_rack(spec: mujoco.MjSpec, name: str) -> mujoco.MjsBody:
    """Add a rack with a rod towards the robot."""
    rack = spec.worldbody.add_body(name=name)
    add_box(rack, [0, 0, 0.006], [0.05, 0.05, 0.006], _BASE)
    add_bar(rack, [0, 0, 0.01], [0, 0, _ROD], 0.009, _STEEL)
    add_bar(rack, [0, 0, _ROD], [-_ROD_LENGTH, 0, _ROD], _ROD_RADIUS, _STEEL)
    add_bar(rack, [-_ROD_LENGTH, 0, _ROD], [-_ROD_LENGTH, 0, _ROD + 0.012], _ROD_RADIUS, _STEEL)
    return rack


class LoadedRack(SceneObject):
    """Rack with a hanger on its rod."""

    name = "loaded_rack"
    region = Region((0.50, 0.58), (-0.22, -0.15), (-0.3, 0.3))
    radius = 0.13

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        rack = _add_rack(spec, self.name)
        add_site(rack, "first_rod", [-_SEAT, 0, _ROD])
        top = 0.006  # m: the hook's upper part, above the rod
        hanger = spec.worldbody.add_body(name="hanger", pos=[-_SEAT, 0, _ROD + _ROD_RADIUS + top + 0.0005])
        hanger.add_freejoint(name="hanger")
        add_box(hanger, [0, 0, 0], [0.011, 0.022, top], _HANGER, mass=0.01)
        add_box(hanger, [0, 0, top + _KNOB], [0.013, 0.013, _KNOB], _HANGER, mass=0.015, friction=GRIP)
        for side in (-1, 1):
            add_box(hanger, [0, side * 0.018, -0.014], [0.008, 0.004, 0.014], _HANGER, mass=0.01)
            ends = [0, side * 0.018, -0.028], [0, side * _SPAN, -_DROP - 0.028]
            add_bar(hanger, *ends, 0.007, _HANGER, mass=0.04)
        add_site(hanger, "hook", [0, 0, -top])
        add_site(hanger, "knob", [0, 0, top + _KNOB + 0.002], x=(0, 1, 0))


class FreeRack(SceneObject):
    """Rack without a hanger."""

    name = "free_rack"
    region = Region((0.50, 0.58), (0.15, 0.22), (-0.3, 0.3))
    radius = 0.13
    receives = True

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        rack = _add_rack(spec, self.name)
        add_site(rack, "rod", [-_SEAT, 0, _ROD + _ROD_RADIUS], half=(0.045, 0.009, 0.006))
        add_site(rack, "knob_goal", [-_SEAT, 0, _ROD + _ROD_RADIUS + 0.012 + _KNOB + 0.004], x=(0, 1, 0))


class MoveHanger(Task):
    """Judged as in the GENIMA paper, appendix A."""

    instructions = (
        "move hanger onto the other rack",
        "move the hanger from one rack to the other",
        "pick up the hanger and hang it on the empty rack",
    )
    objects = (LoadedRack(), FreeRack())
    near_misses = {
        "under the rod": {"hanger": RelativePose("rod", (0.0, 0.0, -0.08))},
        "beside the rod": {"hanger": RelativePose("rod", (0.0, 0.06, 0.006))},
        "above the rod": {"hanger": RelativePose("rod", (0.0, 0.0, 0.6))},
        "on the same rack": {"hanger": RelativePose("first_rod", (0.03, 0.0, 0.014))},
        "on the table": {"hanger": RelativePose("rod", (-0.15, 0.0, -0.1))},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        hangs = state.is_inside("hook", "rod") and state.touch("hanger", "free_rack")
        return hangs and not state.is_touched("hanger")

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        knob, goal = scene.frame("knob"), scene.frame("knob_goal")
        yield from grasp(knob)
        yield MoveTo(shift(knob, z=_LIFT), 0.9, 0.0)
        yield MoveTo(shift(goal, z=_LIFT), 1.6, 0.0)
        yield MoveTo(goal, 0.9, 0.0)
        yield MoveTo(goal, GRIP_TIME, 1.0)
