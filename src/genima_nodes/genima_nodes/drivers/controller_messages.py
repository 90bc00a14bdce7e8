"""Convert set-points to the messages of an arm's controller."""

from __future__ import annotations

import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from genima.robot.backend import ArmBackend, TargetMessage
from genima_nodes.ros import messages

Array = NDArray[np.float64]
Message: TypeAlias = JointState | JointTrajectory | Float64MultiArray


@dataclass(frozen=True)
class ControllerTarget:
    """Message factory of one controller."""

    kind: type
    make: Callable[[float, Array, Array], Message]  # of a stamp in s, positions (n,) rad, velocities (n,) rad/s


def controller_target(backend: ArmBackend, joints: Sequence[str]) -> ControllerTarget:
    """Return the message factory; ``joints`` are the driver's names, in the robot's order."""

    def joint_state(stamp: float, positions: Array, velocities: Array) -> JointState:
        message = JointState(name=list(joints), position=array.array("d", positions))
        message.header.stamp = messages.time_message(stamp)
        if backend.velocities:
            message.velocity = array.array("d", velocities)
        return message

    def joint_trajectory(stamp: float, positions: Array, velocities: Array) -> JointTrajectory:
        point = JointTrajectoryPoint(positions=array.array("d", positions))
        point.time_from_start = Duration(seconds=backend.ahead).to_msg()
        if backend.velocities:
            point.velocities = array.array("d", velocities)
        # stamp 0: start at once, by the controller's clock
        return JointTrajectory(joint_names=list(joints), points=[point])

    def float64_array(stamp: float, positions: Array, velocities: Array) -> Float64MultiArray:
        # multipanda ignores a message whose first value is 0
        return Float64MultiArray(data=array.array("d", np.where(positions == 0, 1e-9, positions)))

    return {
        TargetMessage.JOINT_STATE: ControllerTarget(JointState, joint_state),
        TargetMessage.JOINT_TRAJECTORY: ControllerTarget(JointTrajectory, joint_trajectory),
        TargetMessage.FLOAT64_ARRAY: ControllerTarget(Float64MultiArray, float64_array),
    }[backend.message]
