"""A camera's calibration with how it came about, and its file ``calibration/<set>/<view>.yaml``.

The file has the fields of :class:`genima.cameras.camera.Camera`, and may have those of :class:`CameraCalibration`;
nothing else. All who use a calibration read it here.
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
        raise ValueError("not a quaternion x, y, z, w of length 1; are these Euler angles, or degrees?")
    return value


def _iso_date(text: str) -> str:
    return datetime.fromisoformat(text).isoformat()


def _covariance(rows: list[list[float]]) -> list[list[float]]:
    covariance = np.array(rows)
    if np.abs(covariance - covariance.T).max() > 1e-6 * covariance.max() or np.linalg.eigvalsh(covariance)[0] < 0:
        raise ValueError("not symmetric and positive")
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
    """Names in ROS."""

    parent: str  # the robot's base or flange, e.g. panda_link0, panda_link8
    camera: str  # the optical frame

    @classmethod
    def of(cls, robot: RobotModel, parent: Parent, camera: str, base_frame: str = "", flange_frame: str = "") -> Frames:
        """The frames of a camera on a robot.

        Args:
            robot: whose frames are called as franka_description does: ``fr3_link0`` and ``fr3_link8``.
            parent: what carries the camera.
            camera: its optical frame.
            base_frame: where the robot's base is called otherwise: ``left_fr3_link0``.
            flange_frame: the same for its flange.

        Raises:
            GenimaError: for a name that tf refuses.
        """
        given, link = (base_frame, "link0") if parent == "base" else (flange_frame, "link8")
        return cls(require_frame(given, f"{parent} frame") if given else f"{robot.arm}_{link}", camera)


@dataclass(frozen=True)
class Residuals:
    """Of each sample against what the other samples say, root mean square."""

    pixels: float  # of a point
    millimetres: float  # from where the middle of the board should be to where it is seen
    degrees: float  # the same for its rotation


@dataclass(frozen=True)
class CameraCalibration:
    """Where a camera is and what its lens does; None where nobody has said."""

    camera: Camera
    frames: Frames | None = None
    date: str | None = None  # ISO 8601
    method: str | None = None
    residuals: Residuals | None = None
    covariance: Array | None = None  # (6, 6) of x, y, z in m and turns about them in rad, in the parent's axes
    board: CalibrationBoard | None = None
    samples: tuple[str, ...] = ()  # that were used
    outliers: Mapping[str, str] = field(default_factory=dict)  # that were not, and why

    @property
    def intrinsics(self) -> CameraIntrinsics:
        """Of the camera."""
        return CameraIntrinsics.of(self.camera)

    @property
    def sigma(self) -> tuple[float, float] | None:
        """Standard deviations of the camera's place in mm and of its direction in deg, in their worst directions."""
        if self.covariance is None:
            return None
        t, r = (np.linalg.eigvalsh(self.covariance[part, part])[-1] for part in (slice(0, 3), slice(3, 6)))
        return 1e3 * float(np.sqrt(t)), float(np.degrees(np.sqrt(r)))

    def to_dict(self) -> dict[str, Any]:
        """As plain YAML types, without what nobody has said."""
        said = {
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
            **{key: value for key, value in said.items() if value is not None},
        }

    @classmethod
    def from_dict(cls, view: str, data: Any, what: str = "camera calibration") -> CameraCalibration:
        """The inverse of :meth:`to_dict`; ``what`` names the calibration in errors.

        Raises:
            GenimaError: for a missing, unknown, malformed or implausible field, and a view that ROS cannot name.
        """
        require_ros_name(view, f"{what}: view")
        said = validate(CalibrationSchema, data, what)
        camera = Camera.from_dict(view, said.model_dump(exclude_none=True))
        require_plausible(camera, what)
        return cls(
            camera,
            Frames(**said.frames.model_dump()) if said.frames else None,
            said.date,
            said.method,
            Residuals(**said.residuals.model_dump()) if said.residuals else None,
            None if said.covariance is None else np.array(said.covariance, float),
            CalibrationBoard.from_dict(said.board.model_dump(), f"{what}: board") if said.board else None,
            tuple(said.samples or ()),
            said.outliers or {},
        )

    @classmethod
    def load(cls, path: Path, view: str = "") -> CameraCalibration:
        """Read ``<view>.yaml``, or a file of another name of the ``view``.

        Raises:
            GenimaError: for a missing or malformed file.
        """
        data = read_yaml(path, "camera calibration")
        return cls.from_dict(view or path.stem, data, f"camera calibration {path}")

    def save(self, folder: Path) -> Path:
        """Write ``<view>.yaml`` in a folder; returns its path. One that is there is kept, with a date to its name.

        Raises:
            GenimaError: for what could not be loaded again, and when there is no space or no permission.
        """
        camera = self.camera
        what = f"camera calibration {folder / camera.view}.yaml"
        require_ros_name(camera.view, f"{what}: view")
        require_plausible(camera, what)
        head = f"# T_{camera.parent}_camera of the {camera.view} view's optical frame (z forward, x right, y down)"
        if self.sigma:
            head += f"; sure to {self.sigma[0]:.2f} mm and {self.sigma[1]:.3f} deg (1 sigma)"
        path = folder / f"{camera.view}.yaml"
        body = yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=120)
        backup(path)
        atomic_write(path, f"{head}\n{body}".encode())
        return path


# -------------------------------------------------------------------------------------------------------------- folders


def calibration_folder(name_or_folder: str | Path) -> Path:
    """A folder of calibrations, ``<view>.yaml`` each: one of ``calibration/`` by its name, or any.

    Raises:
        GenimaError: where there is none.
    """
    folder = Path(name_or_folder)
    return folder if folder.is_dir() else paths.shared("calibration", str(name_or_folder))


def calibration_files(folder: Path) -> list[Path]:
    """The calibrations in a folder, by view; hidden files, such as those of macOS, are none."""
    return sorted(path for path in folder.glob("*.yaml") if not path.name.startswith("."))


def load_cameras(name_or_folder: str | Path) -> Mapping[str, Camera]:
    """All cameras of a folder of calibrations (:func:`calibration_folder`) by view.

    Raises:
        GenimaError: where there is none, and for a malformed file.
    """
    folder = calibration_folder(name_or_folder)
    cameras = {path.stem: CameraCalibration.load(path).camera for path in calibration_files(folder)}
    if not cameras:
        raise GenimaError(f"no camera calibration (*.yaml) in {folder}")
    return cameras
