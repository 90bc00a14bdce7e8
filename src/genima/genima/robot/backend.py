"""Interfaces of an arm's controller and a gripper's action server, read from YAML.

A user adds a controller by a file in ``config/backends``; docs/real_robot.md describes its fields.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from genima.errors import GenimaError
from genima.io import paths
from genima.io.files import FileSchema, Text, read_yaml, validate
from genima.robot.model import GripperPosition, JointName, RobotModel, open_fraction
from genima.system.ros_names import require_topic

_FOLDER = "config", "backends"
_Schema = TypeVar("_Schema", bound=FileSchema)


def _topic(name: str) -> str:
    try:
        return require_topic(name, "name")
    except GenimaError as error:
        raise ValueError(str(error).removeprefix("name: ")) from None


_Topic = Annotated[str, AfterValidator(_topic)]  # or the name of a node, a service or an action


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("names must be unique")
    return names


_Joints = Annotated[tuple[JointName, ...], Field(strict=False, min_length=1, max_length=32), AfterValidator(_unique)]
_Names = Annotated[tuple[Text, ...], Field(strict=False, min_length=1, max_length=32), AfterValidator(_unique)]


class TargetMessage(Enum):
    """Message type of a controller's targets."""

    JOINT_STATE = "joint_state"  # sensor_msgs/JointState
    JOINT_TRAJECTORY = "joint_trajectory"  # trajectory_msgs/JointTrajectory of one point
    FLOAT64_ARRAY = "float64_array"  # std_msgs/Float64MultiArray, in the order of the joints


class GripperAction(Enum):
    """Type of a gripper's action."""

    AUTO = "auto"  # one of the next two, detected from its server
    PARALLEL = "control_msgs/action/ParallelGripperCommand"
    POSITION = "control_msgs/action/GripperCommand"
    FRANKA = "franka_msgs/action/Move and Grasp"


class Recovery(FileSchema):
    """Recovery of a franka_ros2 robot after a reflex."""

    action: _Topic  # franka_msgs/action/ErrorRecovery
    state: _Topic  # topic of franka_msgs/msg/FrankaRobotState
    manager: _Topic  # node of the controller manager
    hardware: Text  # name of the component in the controller manager
    broadcasters: _Names  # controllers that only publish: activated before the one that moves the arm


class ArmBackend(FileSchema):
    """Arm driver and its controller. Relative names are in the nodes' namespace."""

    name: Text  # of the file
    controller: Text  # name in the controller manager
    states: _Topic  # topic of the measured joints
    target: _Topic  # topic of the targets, published only by the command guard's adapter
    subscribes: _Topic = ""  # the controller's own name of that topic, to be remapped where it differs
    message: Annotated[TargetMessage, Field(strict=False)]
    velocities: bool  # the controller uses them
    keep_alive: bool  # it needs targets continuously, also while the arm has no owner
    ahead: Annotated[float, Field(gt=0, le=1)] = 0.0  # s from a trajectory's start to its point; 0: other messages
    joints: _Joints | None = None  # the driver's names in the robot's order; None: the robot's own
    recovery: Recovery | None = None

    @model_validator(mode="after")
    def _check_message(self) -> ArmBackend:
        if ("ahead" in self.model_fields_set) != (self.message is TargetMessage.JOINT_TRAJECTORY):
            raise ValueError("ahead applies only to message: joint_trajectory")
        return self

    @classmethod
    def load(cls, name_or_file: str | Path) -> ArmBackend:
        """Read ``config/backends/<name>.yaml`` or a YAML file.

        Raises:
            GenimaError: for a missing file, a missing, unknown or bad field.
        """
        backend = _load(cls, name_or_file)
        return backend if backend.subscribes else backend.model_copy(update={"subscribes": backend.target})

    def joint_names(self, robot: RobotModel) -> tuple[str, ...]:
        """Return the driver's names of the robot's joints, in the robot's order.

        Raises:
            GenimaError: for another number of joints than the robot has.
        """
        if self.joints is None:
            return robot.joint_names
        if len(self.joints) != len(robot.joint_names):
            raise GenimaError(
                f"backend {self.name}: wrong number of joints ({len(self.joints)}); "
                f"{robot.name} has {len(robot.joint_names)}"
            )
        return self.joints


class GripperBackend(FileSchema):
    """Action server of a gripper. Relative names are in the nodes' namespace."""

    name: Text  # of the file
    action: _Topic  # name of the action; for the Franka hand, of the node that has both
    kind: Annotated[GripperAction, Field(strict=False)]
    states: _Topic  # topic of the measured joints
    joint: JointName  # the one of them that measures the opening
    opened: GripperPosition = Field(alias="open")  # its position in rad or m when open
    closed: GripperPosition
    effort: Annotated[float, Field(gt=0, le=1000)]  # N at most
    speed: Annotated[float, Field(gt=0, le=10)] = 0.0  # m/s, Franka hand only; 0: the server's default

    @model_validator(mode="after")
    def _check_travel(self) -> GripperBackend:
        if abs(self.opened - self.closed) < 1e-6:
            raise ValueError("open and closed must differ")
        if ("speed" in self.model_fields_set) != (self.kind is GripperAction.FRANKA):
            raise ValueError(f"speed applies only to kind: {GripperAction.FRANKA.value}")
        return self

    @classmethod
    def load(cls, name_or_file: str | Path) -> GripperBackend:
        """Read ``config/backends/<name>.yaml`` or a YAML file.

        Raises:
            GenimaError: for a missing file, a missing, unknown or bad field.
        """
        return _load(cls, name_or_file)

    def fraction(self, position: float) -> float:
        """Return the open fraction, 1 open .. 0 closed, at a position of the joint.

        Raises:
            GenimaError: for a position that this gripper cannot have.
        """
        return open_fraction(self.joint, position, self.closed, self.opened)

    def position(self, fraction: float) -> float:
        """Return the joint's position for an open fraction: the inverse of :meth:`fraction`."""
        return float(self.closed + np.clip(fraction, 0, 1) * (self.opened - self.closed))


def _load(schema: type[_Schema], name_or_file: str | Path) -> _Schema:
    path = paths.config_file(name_or_file, *_FOLDER)
    data = read_yaml(path, "backend")
    if isinstance(data, dict):
        if "name" in data:
            raise GenimaError(f"backend {path}: name: unknown field; remove it, a backend has the name of its file")
        data["name"] = path.stem
    return validate(schema, data, f"backend {path}")
