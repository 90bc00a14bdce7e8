"""Pinhole cameras with their place on the robot, one YAML file each (``calibration/<set>/<view>.yaml``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.errors import GenimaError
from genima.robot.model import RobotModel

VIRTUAL = "virtual"  # the view without a camera (genima.views.virtual)


@dataclass(frozen=True)
class Camera:
    """A calibrated camera without distortion. Optical frame: z forward, x right, y down; pixel centres at n + 0.5."""

    view: str
    parent: Literal["base", "flange"]
    T_parent_camera: NDArray[np.float64]  # (4, 4)
    width: int  # px
    height: int  # px
    fx: float  # px
    fy: float  # px
    cx: float  # px
    cy: float  # px

    @property
    def K(self) -> NDArray[np.float64]:
        """The camera matrix (3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], float)

    @property
    def P(self) -> NDArray[np.float64]:
        """The projection matrix (3, 4) of ROS's CameraInfo: K, without a stereo baseline."""
        return np.column_stack([self.K, np.zeros(3)])

    def T_base_camera(self, robot: RobotModel, positions: NDArray[np.floating]) -> NDArray[np.float64]:
        """Pose (..., 4, 4) of the optical frame for joint positions (..., n) in rad."""
        if self.parent == "base":
            return np.broadcast_to(self.T_parent_camera, (*np.shape(positions)[:-1], 4, 4))
        return robot.link_poses(positions)[..., -2, :, :] @ self.T_parent_camera

    def scaled(self, width: int, height: int) -> Camera:
        """The same camera with its image resized to width x height."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self, width=width, height=height, fx=self.fx * sx, cx=self.cx * sx, fy=self.fy * sy, cy=self.cy * sy
        )

    def fitted(self, size: int) -> Camera:
        """The camera of the images that :func:`genima.views.fit` makes: their middle square at size x size."""
        side = min(self.width, self.height)
        left, top = (self.width - side) // 2, (self.height - side) // 2
        square = replace(self, width=side, height=side, cx=self.cx - left, cy=self.cy - top)
        return square.scaled(size, size)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, with the fields of a calibration file."""
        return {
            "parent": self.parent,
            "translation": self.T_parent_camera[:3, 3].tolist(),
            "rotation_xyzw": Rotation.from_matrix(self.T_parent_camera[:3, :3]).as_quat().tolist(),
            "width": self.width,
            "height": self.height,
            **{key: getattr(self, key) for key in ("fx", "fy", "cx", "cy")},
        }

    @classmethod
    def from_dict(cls, view: str, data: Mapping[str, Any]) -> Camera:
        """The inverse of :meth:`to_dict`; KeyError, TypeError or ValueError where a field is missing or malformed."""
        T = np.eye(4)
        T[:3, :3] = Rotation.from_quat(data["rotation_xyzw"]).as_matrix()
        T[:3, 3] = data["translation"]
        if data["parent"] not in ("base", "flange"):
            raise ValueError(f"parent is {data['parent']!r}, not base or flange")
        numbers = {key: float(data[key]) for key in ("fx", "fy", "cx", "cy")}
        return cls(view, data["parent"], T, int(data["width"]), int(data["height"]), **numbers)


def load_cameras(folder: Path) -> Mapping[str, Camera]:
    """All cameras of a calibration folder by view.

    Raises:
        GenimaError: for an empty folder or a file with a missing or malformed field.
    """
    cameras = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            cameras[path.stem] = Camera.from_dict(path.stem, yaml.safe_load(path.read_text()))
        except yaml.YAMLError as error:
            raise GenimaError(f"camera calibration {path} is not YAML: {' '.join(str(error).split())}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise GenimaError(f"camera calibration {path}: bad or missing field: {error!r}") from None
    if not cameras:
        raise GenimaError(f"no camera calibration (*.yaml) in {folder}")
    return cameras
