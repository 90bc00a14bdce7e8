"""Conversion between ROS messages and the library's types; malformed messages raise a GenimaError.

In commands, the gripper's joint carries its open fraction, 1 open .. 0 closed; in `joint_states` its position in rad or
m, as drivers report it.
"""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import Image as ImageMessage
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Command, DrawnTarget, Image, Joints
from genima_interfaces.msg import DrawnTarget as DrawnTargetMessage

_DEPTH_TYPES = {"16UC1": ("u2", 1e-3), "32FC1": ("f4", 1.0)}  # of NumPy; m of a unit


def depth_topic(view: str) -> str:
    """Return the topic of a camera's depth images, with stamp, size and frame of the colour image.

    The name is realsense2_camera's.
    """
    return f"cameras/{view}/aligned_depth_to_color/image_raw"


def seconds(stamp: Time) -> float:
    """Return a stamp in seconds since the epoch, exact to a microsecond."""
    return float(stamp.sec + 1e-9 * stamp.nanosec)


def now(node: Node) -> float:
    """Return the time of a node's clock in seconds."""
    return float(node.get_clock().now().nanoseconds * 1e-9)


def time_message(stamp: float) -> Time:
    """Invert :func:`seconds`."""
    nanoseconds = round(stamp * 1e9)
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def image_from(message: ImageMessage, size: tuple[int, int] | None = None) -> Image:
    """Return the image (h, w, 3) in rgb; it shares the message's memory.

    Args:
        message: must be rgb8 without padding.
        size: width and height that it must have; any if None.

    Raises:
        GenimaError: for another encoding, another size or missing bytes.
    """
    h, w = message.height, message.width
    if message.encoding != "rgb8":
        raise GenimaError(f"image: encoding {message.encoding or 'missing'}; rgb8 is needed")
    if size is not None and (w, h) != size:
        raise GenimaError(f"image: size {w}x{h}; {size[0]}x{size[1]} is needed")
    if message.step != 3 * w or len(message.data) != 3 * w * h:
        raise GenimaError(f"image: {len(message.data)} bytes in rows of {message.step} do not fit {w}x{h} rgb8")
    return np.frombuffer(message.data, np.uint8).reshape(h, w, 3)


def depth_from(message: ImageMessage, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """Return a depth image (h, w) in m, 0 where it is unknown.

    Args:
        message: 16UC1 in mm or 32FC1 in m, as in REP 118, without padding.
        size: width and height that it must have; any if None.

    Raises:
        GenimaError: for another encoding, another size or missing bytes.
    """
    h, w = message.height, message.width
    if message.encoding not in _DEPTH_TYPES:
        raise GenimaError(f"image: encoding {message.encoding or 'missing'}; 16UC1 or 32FC1 is needed")
    if size is not None and (w, h) != size:
        raise GenimaError(f"image: size {w}x{h}; {size[0]}x{size[1]} is needed")
    name, metres = _DEPTH_TYPES[message.encoding]
    kind = np.dtype(f"{'>' if message.is_bigendian else '<'}{name}")
    if message.step != kind.itemsize * w or len(message.data) != kind.itemsize * w * h:
        raise GenimaError(
            f"image: {len(message.data)} bytes in rows of {message.step} do not fit {w}x{h} {message.encoding}"
        )
    depth = np.frombuffer(message.data, kind).reshape(h, w).astype(np.float32) * np.float32(metres)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def depth_message(depth: NDArray[np.float32], stamp: float, frame: str = "") -> ImageMessage:
    """Return a 16UC1 message of a depth image (h, w) in m; what a millimetre of 16 bits does not hold is unknown, 0."""
    h, w = depth.shape
    millimetres = np.rint(1000 * depth)
    values = np.where((millimetres > 0) & (millimetres < 2**16), millimetres, 0).astype("<u2")
    message = ImageMessage(height=h, width=w, encoding="16UC1", step=2 * w)
    message.header = Header(stamp=time_message(stamp), frame_id=frame)
    message.data = array.array("B", values.tobytes())
    return message


def image_message(image: Image, stamp: float, frame: str = "") -> ImageMessage:
    """Return an rgb8 message of an image (h, w, 3)."""
    h, w, _ = image.shape
    message = ImageMessage(height=h, width=w, encoding="rgb8", step=3 * w)
    message.header = Header(stamp=time_message(stamp), frame_id=frame)
    message.data = array.array("B", image.tobytes())  # bytes or a list would be copied item by item
    return message


def joints_from(message: JointState, robot: RobotModel) -> Joints:
    """Return measured joints by name.

    Raises:
        GenimaError: when a joint is missing, named twice, not finite or far outside its range, and without a stamp.
    """
    positions, gripper = robot.select_joints(message.name, message.position)
    robot.require_in_range(positions)
    if not (stamp := seconds(message.header.stamp)) > 0:
        raise GenimaError("joint state: no stamp; its publisher must set header.stamp")
    return Joints(stamp, positions, robot.open_fraction(gripper))


def command_from(message: JointState, robot: RobotModel) -> Command:
    """Return a command by name; without velocities they are 0.

    Raises:
        GenimaError: when a joint is missing or named twice, or values are missing or not finite.
    """
    positions, gripper = robot.select_joints(message.name, message.position)
    velocities = np.zeros(len(positions))
    if len(message.velocity):
        velocities, _ = robot.select_joints(message.name, message.velocity)
    return Command(seconds(message.header.stamp), positions, velocities, gripper)


def command_message(command: Command, robot: RobotModel) -> JointState:
    """Invert :func:`command_from`."""
    message = JointState(name=[*robot.joint_names, robot.gripper_joint])
    message.header.stamp = time_message(command.stamp)
    message.position = array.array("d", [*command.positions, command.gripper])
    message.velocity = array.array("d", [*command.velocities, 0.0])
    return message


def joints_message(joints: Joints, robot: RobotModel) -> JointState:
    """Invert :func:`joints_from`."""
    message = JointState(name=[*robot.joint_names, robot.gripper_joint])
    message.header.stamp = time_message(joints.stamp)
    message.position = array.array("d", [*joints.positions, robot.gripper_position(joints.gripper)])
    return message


def drawn_target_from(message: DrawnTargetMessage) -> DrawnTarget:
    """Return the drawn target; its tile shares the message's memory.

    Raises:
        GenimaError: when the tile is not rgb8 or lacks bytes.
    """
    return DrawnTarget(
        stamp=seconds(message.header.stamp),
        instruction=message.task,
        views=tuple(message.views),
        tile=image_from(message.tile),
        steps=message.steps,
        seed=message.seed,
        latency=message.latency,
    )


def drawn_target_message(drawn: DrawnTarget, latency: float, skipped: int) -> DrawnTargetMessage:
    """Invert :func:`drawn_target_from`.

    Args:
        drawn: the drawn target.
        latency: s from the newest image's arrival until now.
        skipped: number of observations that were not used.
    """
    message = DrawnTargetMessage(
        task=drawn.instruction,
        views=list(drawn.views),
        tile=image_message(drawn.tile, drawn.stamp),
        latency=latency,
        steps=drawn.steps,
        seed=drawn.seed,
        skipped=skipped,
    )
    message.header.stamp = time_message(drawn.stamp)
    return message
