"""Put rubbish in a bin."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from genima.robot.rigid_transforms import pose
from genima_sim.motions import GRIP_TIME, Motion, MoveTo, grasp, shift
from genima_sim.parts import GRIP, add_ball, add_box, add_cylinder, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, RelativePose, SceneObject, Task

_PAPER, _SHADED, _BIN = (0.93, 0.94, 0.96), (0.80, 0.82, 0.86), (0.15, 0.20, 0.32)
_TOMATO, _STALK = (0.75, 0.12, 0.10), (0.15, 0.40, 0.12)
_FOLDS = (0.5, 0.4, 0.7), (-0.6, 0.3, 0.2)  # rad
_SIZE = 0.024  # m, half of the rubbish
_BALL = 0.028  # m, radius of a tomato
_HALF, _HEIGHT, _WALL = 0.08, 0.12, 0.004  # m, of the bin
_LIFT, _RELEASE = 0.19, 0.14  # m above the grasp


class Rubbish(SceneObject):
    """Crumpled paper."""

    name = "rubbish"
    region = Region((0.38, 0.58), (-0.27, 0.27), (-0.8, 0.8))
    radius = 0.09  # m: the gripper finds room beside it

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        rubbish = spec.worldbody.add_body(name=self.name, pos=[0, 0, _SIZE])
        rubbish.add_freejoint(name=self.name)
        add_box(rubbish, [0, 0, 0], [_SIZE] * 3, _PAPER, mass=0.03, friction=GRIP)
        for angles in _FOLDS:
            quat = Rotation.from_euler("xyz", angles).as_quat(scalar_first=True)
            half = [0.85 * _SIZE] * 3
            add_box(rubbish, [0, 0, 0], half, _SHADED, mass=0, quat=quat, contype=0, conaffinity=0)
        add_site(rubbish, self.name, [0, 0, 0])


class Tomato(SceneObject):
    """Tomato, which stays on the table."""

    name = "tomato_1"
    region = Region((0.36, 0.60), (-0.27, 0.27))
    radius = 0.04

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        tomato = spec.worldbody.add_body(name=self.name, pos=[0, 0, _BALL])
        tomato.add_freejoint(name=self.name)
        add_ball(tomato, [0, 0, 0], _BALL, _TOMATO, mass=0.08, friction=[1, 0.02, 0.002], condim=6)
        add_cylinder(tomato, [0, 0, _BALL], 0.008, 0.003, _STALK, mass=0, contype=0, conaffinity=0)


class SecondTomato(Tomato):
    """Second tomato."""

    name = "tomato_2"


class Bin(SceneObject):
    """Open bin."""

    name = "bin"
    region = Region((0.42, 0.56), (-0.25, 0.25), (-0.4, 0.4))
    radius = 0.115
    receives = True

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        body = spec.worldbody.add_body(name=self.name)
        add_box(body, [0, 0, _WALL], [_HALF, _HALF, _WALL], _BIN)
        for side in (-1, 1):
            add_box(body, [side * _HALF, 0, _HEIGHT / 2], [_WALL, _HALF + _WALL, _HEIGHT / 2], _BIN)
            add_box(body, [0, side * _HALF, _HEIGHT / 2], [_HALF, _WALL, _HEIGHT / 2], _BIN)
        half = _HEIGHT / 2 - 0.01
        add_site(body, self.name, [0, 0, half], z=(0, 0, 1), half=[_HALF, _HALF, half])


class PutRubbishInBin(Task):
    """Judged as in the GENIMA paper, appendix A: the rubbish is inside the bin, and released."""

    instructions = (
        "put the rubbish in the bin",
        "drop the rubbish into the bin",
        "pick up the rubbish and leave it in the bin",
    )
    objects = (Rubbish(), Tomato(), SecondTomato(), Bin())
    allows_scaling = True
    near_misses = {
        "beside the bin": {"rubbish": RelativePose("bin", (-0.14, 0.0, _SIZE - _HEIGHT / 2 + 0.01))},
        "in the air above the bin": {"rubbish": RelativePose("bin", (0.0, 0.0, 0.6))},
        "on the rim": {"rubbish": RelativePose("bin", (_HALF, 0.0, _HEIGHT / 2 + 0.01 + _SIZE))},
        "a tomato in the bin": {"tomato_1": RelativePose("bin")},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.is_inside("rubbish", "bin") and not state.is_touched("rubbish")

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        rubbish, target = scene.frame("rubbish"), scene.frame("bin")
        azimuths = [np.arctan2(frame[1, 3], frame[0, 3]) for frame in (rubbish, target)]
        turn = Rotation.from_euler("z", azimuths[1] - azimuths[0]).as_matrix()  # the gripper turns with the arm
        over = pose(turn @ rubbish[:3, :3], np.array([*target[:2, 3], rubbish[2, 3]]))
        yield from grasp(rubbish)
        yield MoveTo(shift(rubbish, z=_LIFT), 1.0, 0.0)
        yield MoveTo(shift(over, z=_LIFT), 1.5, 0.0)
        yield MoveTo(shift(over, z=_RELEASE), 0.6, 0.0)
        yield MoveTo(shift(over, z=_RELEASE), GRIP_TIME, 1.0)
