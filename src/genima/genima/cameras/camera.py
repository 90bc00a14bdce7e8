"""Calibrated cameras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose

Parent = Literal["base", "flange"]  # mount of a camera
VIRTUAL = "virtual"  # the view without a camera (genima.cameras.virtual_view)
DISTORTION = ("k1", "k2", "p1", "p2", "k3")
NO_DISTORTION = (0.0,) * 5


@dataclass(frozen=True)
class Camera:
    """Calibrated camera. Optical frame: z forward, x right, y down; pixel centres at n + 0.5.

    Images with distortion are undistorted (:mod:`genima.cameras.undistortion`) before targets are rendered on them or
    decoded from them: both use the pinhole model ``K``.
    """

    view: str
    parent: Parent
    T_parent_camera: NDArray[np.float64]  # (4, 4)
    width: int  # px
    height: int  # px
    fx: float  # px
    fy: float  # px
    cx: float  # px
    cy: float  # px
    distortion: tuple[float, float, float, float, float] = NO_DISTORTION  # Brown-Conrady, ROS's plumb_bob

    @property
    def K(self) -> NDArray[np.float64]:
        """Camera matrix (3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], float)

    def camera_info(self) -> dict[str, Any]:
        """Return the fields of a ROS CameraInfo except header, binning and region; ``p`` is of the rectified image.

        ROS, OpenCV and librealsense put pixel centres at n: half a pixel is subtracted.
        """
        K = self.K - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
        return {
            "width": self.width,
            "height": self.height,
            "distortion_model": "plumb_bob",
            "d": np.array(self.distortion),
            "k": K.ravel(),
            "r": np.eye(3).ravel(),
            "p": np.column_stack([K, np.zeros(3)]).ravel(),
        }

    def T_base_camera(self, robot: RobotModel, positions: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the pose (..., 4, 4) of the optical frame for joint positions (..., n) rad."""
        if self.parent == "base":
            return np.broadcast_to(self.T_parent_camera, (*np.shape(positions)[:-1], 4, 4))
        return robot.link_poses(positions)[..., -2, :, :] @ self.T_parent_camera

    def is_close(self, other: Camera) -> bool:
        """Return whether two cameras agree to 0.1 mm and 0.001 px."""
        lenses = [np.array([*camera.K.ravel(), *camera.distortion]) for camera in (self, other)]
        same = (self.parent, self.width, self.height) == (other.parent, other.width, other.height)
        near = np.abs(self.T_parent_camera - other.T_parent_camera).max() < 1e-4
        return same and bool(near) and bool(np.abs(lenses[0] - lenses[1]).max() < 1e-3)

    def resize(self, width: int, height: int) -> Camera:
        """Return the camera for images of another size with the same field of view.

        Raises:
            GenimaError: for another aspect ratio.
        """
        if abs(width * self.height - height * self.width) > max(width, height):
            raise GenimaError(
                f"camera {self.view}: images do not fit its calibration ({width}x{height}, "
                f"{self.width}x{self.height}); name the folder of its own calibration by --cameras"
            )
        return self.scale(width, height)

    def scale(self, width: int, height: int) -> Camera:
        """Return the camera for its images resized to width x height."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self, width=width, height=height, fx=self.fx * sx, cx=self.cx * sx, fy=self.fy * sy, cy=self.cy * sy
        )

    def crop_square(self, size: int) -> Camera:
        """Return the pinhole camera of :func:`genima.cameras.tiling.crop_square` on undistorted images."""
        side = min(self.width, self.height)
        left, top = (self.width - side) // 2, (self.height - side) // 2
        square = replace(self, width=side, height=side, cx=self.cx - left, cy=self.cy - top, distortion=NO_DISTORTION)
        return square.scale(size, size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, the fields of a calibration file; zero distortion is omitted."""
        data = {
            "parent": self.parent,
            "translation": self.T_parent_camera[:3, 3].tolist(),
            "rotation_xyzw": Rotation.from_matrix(self.T_parent_camera[:3, :3]).as_quat().tolist(),
            "width": self.width,
            "height": self.height,
            **{key: getattr(self, key) for key in ("fx", "fy", "cx", "cy")},
        }
        if any(self.distortion):
            data["distortion"] = dict(zip(DISTORTION, self.distortion, strict=True))
        return data

    @classmethod
    def from_dict(cls, view: str, data: Mapping[str, Any]) -> Camera:
        """Return the inverse of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: for a missing or malformed field.
        """
        T = pose(Rotation.from_quat(data["rotation_xyzw"]).as_matrix(), np.array(data["translation"], float))
        if data["parent"] not in ("base", "flange"):
            raise ValueError(f"parent: unknown ({data['parent']!r}); use base or flange")
        fx, fy, cx, cy = (float(data[key]) for key in ("fx", "fy", "cx", "cy"))
        distortion = data.get("distortion", dict.fromkeys(DISTORTION, 0.0))
        if not isinstance(distortion, Mapping) or set(distortion) != set(DISTORTION):
            raise ValueError(f"distortion: wrong fields ({distortion!r}); use {', '.join(DISTORTION)}")
        k1, k2, p1, p2, k3 = (float(distortion[name]) for name in DISTORTION)
        size = int(data["width"]), int(data["height"])
        return cls(view, data["parent"], T, *size, fx, fy, cx, cy, (k1, k2, p1, p2, k3))
