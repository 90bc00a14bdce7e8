"""Calibration of a camera and its file ``calibration/<set>/<view>.yaml``.

The file has the fields of :class:`genima.cameras.camera.Camera`, and optionally those of
:class:`CameraCalibration`. Every user of a calibration loads it here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from genima.cameras.calibration_board import BoardSchema, CalibrationBoard
from genima.cameras.camera import Camera, Parent
from genima.cameras.frame_tree import FrameName, require_frame
from genima.cameras.intrinsics import CameraIntrinsics
from genima.cameras.plausibility import require_plausible
from genima.errors import GenimaError
from genima.io import paths
from genima.io.files import (
    FileSchema,
    Finite,
    NonNegative,
    Pixels,
    Positive,
    Text,
    atomic_write,
    backup,
    read_yaml,
    validate,
)
from genima.robot.model import RobotModel
from genima.system.ros_names import require_ros_name

Array = NDArray[np.float64]

# -------------------------------------------------------------------------------------------------------------- schema


def _quaternion(value: list[float]) -> list[float]:
    if len(value) != 4 or not abs(math.hypot(*value) - 1) < 1e-3:
        raise ValueError("not a unit quaternion x, y, z, w; are these Euler angles, or degrees?")
    return value


def _iso_date(text: str) -> str:
    return datetime.fromisoformat(text).isoformat()


def _covariance(rows: list[list[float]]) -> list[list[float]]:
    covariance = np.array(rows)
    if np.abs(covariance - covariance.T).max() > 1e-6 * covariance.max() or np.linalg.eigvalsh(covariance)[0] < 0:
        raise ValueError("not symmetric and positive semidefinite")
    return rows


Vector = Annotated[list[Finite], Field(min_length=3, max_length=3)]
Quaternion = Annotated[list[Finite], AfterValidator(_quaternion)]
_Row = Annotated[list[Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]], Field(min_length=6, max_length=6)]
_Covariance = Annotated[list[_Row], Field(min_length=6, max_length=6), AfterValidator(_covariance)]


class _DistortionSchema(FileSchema):
    k1: Finite
    k2: Finite
    p1: Finite
    p2: Finite
    k3: Finite


class _FramesSchema(FileSchema):
    parent: FrameName
    camera: FrameName


class _ResidualsSchema(FileSchema):
    pixels: NonNegative
    millimetres: NonNegative
    degrees: NonNegative


class CalibrationSchema(FileSchema):
    """Fields of a calibration's file; see :class:`genima.cameras.camera.Camera` and :class:`CameraCalibration`."""

    parent: Parent
    translation: Vector
    rotation_xyzw: Quaternion
    width: Pixels
    height: Pixels
    fx: Positive
    fy: Positive
    cx: Finite
    cy: Finite
    distortion: _DistortionSchema | None = None
    frames: _FramesSchema | None = None
    date: Annotated[Text, AfterValidator(_iso_date)] | None = None
    method: Text | None = None
    residuals: _ResidualsSchema | None = None
    covariance: _Covariance | None = None
    board: BoardSchema | None = None
    samples: list[Text] | None = None
    outliers: dict[Text, str] | None = None


# --------------------------------------------------------------------------------------------------------- calibration


@dataclass(frozen=True)
class Frames:
    """Names of the frames in ROS."""

    parent: str  # the robot's base or flange, e.g. panda_link0, panda_link8
    camera: str  # the optical frame

    @classmethod
    def of(cls, robot: RobotModel, parent: Parent, camera: str, base_frame: str = "", flange_frame: str = "") -> Frames:
        """Return the frames of a camera on a robot.

        Args:
            robot: its frames have franka_description's names: ``fr3_link0`` and ``fr3_link8``.
            parent: link on which the camera is mounted.
            camera: optical frame.
            base_frame: other name of the robot's base: ``left_fr3_link0``.
            flange_frame: other name of its flange.

        Raises:
            GenimaError: for a name that tf refuses.
        """
        name, link = (base_frame, "link0") if parent == "base" else (flange_frame, "link8")
        return cls(require_frame(name, f"{parent} frame") if name else f"{robot.arm}_{link}", camera)


@dataclass(frozen=True)
class Residuals:
    """Root mean square residuals of the samples, each against the fit of the others."""

    pixels: float  # reprojection of a point
    millimetres: float  # position of the board's centre
    degrees: float  # rotation of the board


@dataclass(frozen=True)
class CameraCalibration:
    """Extrinsics and intrinsics of a camera, with their origin; None where unknown."""

    camera: Camera
    frames: Frames | None = None
    date: str | None = None  # ISO 8601
    method: str | None = None
    residuals: Residuals | None = None
    covariance: Array | None = None  # (6, 6) of x, y, z in m and turns about them in rad, in the parent's axes
    board: CalibrationBoard | None = None
    samples: tuple[str, ...] = ()  # used
    outliers: Mapping[str, str] = field(default_factory=dict)  # rejected samples, with reasons

    @property
    def intrinsics(self) -> CameraIntrinsics:
        """Intrinsics of the camera."""
        return CameraIntrinsics.of(self.camera)

    @property
    def sigma(self) -> tuple[float, float] | None:
        """Largest standard deviations of the camera's position in mm and of its rotation in deg."""
        if self.covariance is None:
            return None
        t, r = (np.linalg.eigvalsh(self.covariance[part, part])[-1] for part in (slice(0, 3), slice(3, 6)))
        return 1e3 * float(np.sqrt(t)), float(np.degrees(np.sqrt(r)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain YAML types, without unknown fields."""
        fields = {
            "frames": self.frames and asdict(self.frames),
            "date": self.date,
            "method": self.method,
            "residuals": self.residuals and asdict(self.residuals),
            "covariance": None if self.covariance is None else self.covariance.tolist(),
            "board": self.board and self.board.to_dict(),
            "samples": list(self.samples) or None,
            "outliers": dict(self.outliers) or None,
        }
        return {
            **self.camera.to_dict(),
            **{key: value for key, value in fields.items() if value is not None},
        }

    @classmethod
    def from_dict(cls, view: str, data: Any, what: str = "camera calibration") -> CameraCalibration:
        """Return the inverse of :meth:`to_dict`; ``what`` is the subject of errors.

        Raises:
            GenimaError: for a missing, unknown, malformed or implausible field, and for a view that is no ROS name.
        """
        require_ros_name(view, f"{what}: view")
        fields = validate(CalibrationSchema, data, what)
        camera = Camera.from_dict(view, fields.model_dump(exclude_none=True))
        require_plausible(camera, what)
        return cls(
            camera,
            Frames(**fields.frames.model_dump()) if fields.frames else None,
            fields.date,
            fields.method,
            Residuals(**fields.residuals.model_dump()) if fields.residuals else None,
            None if fields.covariance is None else np.array(fields.covariance, float),
            CalibrationBoard.from_dict(fields.board.model_dump(), f"{what}: board") if fields.board else None,
            tuple(fields.samples or ()),
            fields.outliers or {},
        )

    @classmethod
    def load(cls, path: Path, view: str = "") -> CameraCalibration:
        """Read ``<view>.yaml``, or a file of another name for ``view``.

        Raises:
            GenimaError: for a missing or malformed file.
        """
        data = read_yaml(path, "camera calibration")
        return cls.from_dict(view or path.stem, data, f"camera calibration {path}")

    def save(self, folder: Path) -> Path:
        """Write ``<view>.yaml`` in a folder and return its path; an existing file is kept as a dated backup.

        Raises:
            GenimaError: for a calibration that could not be loaded again, and when there is no space or no permission.
        """
        camera = self.camera
        what = f"camera calibration {folder / camera.view}.yaml"
        require_ros_name(camera.view, f"{what}: view")
        require_plausible(camera, what)
        head = f"# T_{camera.parent}_camera of the {camera.view} view's optical frame (z forward, x right, y down)"
        if self.sigma:
            head += f"; standard deviation {self.sigma[0]:.2f} mm, {self.sigma[1]:.3f} deg"
        path = folder / f"{camera.view}.yaml"
        body = yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=120)
        backup(path)
        atomic_write(path, f"{head}\n{body}".encode())
        return path


# -------------------------------------------------------------------------------------------------------------- folders


def calibration_folder(name_or_folder: str | Path) -> Path:
    """Return a folder of calibrations ``<view>.yaml``: a path, or the name of one in ``calibration/``.

    Raises:
        GenimaError: where there is none.
    """
    folder = Path(name_or_folder)
    return folder if folder.is_dir() else paths.shared("calibration", str(name_or_folder))


def calibration_files(folder: Path) -> list[Path]:
    """Return the calibration files of a folder, sorted; hidden files are ignored."""
    return sorted(path for path in folder.glob("*.yaml") if not path.name.startswith("."))


def load_cameras(name_or_folder: str | Path) -> Mapping[str, Camera]:
    """Load the cameras of a folder of calibrations (:func:`calibration_folder`), by view.

    Raises:
        GenimaError: where there is none, and for a malformed file.
    """
    folder = calibration_folder(name_or_folder)
    cameras = {path.stem: CameraCalibration.load(path).camera for path in calibration_files(folder)}
    if not cameras:
        raise GenimaError(f"calibration folder {folder}: no camera calibration (*.yaml); run ./genima calibrate")
    return cameras
