"""Pull the door of a washing machine open."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from genima_sim.motions import Motion, MoveJoint, grasp
from genima_sim.parts import add_bar, add_box, add_cylinder, add_hinge, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, SceneObject, Task

_WHITE, _GLASS, _STEEL, _BLACK = (0.85, 0.86, 0.88), (0.20, 0.30, 0.45), (0.70, 0.70, 0.74), (0.1, 0.1, 0.12)
_HALF, _HEIGHT, _DEPTH, _RADIUS = 0.14, 0.30, 0.12, 0.10  # m: half the width, the height, half the depth, the door
_OPEN = np.radians(40)  # rad


class WashingMachine(SceneObject):
    """Washing machine with a handle on its round door, which is towards the robot."""

    name = "washing_machine"
    region = Region((0.62, 0.68), (-0.12, 0.05), (-0.6, 0.3))
    radius = 0.25

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        machine = spec.worldbody.add_body(name=self.name)
        add_box(machine, [_DEPTH, 0, _HEIGHT / 2], [_DEPTH, _HALF, _HEIGHT / 2], _WHITE)
        add_box(machine, [-0.001, 0.06, 0.275], [0.001, 0.06, 0.015], _BLACK, contype=0, conaffinity=0)
        door = machine.add_body(name="washing_machine_door", pos=[-0.012, _RADIUS, 0.14])
        add_hinge(door, "washing_machine_door", [0, 0, 0], [0, 0, -1], (0, 1.9), damping=0.2, friction=0.05)
        add_cylinder(door, [0, -_RADIUS, 0], _RADIUS, 0.008, _GLASS, mass=0.3, quat=[1, 0, 1, 0])
        y = 0.02 - 2 * _RADIUS
        add_bar(door, [-0.055, y, -0.02], [-0.055, y, 0.02], 0.009, _STEEL, mass=0.03)
        add_bar(door, [-0.055, y, 0], [0, y, 0], 0.007, _STEEL, mass=0.01)
        add_site(door, "washing_machine_handle", [-0.055, y, 0], z=(1, 0, -2.2), x=(0, 1, 0))


class OpenWashingMachine(Task):
    """Judged as in the GENIMA paper, appendix A: the door has turned by 40 deg."""

    instructions = (
        "open the washing machine",
        "pull the washing machine door open",
        "grip the handle and open the washing machine door",
    )
    objects = (WashingMachine(),)
    allows_scaling = True
    near_misses = {
        "ajar": {"washing_machine_door": 0.1},
        "open by half": {"washing_machine_door": 0.5 * _OPEN},
        "open by 90%": {"washing_machine_door": 0.9 * _OPEN},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.moved("washing_machine_door") > _OPEN

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        yield from grasp(scene.frame("washing_machine_handle"))
        yield MoveJoint("washing_machine_door", 0.9, 2.5, turn=0.2)
