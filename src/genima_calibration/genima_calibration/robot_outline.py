"""Outline of the robot model in an image, and its shift by a motion of the camera.

An outline is where the robot's surface turns away from the camera. To first order, its shift across itself is that of
the points of the robot on it; a shift along it is not visible.

Source: Drummond and Cipolla, Real-time visual tracking of complex structures, IEEE Trans. Pattern Analysis and Machine
Intelligence 24(7), 2002.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera import Camera

Array = NDArray[np.float64]
_SMOOTH = 1.5  # px, of the silhouette before its normals are taken


@dataclass(frozen=True)
class Outline:
    """Outline of M points, about one per pixel."""

    pixels: Array  # (M, 2), pixel centres at n + 0.5
    normals: Array  # (M, 2), unit vectors that point away from the robot
    by_twist: Array  # (M, 6): shift in px along the normal by a twist of the camera in its own frame

    def __len__(self) -> int:
        return len(self.pixels)

    def shift(self, twist: Array) -> Array:
        """Return the shift (M,) in px of the outline along its normals for a camera twist (6,)."""
        return self.by_twist @ twist

    def take(self, which: NDArray[np.bool_]) -> Outline:
        """Return the points where ``which`` (M,) is true."""
        return Outline(self.pixels[which], self.normals[which], self.by_twist[which])

    @classmethod
    def of(cls, depth: NDArray[np.float32], camera: Camera) -> Outline:
        """Return the outline of a depth image (h, w) of the robot alone; image borders are not part of it."""
        mask = np.isfinite(depth)
        smooth = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), _SMOOTH)
        gradient = np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)], -1)
        parts = []
        for axis in (0, 1):  # across columns, then across rows
            m, d, g = (np.swapaxes(a, 0, 1) if axis else a for a in (mask, depth, gradient))
            row, column = np.nonzero(m[:, 1:] != m[:, :-1])
            normal = -(g[row, column] + g[row, column + 1])
            across = np.abs(normal[:, axis]) >= np.abs(normal[:, 1 - axis])  # else the point is of the other axis
            row, column, normal = row[across], column[across], normal[across]
            inside = column + m[row, column + 1]
            pixel = np.stack([column + 1.0, row + 0.5], -1)
            parts.append((pixel[:, ::-1] if axis else pixel, normal, d[row, inside]))
        pixels, normals, z = (np.concatenate(p).astype(float) for p in zip(*parts, strict=True))
        length = np.linalg.norm(normals, axis=1)
        pixels, normals, z = (a[length > 0] for a in (pixels, normals, z))
        normals /= length[length > 0, None]
        x, y = ((pixels - [camera.cx, camera.cy]) / [camera.fx, camera.fy]).T
        # in the camera's frame, a twist (t, w) moves a point p by -t + p x w
        a, b = normals[:, 0] * camera.fx / z, normals[:, 1] * camera.fy / z
        by_point = np.stack([a, b, -(a * x + b * y)], -1)
        points = np.stack([x * z, y * z, z], -1)
        return cls(pixels, normals, np.concatenate([-by_point, np.cross(by_point, points)], -1))


def along_normals(image: NDArray[np.float32], outline: Outline, offsets: Array) -> NDArray[np.float32]:
    """Return values (M, S, ...) of an image (h, w, ...) at ``offsets`` (S,) in px along the normals, 0 outside."""
    if not len(outline):  # OpenCV rejects empty maps
        return np.zeros((0, len(offsets), *image.shape[2:]), np.float32)
    at = (outline.pixels[:, None] + offsets[:, None] * outline.normals[:, None] - 0.5).astype(np.float32)
    x, y = np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.float32)
