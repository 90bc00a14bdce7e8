"""Photographs of calibration boards, made without a simulator."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.intrinsics import CameraIntrinsics
from genima.robot.rigid_transforms import inverse, pose


@cache
def _rays(lens: CameraIntrinsics) -> np.ndarray:
    """Return the ray of each half pixel (2h, 2w, 3), at z = 1."""
    u, v = np.meshgrid(*((np.arange(2 * n) + 0.5) / 2 for n in (lens.width, lens.height)))
    pixels = np.stack([u, v], -1).reshape(-1, 1, 2)
    rays = cv2.undistortPoints(pixels, lens.K, np.array(lens.distortion)).reshape(*u.shape, 2)
    return np.concatenate([rays, np.ones((*u.shape, 1))], -1)


def photograph(
    board: CalibrationBoard, T_camera_board: np.ndarray, lens: CameraIntrinsics, blur: float = 0.7
) -> np.ndarray:
    """Render an image (h, w, 3) of a board on a grey background with 2 x 2 rays per pixel, blur and noise."""
    per_metre, margin = 3000.0, 0.02
    rays = _rays(lens) @ T_camera_board[:3, :3]  # in the board's axes
    eye = inverse(T_camera_board)[:3, 3]
    at = eye[:2] - eye[2] * rays[..., :2] / rays[..., 2:]
    x, y = np.moveaxis((at + margin) * per_metre - 0.5, -1, 0).astype(np.float32)
    image = cv2.remap(board.image(per_metre, margin)[..., 0], x, y, cv2.INTER_LINEAR, borderValue=90).astype(float)
    image = 40 + 0.7 * cv2.resize(image, (lens.width, lens.height), interpolation=cv2.INTER_AREA)
    image = cv2.GaussianBlur(image, (0, 0), blur) + np.random.default_rng(0).normal(0, 3, image.shape)
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def ahead(board: CalibrationBoard, turn: list[float], distance: float = 0.5) -> np.ndarray:
    """Return ``T_camera_board`` of a board in the middle of the image, rotated about z, x, y in rad."""
    R = Rotation.from_euler("zxy", turn)
    return pose(R.as_matrix(), np.array([0, 0, distance]) - R.apply([*np.array(board.size) / 2, 0]))
