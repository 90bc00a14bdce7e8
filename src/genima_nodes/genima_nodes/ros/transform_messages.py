"""Conversion of tf transforms; not in :mod:`messages`, as few nodes need them and SciPy loads slowly."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from genima.errors import GenimaError
from genima_nodes.ros.messages import time_message


def transform_message(stamp: float, parent: str, child: str, T_parent_child: NDArray[np.float64]) -> TransformStamped:
    """Return the message of a frame's pose (4, 4) in its parent."""
    message = TransformStamped(child_frame_id=child, header=Header(stamp=time_message(stamp), frame_id=parent))
    x, y, z = map(float, T_parent_child[:3, 3])
    message.transform.translation = Vector3(x=x, y=y, z=z)
    x, y, z, w = map(float, Rotation.from_matrix(T_parent_child[:3, :3]).as_quat())
    message.transform.rotation = Quaternion(x=x, y=y, z=z, w=w)
    return message


def transform_from(message: TransformStamped) -> NDArray[np.float64]:
    """Invert :func:`transform_message`; return the pose (4, 4).

    Raises:
        GenimaError: when it is not finite, or its quaternion not of length 1.
    """
    translation, rotation = message.transform.translation, message.transform.rotation
    T, quaternion = np.eye(4), np.array([rotation.x, rotation.y, rotation.z, rotation.w])
    T[:3, 3] = translation.x, translation.y, translation.z
    if not np.all(np.isfinite(T)) or not abs(np.linalg.norm(quaternion) - 1) < 1e-3:
        raise GenimaError(f"transform of {message.child_frame_id}: malformed")
    T[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
    return T
