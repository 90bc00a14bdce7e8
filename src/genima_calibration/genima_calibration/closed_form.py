"""Closed-form poses of camera and board: A_i Y = X B_i.

X is ``T_parent_camera``, Y ``T_carrier_board``, A_i ``T_parent_carrier`` by forward kinematics and B_i
``T_camera_board`` from each image. A camera on the base sees a board on the flange; a camera on the flange one on the
base: the same equations with A_i inverted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera import Parent
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import inverse, mean_pose, nearest_rotation, pose, rotation_vector, transform
from genima_calibration.samples import SampleStack

Array = NDArray[np.float64]
OPENCV: Mapping[str, int] = {
    "tsai": cv2.CALIB_HAND_EYE_TSAI,
    "park": cv2.CALIB_HAND_EYE_PARK,
    "horaud": cv2.CALIB_HAND_EYE_HORAUD,
    "andreff": cv2.CALIB_HAND_EYE_ANDREFF,
    "daniilidis": cv2.CALIB_HAND_EYE_DANIILIDIS,
}


@dataclass(frozen=True)
class HandEye:
    """Poses of the camera and the board."""

    parent: Parent  # of the camera
    T_parent_camera: Array  # (4, 4)
    T_carrier_board: Array  # (4, 4); the carrier is the flange if the parent is the base, else the base

    def T_camera_board(self, robot: RobotModel, joints: Array) -> Array:
        """Return the board's pose (..., 4, 4) for joints (..., n) rad."""
        T_base_flange = robot.link_poses(joints)[..., -2, :, :]
        T_parent_carrier = T_base_flange if self.parent == "base" else inverse(T_base_flange)
        return inverse(self.T_parent_camera) @ T_parent_carrier @ self.T_carrier_board


def solve_opencv(samples: SampleStack, parent: Parent, method: str) -> HandEye | None:
    """Solve by one of OpenCV's solvers (:data:`OPENCV`) from the board poses; None without a solution."""
    A, B = samples.T_parent_carrier(parent), samples.T_camera_board
    A_inverse = inverse(A)
    try:
        R, t = cv2.calibrateHandEye(
            list(A_inverse[:, :3, :3]), list(A_inverse[:, :3, 3]), list(B[:, :3, :3]), list(B[:, :3, 3]),
            method=OPENCV[method],
        )  # fmt: skip
    except cv2.error:
        return None
    X = pose(np.array(R, float), np.array(t, float)[:, 0])
    if not np.all(np.isfinite(X)):
        return None
    return HandEye(parent, X, mean_pose(A_inverse @ X @ B))


def solve_closed(A: Array, B: Array, free_scale: bool = False) -> tuple[Array, Array, Array]:
    """Return X (..., 4, 4), Y (..., 4, 4) and board scales (...,) for many sets A, B (..., k, 4, 4).

    The rotation is solved from all pairs' rotation vectors, the translation by linear least squares; with
    ``free_scale``, also the scale of the board relative to its file.

    Source: Park and Martin, Robot sensor calibration: solving AX = XB on the Euclidean group, IEEE Trans. Robotics and
    Automation 10(5), 1994; the scale as Andreff, Horaud, Espiau, Robot hand-eye calibration using
    structure-from-motion, Int. J. Robotics Research 20(3), 2001.
    """
    i, j = np.triu_indices(A.shape[-3], 1)
    A_ij = A[..., j, :, :] @ inverse(A[..., i, :, :])
    B_ij = B[..., j, :, :] @ inverse(B[..., i, :, :])
    a, b = rotation_vector(A_ij[..., :3, :3]), rotation_vector(B_ij[..., :3, :3])
    R = nearest_rotation(np.einsum("...ki,...kj->...ij", a, b))
    left = A_ij[..., :3, :3] - np.eye(3)
    rotated = np.einsum("...ij,...kj->...ki", R, B_ij[..., :3, 3])
    right = -A_ij[..., :3, 3]
    if free_scale:
        left = np.concatenate([left, -rotated[..., None]], -1)
    else:
        right = right + rotated
    left = left.reshape(*left.shape[:-3], -1, left.shape[-1])
    right = right.reshape(*right.shape[:-2], -1, 1)
    solution = (np.linalg.pinv(left) @ right)[..., 0]
    scale = solution[..., 3] if free_scale else np.ones(solution.shape[:-1])
    X = pose(R, solution[..., :3])
    scaled = B.copy()
    scaled[..., :3, 3] *= scale[..., None, None]
    return X, mean_pose(inverse(A) @ X[..., None, :, :] @ scaled), scale


def misfit(X: Array, Y: Array, scale: Array, samples: SampleStack, parent: Parent) -> Array:
    """Return the median reprojection error of each sample in px: (..., N).

    Args:
        X: (..., 4, 4) ``T_parent_camera``.
        Y: (..., 4, 4) ``T_carrier_board``.
        scale: (...,) of the board.
    """
    T = inverse(X)[..., None, :, :] @ samples.T_parent_carrier(parent) @ Y[..., None, :, :]
    p_camera = transform(T, scale[..., None, None, None] * samples.points)
    off = np.linalg.norm(samples.pixels - samples.intrinsics.project(p_camera), axis=-1)
    off = np.sort(np.where(samples.seen, np.nan_to_num(off, nan=1e4), np.inf), axis=-1)
    middle = np.broadcast_to(samples.seen.sum(-1) // 2, off.shape[:-1])
    return np.take_along_axis(off, middle[..., None], -1)[..., 0]
