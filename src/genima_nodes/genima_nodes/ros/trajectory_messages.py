"""Chunks as messages, for eyes: apart from the other messages, as few nodes need them."""

from __future__ import annotations

import array

import numpy as np
from rclpy.duration import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import ActionChunk
from genima_nodes.ros.messages import seconds, time_message


def chunk_message(chunk: ActionChunk, robot: RobotModel) -> JointTrajectory:
    """All actions with when they are due after the stamp; the gripper's joint carries the probability of open."""
    message = JointTrajectory(joint_names=[*robot.joint_names, robot.gripper_joint])
    message.header.stamp = time_message(chunk.stamp)
    for due, positions, gripper in zip(chunk.due - chunk.stamp, chunk.positions, chunk.gripper, strict=True):
        point = JointTrajectoryPoint(positions=array.array("d", [*positions, gripper]))
        point.time_from_start = Duration(seconds=float(due)).to_msg()
        message.points.append(point)
    return message


def chunk_from(message: JointTrajectory, robot: RobotModel) -> ActionChunk:
    """The inverse of :func:`chunk_message`; the actions are taken to be evenly spaced.

    Raises:
        GenimaError: when there is no action, a joint is missing, or a value is not finite.
    """
    if not message.points:
        raise GenimaError("the chunk has no actions")
    rows = [robot.in_order(message.joint_names, point.positions) for point in message.points]
    last = message.points[-1].time_from_start
    return ActionChunk(
        stamp=seconds(message.header.stamp),
        period=(last.sec + 1e-9 * last.nanosec) / len(rows),
        positions=np.array([positions for positions, _ in rows]),
        gripper=np.array([gripper for _, gripper in rows]),
    )
