"""Conversion of transforms and poses; not in :mod:`messages`, as few nodes need them and SciPy loads slowly."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, TransformStamped, Vector3
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from genima.errors import GenimaError
from genima_interfaces.msg import SceneStatus
from genima_nodes.ros.messages import time_message


def transform_message(stamp: float, parent: str, child: str, T_parent_child: NDArray[np.float64]) -> TransformStamped:
    """Return the message of a frame's pose (4, 4) in its parent."""
    message = TransformStamped(child_frame_id=child, header=Header(stamp=time_message(stamp), frame_id=parent))
    x, y, z = map(float, T_parent_child[:3, 3])
    message.transform.translation = Vector3(x=x, y=y, z=z)
    message.transform.rotation = _quaternion_message(T_parent_child)
    return message


def transform_from(message: TransformStamped) -> NDArray[np.float64]:
    """Invert :func:`transform_message`; return the pose (4, 4).

    Raises:
        GenimaError: when it is not finite, or its quaternion not of length 1.
    """
    T = _matrix(message.transform.translation, message.transform.rotation)
    if T is None:
        raise GenimaError(f"transform of {message.child_frame_id}: malformed")
    return T


def pose_message(T: NDArray[np.float64]) -> Pose:
    """Return the message of a pose (4, 4)."""
    x, y, z = map(float, T[:3, 3])
    return Pose(position=Point(x=x, y=y, z=z), orientation=_quaternion_message(T))


def body_poses(message: SceneStatus) -> dict[str, NDArray[np.float64]]:
    """Return the poses (4, 4) of a scene's bodies by name, without those that are malformed."""
    poses = {
        name: _matrix(pose.position, pose.orientation)
        for name, pose in zip(message.bodies, message.poses, strict=False)
    }
    return {name: T for name, T in poses.items() if T is not None}


def _quaternion_message(T: NDArray[np.float64]) -> Quaternion:
    x, y, z, w = map(float, Rotation.from_matrix(T[:3, :3]).as_quat())
    return Quaternion(x=x, y=y, z=z, w=w)


def _matrix(position: Point | Vector3, rotation: Quaternion) -> NDArray[np.float64] | None:
    """Return the pose (4, 4), or None where it is not finite, or its quaternion not of length 1."""
    T, quaternion = np.eye(4), np.array([rotation.x, rotation.y, rotation.z, rotation.w])
    T[:3, 3] = position.x, position.y, position.z
    if not np.all(np.isfinite(T)) or not abs(np.linalg.norm(quaternion) - 1) < 1e-3:
        return None
    T[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
    return T
