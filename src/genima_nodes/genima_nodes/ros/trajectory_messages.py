"""Action chunks as trajectory_msgs/JointTrajectory."""

from __future__ import annotations

import array

import numpy as np
from rclpy.duration import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import ActionChunk
from genima_nodes.ros.messages import seconds, time_message

_MAX_ACTIONS = 10_000  # of a chunk
_SPACING_TOLERANCE = 1e-3  # s between an action's time and an even spacing


def chunk_message(chunk: ActionChunk, robot: RobotModel) -> JointTrajectory:
    """Return the message of a chunk; the gripper's joint carries the probability of open."""
    message = JointTrajectory(joint_names=[*robot.joint_names, robot.gripper_joint])
    message.header.stamp = time_message(chunk.stamp)
    for due, positions, gripper in zip(chunk.due - chunk.stamp, chunk.positions, chunk.gripper, strict=True):
        point = JointTrajectoryPoint(positions=array.array("d", [*positions, gripper]))
        point.time_from_start = Duration(seconds=float(due)).to_msg()
        message.points.append(point)
    return message


def chunk_from(message: JointTrajectory, robot: RobotModel) -> ActionChunk:
    """Invert :func:`chunk_message`.

    Raises:
        GenimaError: when there is no action, actions are not evenly spaced in time, a joint is missing, a value is not
            finite, or the gripper's value is not a probability.
    """
    count = len(message.points)
    if not 0 < count <= _MAX_ACTIONS:
        raise GenimaError(f"chunk: {count or 'no'} actions; 1 to {_MAX_ACTIONS} are needed")
    times = np.array([point.time_from_start.sec + 1e-9 * point.time_from_start.nanosec for point in message.points])
    period = float(times[-1] / count)
    if not (period > 0 and np.all(np.abs(times - period * np.arange(1, count + 1)) <= _SPACING_TOLERANCE)):
        raise GenimaError("chunk: actions not evenly spaced in time, beginning one period after the stamp")
    rows = [robot.select_joints(message.joint_names, point.positions) for point in message.points]
    gripper = np.array([gripper for _, gripper in rows])
    if np.any((gripper < 0) | (gripper > 1)):
        raise GenimaError(f"chunk: {robot.gripper_joint} is not a probability of open, 0 to 1")
    return ActionChunk(seconds(message.header.stamp), period, np.array([positions for positions, _ in rows]), gripper)
