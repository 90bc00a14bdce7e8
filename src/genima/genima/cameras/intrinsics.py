"""Camera intrinsics: focal lengths, principal point and lens distortion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera import NO_DISTORTION, Camera
from genima.cameras.plausibility import require_plausible_intrinsics
from genima.errors import GenimaError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CameraIntrinsics:
    """Pinhole camera with Brown-Conrady distortion (ROS plumb_bob). Pixel centres at n + 0.5, as in `Camera`."""

    width: int  # px
    height: int  # px
    fx: float  # px
    fy: float  # px
    cx: float  # px
    cy: float  # px
    distortion: tuple[float, float, float, float, float] = NO_DISTORTION  # k1, k2, p1, p2, k3

    @property
    def K(self) -> Array:
        """Camera matrix (3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], float)

    @property
    def parameters(self) -> Array:
        """Parameters (9,): fx, fy, cx, cy, then the distortion."""
        return np.array([self.fx, self.fy, self.cx, self.cy, *self.distortion])

    def with_parameters(self, parameters: Array) -> CameraIntrinsics:
        """Return intrinsics of the same image size with other :attr:`parameters`."""
        fx, fy, cx, cy, k1, k2, p1, p2, k3 = (float(p) for p in parameters)
        return CameraIntrinsics(self.width, self.height, fx, fy, cx, cy, (k1, k2, p1, p2, k3))

    def project(self, points: Array) -> Array:
        """Project points (..., 3) in the optical frame, m, to pixels (..., 2); NaN behind the camera.

        Source: D. C. Brown, Close-range camera calibration, Photogrammetric Engineering 37(8), 1971.
        """
        x, y = np.moveaxis(points[..., :2] / np.where(points[..., 2:] > 0, points[..., 2:], np.nan), -1, 0)
        k1, k2, p1, p2, k3 = self.distortion
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        return np.stack([self.fx * u + self.cx, self.fy * v + self.cy], -1)

    def jacobians(self, points: Array) -> tuple[Array, Array]:
        """Return the jacobians of :meth:`project` by points (..., 2, 3) and by :attr:`parameters` (..., 2, 9)."""
        z = points[..., 2]
        x, y = points[..., 0] / z, points[..., 1] / z
        k1, k2, p1, p2, k3 = self.distortion
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        slope = k1 + r2 * (2 * k2 + r2 * 3 * k3)  # of radial by r2
        u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        u_x = radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
        mixed = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y  # u by y is v by x
        v_y = radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
        by_point = np.empty((*z.shape, 2, 3))
        by_point[..., 0, 0], by_point[..., 0, 1] = self.fx * u_x / z, self.fx * mixed / z
        by_point[..., 1, 0], by_point[..., 1, 1] = self.fy * mixed / z, self.fy * v_y / z
        by_point[..., 2] = -(by_point[..., 0] * x[..., None] + by_point[..., 1] * y[..., None])
        by_parameter = np.zeros((*z.shape, 2, 9))
        by_parameter[..., 0, 0], by_parameter[..., 1, 1] = u, v
        by_parameter[..., 0, 2] = by_parameter[..., 1, 3] = 1
        for row, (focal, at, twice) in enumerate(((self.fx, x, 2 * x * x), (self.fy, y, 2 * y * y))):
            for column, power in ((4, r2), (5, r2**2), (8, r2**3)):
                by_parameter[..., row, column] = focal * at * power
            across, along = (6, 7) if row == 0 else (7, 6)
            by_parameter[..., row, across] = focal * 2 * x * y
            by_parameter[..., row, along] = focal * (r2 + twice)
        return by_point, by_parameter

    def camera(self, view: str, parent: Literal["base", "flange"], T_parent_camera: Array) -> Camera:
        """Return a camera with these intrinsics at a pose."""
        numbers = (self.width, self.height, self.fx, self.fy, self.cx, self.cy)
        return Camera(view, parent, T_parent_camera, *numbers, self.distortion)

    @classmethod
    def of(cls, camera: Camera) -> CameraIntrinsics:
        """Return the intrinsics of a camera."""
        c = camera
        return cls(c.width, c.height, c.fx, c.fy, c.cx, c.cy, c.distortion)

    @classmethod
    def from_camera_info(
        cls, width: int, height: int, distortion_model: str, d: Sequence[float], k: Sequence[float]
    ) -> CameraIntrinsics:
        """Return the intrinsics of a ROS CameraInfo for the raw image; ``k`` (9,) row by row.

        ROS, OpenCV and librealsense put pixel centres at n: half a pixel is added.

        Raises:
            GenimaError: for an uncalibrated camera, another distortion model, and implausible numbers.
        """
        K = np.array(k, float)
        if K.shape != (9,) or not np.all(np.isfinite(K)) or min(K[0], K[4]) <= 0 or min(width, height) <= 0:
            raise GenimaError(
                "camera_info: no intrinsics (k or image size is zero or malformed); calibrate the lens "
                "(ros2 run camera_calibration cameracalibrator), or make the driver publish them"
            )
        coefficients = np.array(d, float)
        if not np.all(np.isfinite(coefficients)):
            raise GenimaError(f"camera_info: distortion d is not finite ({list(d)}); check the driver")
        brown_conrady = distortion_model in ("plumb_bob", "rational_polynomial") and not coefficients[5:].any()
        if coefficients.any() and not brown_conrady:
            raise GenimaError(
                f"camera_info: distortion model not supported ({distortion_model!r}, d = {list(d)}); use plumb_bob "
                "(k1, k2, p1, p2, k3), or the rectified image with its camera_info"
            )
        k1, k2, p1, p2, k3 = (float(c) for c in np.resize(np.append(coefficients[:5], np.zeros(5)), 5))
        fx, fy, cx, cy = K[[0, 4, 2, 5]].tolist()
        require_plausible_intrinsics(width, height, fx, fy, cx + 0.5, cy + 0.5, "camera_info")
        return cls(width, height, fx, fy, cx + 0.5, cy + 0.5, (k1, k2, p1, p2, k3))
