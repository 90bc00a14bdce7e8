"""Pixels of points, by OpenCV."""

from __future__ import annotations

import cv2
import numpy as np

from genima.cameras.camera import Camera


def project(camera: Camera, points: np.ndarray) -> np.ndarray:
    """Return the pixels (n, 2) of points (n, 3) in the base frame, for a camera on the base."""
    T_camera_base = np.linalg.inv(camera.T_parent_camera)
    rotation, _ = cv2.Rodrigues(T_camera_base[:3, :3])
    return cv2.projectPoints(points, rotation, T_camera_base[:3, 3], camera.K, None)[0][:, 0]
