"""Background of a fixed camera's images, and motion in front of it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Stack = NDArray[np.float32]  # (N, h, w, 3), levels 0..255
_DARK, _BRIGHT = 12.0, 240.0  # levels; pixels beyond them do not show the exposure
_MOTION = 12.0  # levels of difference


def normalize_exposure(images: Stack) -> Stack:
    """Return the images with equal exposure: each channel divided by its median ratio to the median image."""
    median = np.median(images, axis=0)
    usable = (median.min(-1) > _DARK) & (median.max(-1) < _BRIGHT)
    if usable.mean() < 0.05:
        return images
    gains = np.median(images[:, usable] / median[usable], axis=1)
    return np.asarray(images / np.maximum(gains, 1e-3)[:, None, None], np.float32)


def estimate_background(images: Stack, free: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the median (h, w, 3) of the images where each is free of the robot (N, h, w), and its validity (h, w)."""
    count = free.sum(0)
    ordered = np.where(free[..., None], images, np.float32(np.inf))
    ordered.sort(axis=0)
    middle = np.maximum(count - 1, 0) // 2
    median = np.take_along_axis(ordered, middle[None, ..., None], axis=0)[0]
    return np.where(count[..., None] > 0, median, np.float32(0)), count > 0


def motion_probability(images: Stack, width: int, height: int) -> NDArray[np.float32]:
    """Return the probability 0..1 of motion of each pixel of smaller images (N, height, width)."""
    small = np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images])
    difference = np.abs(small - np.median(small, axis=0)).max(-1)
    return np.clip(difference / _MOTION - 0.25, 0, 1).astype(np.float32)


def expected_motion(robot: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the expected result of :func:`motion_probability` for robot masks (N, height, width).

    Motion is expected at the robot, and where it is absent in one image but present in most; not where it is present in
    all images.
    """
    mask = robot.astype(np.float32)
    return np.maximum(mask, np.median(mask, axis=0)) * ~robot.all(axis=0)
