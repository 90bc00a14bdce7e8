"""Turn the handle of a door and push the door open."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from genima_sim.motions import Motion, MoveJoint, grasp
from genima_sim.parts import add_box, add_hinge, add_lever
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Latch, Region, SceneObject, Task

_FRAME, _DOOR, _BRASS = (0.42, 0.44, 0.48), (0.55, 0.36, 0.22), (0.85, 0.68, 0.25)
_HALF, _HEIGHT = 0.14, 0.34  # m
_LEVER = 0.10  # m
_OPEN, _UNLATCHED = np.radians(25), np.radians(25)  # rad of the door and of its handle


class Door(SceneObject):
    """Door in a frame, with a lever that holds its latch."""

    name = "door_frame"
    region = Region((0.55, 0.60), (-0.10, 0.10), (-0.39, 0.39))
    radius = 0.2

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        frame = spec.worldbody.add_body(name=self.name)
        for side in (-1, 1):
            add_box(frame, [0, side * (_HALF + 0.02), _HEIGHT / 2], [0.015, 0.015, _HEIGHT / 2], _FRAME)
        add_box(frame, [0, 0, 0.002], [0.015, _HALF + 0.035, 0.002], _FRAME)
        door = frame.add_body(name="door", pos=[0, _HALF, _HEIGHT / 2])
        add_hinge(door, "door", [0, 0, 0], [0, 0, 1], (0, 1.3), friction=0.05)
        add_box(door, [0, -_HALF, 0], [0.01, _HALF - 0.004, _HEIGHT / 2 - 0.006], _DOOR, mass=0.6)
        at = [-0.085, 0.05 - 2 * _HALF, 0]
        add_lever(door, "door", at, 1, _LEVER, 0.075, _BRASS, approach=(1, 0, -1.4), friction=0.1, stiffness=0.6)


class OpenDoor(Task):
    """Judged as in the GENIMA paper, appendix A: the door is open by 25 deg; its handle unlatches it."""

    instructions = (
        "open the door",
        "grip the handle and push the door open",
        "use the handle to push the door open",
    )
    objects = (Door(),)
    allows_scaling = True
    latches = (Latch("door", "door_handle", _UNLATCHED),)
    near_misses = {
        "handle turned, door shut": {"door_handle": 0.8},
        "open by half": {"door_handle": 0.8, "door": 0.5 * _OPEN},
        "open by 90%": {"door_handle": 0.8, "door": 0.9 * _OPEN},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.moved("door") > _OPEN

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        yield from grasp(scene.frame("door_lever"))
        yield MoveJoint("door_handle", 0.62, 1.5, turn=0.0)
        yield MoveJoint("door", 0.52, 2.5, turn=0.0)
