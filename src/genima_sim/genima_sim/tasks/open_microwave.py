"""Pull the door of a microwave open."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from genima_sim.motions import Motion, MoveJoint, grasp
from genima_sim.parts import add_bar, add_box, add_hinge, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, SceneObject, Task

_SHELL, _DOOR, _STEEL = (0.62, 0.63, 0.66), (0.13, 0.14, 0.16), (0.85, 0.85, 0.88)
_HALF, _HEIGHT, _DEPTH = 0.125, 0.18, 0.08  # m: half the width, the height, half the depth
_OPEN = np.radians(80)  # rad


class Microwave(SceneObject):
    """Microwave with a handle on its door, which is towards the robot."""

    name = "microwave"
    region = Region((0.72, 0.78), (-0.05, 0.12), (-0.39, 0.39))
    radius = 0.22

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        oven = spec.worldbody.add_body(name=self.name)
        for z in (0.006, _HEIGHT):
            add_box(oven, [_DEPTH, 0, z], [_DEPTH, _HALF, 0.006], _SHELL)
        for side in (-1, 1):
            add_box(oven, [_DEPTH, side * _HALF, _HEIGHT / 2], [_DEPTH, 0.006, _HEIGHT / 2], _SHELL)
        add_box(oven, [2 * _DEPTH, 0, _HEIGHT / 2], [0.006, _HALF, _HEIGHT / 2], _SHELL)
        door = oven.add_body(name="microwave_door", pos=[-0.012, _HALF, _HEIGHT / 2])
        add_hinge(door, "microwave_door", [0, 0, 0], [0, 0, -1], (0, 1.75), damping=0.2, friction=0.05)
        add_box(door, [0, -_HALF, 0], [0.008, _HALF, _HEIGHT / 2 - 0.008], _DOOR, mass=0.4)
        y = 0.035 - 2 * _HALF
        add_bar(door, [-0.05, y, -0.05], [-0.05, y, 0.05], 0.008, _STEEL, mass=0.03)
        for z in (-0.05, 0.05):
            add_bar(door, [-0.05, y, z], [0, y, z], 0.006, _STEEL, mass=0.01)
        add_site(door, "microwave_handle", [-0.05, y, 0.01], z=(1, 0, -2.2), x=(0, 1, 0))


class OpenMicrowave(Task):
    """Judged as in the GENIMA paper, appendix A: the door has turned by 80 deg."""

    instructions = ("open the microwave", "pull the microwave door open", "grip the handle and open the microwave door")
    objects = (Microwave(),)
    allows_scaling = True
    near_misses = {
        "ajar": {"microwave_door": 0.1},
        "open by half": {"microwave_door": 0.5 * _OPEN},
        "open by 90%": {"microwave_door": 0.9 * _OPEN},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.moved("microwave_door") > _OPEN

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        yield from grasp(scene.frame("microwave_handle"))
        yield MoveJoint("microwave_door", 1.55, 4.0, turn=0.2)
