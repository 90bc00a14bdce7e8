"""Calibration files of easy_handeye2 (https://github.com/marcoesposito1988/easy_handeye2).

Its files are ``~/.ros2/easy_handeye2/calibrations/<name>.calib``. The pose is that of ``tracking_base_frame``, usually
a driver's ``<camera>_link``, since its optical frame has a parent.

Files of its predecessor for ROS 1, easy_handeye (``~/.ros/easy_handeye/<name>.yaml``), are read, too: they have
``eye_on_hand`` and a flat ``transformation`` of the same frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ConfigDict
from scipy.spatial.transform import Rotation

from genima.cameras.camera import Parent
from genima.cameras.plausibility import require_plausible_pose
from genima.errors import GenimaError
from genima.io.files import FileSchema, Finite, Text, atomic_write, read_yaml, validate
from genima.robot.rigid_transforms import inverse, pose

Array = NDArray[np.float64]


class _ForeignSchema(FileSchema):
    """Schema of a file of another program: unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")


class _VectorSchema(_ForeignSchema):
    x: Finite
    y: Finite
    z: Finite


class _QuaternionSchema(_VectorSchema):
    w: Finite


class _TransformSchema(_ForeignSchema):
    translation: _VectorSchema
    rotation: _QuaternionSchema


class Parameters(_ForeignSchema):
    """Section ``parameters`` of a file."""

    name: Text = "calibration"
    calibration_type: Literal["eye_in_hand", "eye_on_base"]
    robot_base_frame: Text
    robot_effector_frame: Text
    tracking_base_frame: Text
    tracking_marker_frame: Text
    freehand_robot_movement: bool = True
    move_group_namespace: str = "/"
    move_group: str = "manipulator"


class _CalibSchema(_ForeignSchema):
    parameters: Parameters
    transform: _TransformSchema


class _Ros1ParametersSchema(_ForeignSchema):
    eye_on_hand: bool
    robot_base_frame: str = ""  # optional for a camera on the hand, the effector's frame for one on the base
    robot_effector_frame: str = ""
    tracking_base_frame: Text
    tracking_marker_frame: str = ""


class _Ros1TransformSchema(_ForeignSchema):
    x: Finite
    y: Finite
    z: Finite
    qx: Finite
    qy: Finite
    qz: Finite
    qw: Finite


_PARENTS: dict[str, Parent] = {"eye_in_hand": "flange", "eye_on_base": "base"}


@dataclass(frozen=True)
class Calib:
    """Content of a file: pose of the tracking base on the effector (in hand) or the base (on base)."""

    parameters: Parameters
    T_robot_tracking: Array  # (4, 4)

    @property
    def parent(self) -> Parent:
        """Return the camera's parent."""
        return _PARENTS[self.parameters.calibration_type]

    def T_parent_camera(self, T_tracking_optical: Array, T_flange_effector: Array) -> Array:
        """Return the pose (4, 4) of the optical frame, which is fixed in the tracking base frame."""
        T_parent_robot = T_flange_effector if self.parent == "flange" else np.eye(4)
        return T_parent_robot @ self.T_robot_tracking @ T_tracking_optical

    @classmethod
    def of(
        cls, parameters: Parameters, T_parent_camera: Array, T_tracking_optical: Array, T_flange_effector: Array
    ) -> Calib:
        """Return the inverse of :meth:`T_parent_camera`, for the parent of the calibration type."""
        in_hand = _PARENTS[parameters.calibration_type] == "flange"
        T_robot_parent = inverse(T_flange_effector) if in_hand else np.eye(4)
        return cls(parameters, T_robot_parent @ T_parent_camera @ inverse(T_tracking_optical))

    @classmethod
    def load(cls, path: Path) -> Calib:
        """Read a ``.calib`` file, or one of easy_handeye for ROS 1.

        Raises:
            GenimaError: for a missing, malformed or implausible file.
        """
        what = f"easy_handeye2 calibration {path}"
        data = read_yaml(path, "easy_handeye2 calibration")
        if not isinstance(data, dict) or not {"transform", "transformation"} & data.keys():
            raise GenimaError(
                f"{what}: no transform (easy_handeye2) or transformation (easy_handeye for ROS 1); give a file that "
                "one of these has saved"
            )
        if "transform" in data:
            content = validate(_CalibSchema, data, what)
            parameters = content.parameters
            t, r = content.transform.translation, content.transform.rotation
            translation, quaternion = [t.x, t.y, t.z], [r.x, r.y, r.z, r.w]
        else:  # the first versions had the parameters beside the transformation
            ros1 = validate(_Ros1ParametersSchema, data.get("parameters", data), f"{what}: parameters")
            at = validate(_Ros1TransformSchema, data["transformation"], f"{what}: transformation")
            parameters = Parameters.model_construct(  # checked above; frames may be missing
                name=path.stem,
                calibration_type="eye_in_hand" if ros1.eye_on_hand else "eye_on_base",
                robot_base_frame=ros1.robot_base_frame,
                robot_effector_frame=ros1.robot_effector_frame,
                tracking_base_frame=ros1.tracking_base_frame,
                tracking_marker_frame=ros1.tracking_marker_frame,
            )
            translation, quaternion = [at.x, at.y, at.z], [at.qx, at.qy, at.qz, at.qw]
        if not abs(np.linalg.norm(quaternion) - 1) < 1e-3:
            raise GenimaError(f"{what}: rotation is not a quaternion of length 1 ({quaternion})")
        calib = cls(parameters, pose(Rotation.from_quat(quaternion).as_matrix(), np.array(translation, float)))
        require_plausible_pose(calib.T_robot_tracking, calib.parent, what)
        return calib

    def save(self, path: Path) -> None:
        """Write a ``.calib`` file.

        Raises:
            GenimaError: when it cannot be written.
        """
        quaternion = Rotation.from_matrix(self.T_robot_tracking[:3, :3]).as_quat().tolist()
        data: dict[str, Any] = {
            "parameters": self.parameters.model_dump(),
            "transform": {
                "translation": dict(zip("xyz", self.T_robot_tracking[:3, 3].tolist(), strict=True)),
                "rotation": dict(zip("xyzw", quaternion, strict=True)),
            },
        }
        atomic_write(path, yaml.safe_dump(data, sort_keys=False).encode())
