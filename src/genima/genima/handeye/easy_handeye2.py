"""Calibrations of easy_handeye2 (https://github.com/marcoesposito1988/easy_handeye2), read and written.

Its files lie in ``~/.ros2/easy_handeye2/calibrations/<name>.calib``. They know no optical frame: the pose is that of
``tracking_base_frame``, for which a driver's ``<camera>_link`` is usual, since its optical frame has a parent already.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.errors import GenimaError
from genima.files import atomic_write, read_yaml
from genima.handeye.poses import inverse, pose
from genima.handeye.samples import Parent

Array = NDArray[np.float64]
_PARENTS: dict[str, Parent] = {"eye_in_hand": "flange", "eye_on_base": "base"}


@dataclass(frozen=True)
class Parameters:
    """The file's ``parameters``, by their names there."""

    name: str
    calibration_type: Literal["eye_in_hand", "eye_on_base"]
    robot_base_frame: str
    robot_effector_frame: str
    tracking_base_frame: str
    tracking_marker_frame: str
    freehand_robot_movement: bool = True
    move_group_namespace: str = "/"
    move_group: str = "manipulator"


@dataclass(frozen=True)
class Calib:
    """One file: where the tracking base frame is on the effector (in hand) or the base (on base)."""

    parameters: Parameters
    T_robot_tracking: Array  # (4, 4)

    @property
    def parent(self) -> Parent:
        """What carries the camera."""
        return _PARENTS[self.parameters.calibration_type]

    def T_parent_camera(self, T_tracking_optical: Array, T_flange_effector: Array) -> Array:
        """Pose (4, 4) of the optical frame, fixed in the tracking base frame as the effector is on the flange."""
        T_parent_robot = T_flange_effector if self.parent == "flange" else np.eye(4)
        return T_parent_robot @ self.T_robot_tracking @ T_tracking_optical

    @classmethod
    def of(
        cls, parameters: Parameters, T_parent_camera: Array, T_tracking_optical: Array, T_flange_effector: Array
    ) -> Calib:
        """The inverse of :meth:`T_parent_camera`; which parent it is, the calibration type says."""
        in_hand = _PARENTS[parameters.calibration_type] == "flange"
        T_robot_parent = inverse(T_flange_effector) if in_hand else np.eye(4)
        return cls(parameters, T_robot_parent @ T_parent_camera @ inverse(T_tracking_optical))

    @classmethod
    def load(cls, path: Path) -> Calib:
        """Read a ``.calib`` file.

        Raises:
            GenimaError: for a missing or malformed one.
        """
        data = read_yaml(path, "easy_handeye2 calibration")
        try:
            parameters = Parameters(**data["parameters"])
            if parameters.calibration_type not in _PARENTS:
                raise ValueError(f"calibration_type is {parameters.calibration_type!r}, not {' or '.join(_PARENTS)}")
            translation = np.array([data["transform"]["translation"][axis] for axis in "xyz"], float)
            quaternion = np.array([data["transform"]["rotation"][axis] for axis in "xyzw"], float)
            if not np.all(np.isfinite(translation)) or abs(np.linalg.norm(quaternion) - 1) > 1e-3:
                raise ValueError("its transform is not finite or its rotation not of length 1")
            return cls(parameters, pose(Rotation.from_quat(quaternion).as_matrix(), translation))
        except (KeyError, TypeError, ValueError) as error:
            raise GenimaError(
                f"easy_handeye2 calibration {path}: bad or missing field: {error!r}; is it of version 0.4 or later?"
            ) from None

    def save(self, path: Path) -> None:
        """Write a ``.calib`` file.

        Raises:
            GenimaError: when there is no room or no right to.
        """
        quaternion = Rotation.from_matrix(self.T_robot_tracking[:3, :3]).as_quat().tolist()
        data: dict[str, Any] = {
            "parameters": asdict(self.parameters),
            "transform": {
                "translation": dict(zip("xyz", self.T_robot_tracking[:3, 3].tolist(), strict=True)),
                "rotation": dict(zip("xyzw", quaternion, strict=True)),
            },
        }
        atomic_write(path, yaml.safe_dump(data, sort_keys=False).encode())
