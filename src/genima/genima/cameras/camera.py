"""Cameras with their place on the robot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.errors import GenimaError
from genima.robot.model import RobotModel

Parent = Literal["base", "flange"]  # what carries a camera
VIRTUAL = "virtual"  # the view without a camera (genima.cameras.virtual_view)
DISTORTION = ("k1", "k2", "p1", "p2", "k3")
NO_DISTORTION = (0.0,) * 5


@dataclass(frozen=True)
class Camera:
    """A calibrated camera. Optical frame: z forward, x right, y down; pixel centres at n + 0.5.

    Where its lens distorts, its images are rectified (:mod:`genima.cameras.undistortion`) before anything is drawn on
    them or read from them: all drawing takes a camera for the pinhole of its ``K``.
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
        """The camera matrix (3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], float)

    def camera_info(self) -> dict[str, Any]:
        """The fields of a ROS CameraInfo but for its header, binning and region; ``p`` is of the rectified image.

        ROS, OpenCV and the RealSense library count pixels from the middle of the first one: half a pixel is taken off.
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
        """Pose (..., 4, 4) of the optical frame for joint positions (..., n) in rad."""
        if self.parent == "base":
            return np.broadcast_to(self.T_parent_camera, (*np.shape(positions)[:-1], 4, 4))
        return robot.link_poses(positions)[..., -2, :, :] @ self.T_parent_camera

    def agrees(self, other: Camera) -> bool:
        """Whether the other is the same but for rounding: a tenth of a millimetre, and a thousandth of a pixel."""
        lenses = [np.array([*camera.K.ravel(), *camera.distortion]) for camera in (self, other)]
        same = (self.parent, self.width, self.height) == (other.parent, other.width, other.height)
        near = np.abs(self.T_parent_camera - other.T_parent_camera).max() < 1e-4
        return same and bool(near) and bool(np.abs(lenses[0] - lenses[1]).max() < 1e-3)

    def resized(self, width: int, height: int) -> Camera:
        """The same camera where its driver makes images of another size, of the same view.

        Raises:
            GenimaError: for another ratio of width to height: that is another view.
        """
        if abs(width * self.height - height * self.width) > max(width, height):
            raise GenimaError(
                f"the images of {self.view} are {width}x{height}, its calibration is of {self.width}x{self.height}: "
                "name the folder of these cameras' own calibrations with --cameras"
            )
        return self.scaled(width, height)

    def scaled(self, width: int, height: int) -> Camera:
        """The same camera with its image resized to width x height."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self, width=width, height=height, fx=self.fx * sx, cx=self.cx * sx, fy=self.fy * sy, cy=self.cy * sy
        )

    def fitted(self, size: int) -> Camera:
        """Return the pinhole camera of the middle square at size x size, as :func:`genima.cameras.tiling.fit` cuts it
        from rectified images."""
        side = min(self.width, self.height)
        left, top = (self.width - side) // 2, (self.height - side) // 2
        square = replace(self, width=side, height=side, cx=self.cx - left, cy=self.cy - top, distortion=NO_DISTORTION)
        return square.scaled(size, size)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, with the fields of a calibration file; a lens that does not distort is not spoken of."""
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
        """The inverse of :meth:`to_dict`; KeyError, TypeError or ValueError where a field is missing or malformed."""
        T = np.eye(4)
        T[:3, :3] = Rotation.from_quat(data["rotation_xyzw"]).as_matrix()
        T[:3, 3] = data["translation"]
        if data["parent"] not in ("base", "flange"):
            raise ValueError(f"parent is {data['parent']!r}, not base or flange")
        fx, fy, cx, cy = (float(data[key]) for key in ("fx", "fy", "cx", "cy"))
        distortion = data.get("distortion", dict.fromkeys(DISTORTION, 0.0))
        if not isinstance(distortion, Mapping) or set(distortion) != set(DISTORTION):
            raise ValueError(f"distortion has the fields {', '.join(DISTORTION)}, not {distortion!r}")
        k1, k2, p1, p2, k3 = (float(distortion[name]) for name in DISTORTION)
        size = int(data["width"]), int(data["height"])
        return cls(view, data["parent"], T, *size, fx, fy, cx, cy, (k1, k2, p1, p2, k3))
