"""Base pose of an arm from the axes of its joints in a world frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose

Array = NDArray[np.float64]
_TOLERANCE = 0.005, np.radians(1.0)  # m and rad of deviation of an axis


def base_pose(robot: RobotModel, positions: Array, T_world_joints: Array) -> Array:
    """Compute the base pose of an arm from the frames of its joints.

    Only the z axes are used: simulators choose origins and x axes freely, and may omit the joint's own rotation.

    Args:
        robot: the arm.
        positions: (n,) rad.
        T_world_joints: (n, 4, 4), each joint turning about its z axis.

    Returns:
        ``T_world_base`` (4, 4).

    Raises:
        GenimaError: for axes that do not fit the arm at these positions.
    """
    T_base_links = robot.link_poses(positions)[: len(positions)]
    axes, seen = T_base_links[:, :3, 2], T_world_joints[:, :3, 2]
    R = Rotation.align_vectors(seen, axes)[0].as_matrix()
    # Least squares of the distances perpendicular to the axes: the origins' positions along them are arbitrary.
    across = np.eye(3) - seen[:, :, None] * seen[:, None, :]
    offsets = T_world_joints[:, :3, 3] - T_base_links[:, :3, 3] @ R.T
    t = np.linalg.solve(across.sum(0), (across @ offsets[..., None]).sum(0)[:, 0])
    distances = np.linalg.norm((across @ (offsets - t)[..., None])[..., 0], axis=1)
    angles = np.arccos(np.clip(np.sum(seen * (axes @ R.T), axis=1), -1, 1))
    wrong = (distances > _TOLERANCE[0]) | (angles > _TOLERANCE[1])
    if np.any(wrong):
        names = [f"{robot.joint_names[i]} by {1e3 * distances[i]:.0f} mm and {np.degrees(angles[i]):.0f} deg"
                 for i in np.flatnonzero(wrong)]  # fmt: skip
        raise GenimaError(f"robot {robot.arm}: joint axes differ ({', '.join(names)}); is this the arm in the scene?")
    return pose(R, t)
