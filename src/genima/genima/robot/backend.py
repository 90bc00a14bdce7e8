"""How set-points reach an arm's controller and a gripper's action server, read from YAML.

A user adds a controller by a file beside those in ``config/backends``; docs/real_robot.md says what its fields mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from genima import paths
from genima.errors import GenimaError
from genima.files import read_yaml
from genima.robot.model import RobotModel

_FOLDER = "config", "backends"


class TargetMessage(Enum):
    """What a controller takes its targets as."""

    JOINT_STATE = "joint_state"  # sensor_msgs/JointState
    JOINT_TRAJECTORY = "joint_trajectory"  # trajectory_msgs/JointTrajectory of one point
    FLOAT64_ARRAY = "float64_array"  # std_msgs/Float64MultiArray, in the order of the joints


class GripperAction(Enum):
    """What a gripper's server takes its goals as."""

    AUTO = "auto"  # one of the next two, as its server says
    PARALLEL = "control_msgs/action/ParallelGripperCommand"
    POSITION = "control_msgs/action/GripperCommand"
    FRANKA = "franka_msgs/action/Move and Grasp"


@dataclass(frozen=True)
class Recovery:
    """What brings a robot of franka_ros2's back after a reflex."""

    action: str  # franka_msgs/action/ErrorRecovery
    state: str  # topic of franka_msgs/msg/FrankaRobotState
    manager: str  # node of the controller manager
    hardware: str  # component, as the controller manager calls it
    broadcasters: tuple[str, ...]  # controllers that only tell: switched on before the one that moves the arm


@dataclass(frozen=True)
class ArmBackend:
    """An arm's driver with the controller that takes targets. Relative names lie in our nodes' namespace."""

    name: str
    controller: str  # as the controller manager calls it
    states: str  # topic of the measured joints
    target: str  # topic of the targets, which the command guard's adapter alone may publish
    subscribes: str  # what the controller itself calls that topic; where it is another, it must be remapped
    message: TargetMessage
    velocities: bool  # whether it makes use of them
    keep_alive: bool  # whether it must hear a target all the time, also when nobody moves the arm
    ahead: float  # s from a trajectory's start to its point; 0 for the other messages
    joints: tuple[str, ...] | None  # the driver's names in the robot's order; None: the robot's own
    recovery: Recovery | None

    @classmethod
    def load(cls, name_or_file: str | Path) -> ArmBackend:
        """Read ``config/backends/<name>.yaml`` or a YAML file.

        Raises:
            GenimaError: for a missing file, a missing, unknown or bad field.
        """
        fields = _Fields.load(name_or_file)
        recovery = None
        if (part := fields.part("recovery")) is not None:
            texts = {key: part.text(key) for key in ("action", "state", "manager", "hardware")}
            recovery = Recovery(**texts, broadcasters=part.names("broadcasters"))
            part.require_no_others()
        message = TargetMessage(fields.choice("message", [kind.value for kind in TargetMessage]))
        backend = cls(
            name=fields.path.stem,
            controller=fields.text("controller"),
            states=fields.text("states"),
            target=(target := fields.text("target")),
            subscribes=fields.text("subscribes") if "subscribes" in fields.data else target,
            message=message,
            velocities=fields.flag("velocities"),
            keep_alive=fields.flag("keep_alive"),
            ahead=fields.positive("ahead") if message is TargetMessage.JOINT_TRAJECTORY else 0.0,
            joints=fields.names("joints") if "joints" in fields.data else None,
            recovery=recovery,
        )
        fields.require_no_others()
        return backend

    def joint_names(self, robot: RobotModel) -> tuple[str, ...]:
        """The driver's names of the robot's joints, in the robot's order.

        Raises:
            GenimaError: when there are more or fewer than the robot has.
        """
        if self.joints is None:
            return robot.joint_names
        if len(self.joints) != len(robot.joint_names):
            raise GenimaError(
                f"backend {self.name} has {len(self.joints)} joints, {robot.name} has {len(robot.joint_names)}"
            )
        return self.joints


@dataclass(frozen=True)
class GripperBackend:
    """A gripper's action server. Relative names lie in our nodes' namespace."""

    name: str
    action: str  # name of the action; of the node, for the Franka hand's two
    kind: GripperAction
    states: str  # topic of the measured joints
    joint: str  # the one of them that tells
    opened: float  # its position in rad or m when open
    closed: float
    effort: float  # N at most
    speed: float  # m/s, of the Franka hand alone; 0: the server's own

    @classmethod
    def load(cls, name_or_file: str | Path) -> GripperBackend:
        """Read ``config/backends/<name>.yaml`` or a YAML file.

        Raises:
            GenimaError: for a missing file, a missing, unknown or bad field.
        """
        fields = _Fields.load(name_or_file)
        kind = GripperAction(fields.choice("kind", [kind.value for kind in GripperAction]))
        backend = cls(
            name=fields.path.stem,
            action=fields.text("action"),
            kind=kind,
            states=fields.text("states"),
            joint=fields.text("joint"),
            opened=fields.number("open"),
            closed=fields.number("closed"),
            effort=fields.positive("effort"),
            speed=fields.positive("speed") if kind is GripperAction.FRANKA else 0.0,
        )
        if backend.opened == backend.closed:
            raise GenimaError(f"backend {fields.path}: open and closed must differ")
        fields.require_no_others()
        return backend

    def fraction(self, position: float) -> float:
        """How far it is open, 1 open .. 0 closed, at a position of its joint."""
        return float(np.clip((position - self.closed) / (self.opened - self.closed), 0, 1))

    def position(self, fraction: float) -> float:
        """The inverse of :meth:`fraction`."""
        return float(self.closed + np.clip(fraction, 0, 1) * (self.opened - self.closed))


@dataclass(frozen=True)
class _Fields:
    """The fields of a file, each taken once; every error names the file."""

    path: Path
    data: dict[str, Any]  # what has not been taken yet

    @classmethod
    def load(cls, name_or_file: str | Path) -> _Fields:
        path = paths.named(name_or_file, *_FOLDER)
        data = read_yaml(path, "backend")
        if not isinstance(data, Mapping):
            raise GenimaError(f"backend {path} has no fields")
        return cls(path, dict(data))

    def part(self, key: str) -> _Fields | None:
        part = self.data.pop(key, None)
        if part is not None and not isinstance(part, Mapping):
            raise self._bad(key, "must have fields of its own")
        return None if part is None else _Fields(self.path, dict(part))

    def text(self, key: str) -> str:
        value = self._take(key)
        if not isinstance(value, str) or not value.strip():
            raise self._bad(key, f"is {value!r}; it must be a text")
        return value

    def choice(self, key: str, known: list[str]) -> str:
        if (value := self.text(key)) not in known:
            raise self._bad(key, f"is {value!r}; known: {', '.join(known)}")
        return value

    def flag(self, key: str) -> bool:
        value = self._take(key)
        if not isinstance(value, bool):
            raise self._bad(key, f"is {value!r}; it must be true or false")
        return value

    def number(self, key: str) -> float:
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise self._bad(key, f"is {value!r}; it must be a number")
        return float(value)

    def positive(self, key: str) -> float:
        if not (value := self.number(key)) > 0:
            raise self._bad(key, f"is {value:g}; it must be positive")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        value = self._take(key)
        good = isinstance(value, list) and value and all(isinstance(name, str) and name for name in value)
        if not good or len(set(value)) < len(value):
            raise self._bad(key, f"is {value!r}; it must be a list of names, each once")
        return tuple(value)

    def require_no_others(self) -> None:
        """Raise a GenimaError when a field was not asked for: it would be without effect."""
        if self.data:
            raise GenimaError(f"backend {self.path} has no field {', '.join(sorted(map(str, self.data)))}")

    def _take(self, key: str) -> Any:
        if key not in self.data:
            raise GenimaError(f"backend {self.path} lacks {key}")
        return self.data.pop(key)

    def _bad(self, key: str, why: str) -> GenimaError:
        return GenimaError(f"backend {self.path}: {key} {why}")
