"""Where an arm stands in a world that shows its joints' axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.errors import GenimaError
from genima.robot.model import RobotModel

Array = NDArray[np.float64]
_TOLERANCE = 0.005, np.radians(1.0)  # m and rad that an axis may lie beside where the arm has it


def base_pose(robot: RobotModel, positions: Array, T_world_joints: Array) -> Array:
    """The pose of an arm's base from its joints' frames, of which only the axes count: simulators choose origins and
    x axes freely, and may leave out the turn of the joint itself.

    Args:
        robot: the arm.
        positions: (n,) rad, of its joints.
        T_world_joints: (n, 4, 4), each joint turning about its z axis.

    Returns:
        ``T_world_base`` (4, 4).

    Raises:
        GenimaError: when these are not the axes of this arm at these positions.
    """
    T_base_links = robot.link_poses(positions)[: len(positions)]
    axes, seen = T_base_links[:, :3, 2], T_world_joints[:, :3, 2]
    R = Rotation.align_vectors(seen, axes)[0].as_matrix()
    # The origins' places along their axes do not count: least squares of the distances across them.
    across = np.eye(3) - seen[:, :, None] * seen[:, None, :]
    offsets = T_world_joints[:, :3, 3] - T_base_links[:, :3, 3] @ R.T
    t = np.linalg.solve(across.sum(0), (across @ offsets[..., None]).sum(0)[:, 0])
    distances = np.linalg.norm((across @ (offsets - t)[..., None])[..., 0], axis=1)
    angles = np.arccos(np.clip(np.sum(seen * (axes @ R.T), axis=1), -1, 1))
    wrong = (distances > _TOLERANCE[0]) | (angles > _TOLERANCE[1])
    if np.any(wrong):
        names = [f"{robot.joint_names[i]} by {1e3 * distances[i]:.0f} mm and {np.degrees(angles[i]):.0f} deg"
                 for i in np.flatnonzero(wrong)]  # fmt: skip
        raise GenimaError(f"the arm is no {robot.arm}: axes are off, {', '.join(names)}")
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, t
    return T
