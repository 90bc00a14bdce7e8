"""A camera's calibration with how it came about, and its file ``calibration/<set>/<view>.yaml``.

The file has the fields of :class:`genima.views.Camera`, and may have those of :class:`Calibration`; nothing else. All
who use a calibration read it here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.files import atomic_write, backup, read_yaml
from genima.handeye.board import Board
from genima.handeye.intrinsics import Intrinsics
from genima.handeye.samples import Parent
from genima.robot.model import RobotModel
from genima.views.camera import Camera

Array = NDArray[np.float64]
_T = TypeVar("_T")
_CAMERA = ("parent", "translation", "rotation_xyzw", "width", "height", "fx", "fy", "cx", "cy")


@dataclass(frozen=True)
class Frames:
    """Names in ROS."""

    parent: str  # the robot's base or flange, e.g. panda_link0, panda_link8
    camera: str  # the optical frame

    @classmethod
    def of(cls, robot: RobotModel, parent: Parent, camera: str) -> Frames:
        """As franka_description calls those of a robot."""
        return cls(f"{robot.arm}_{'link0' if parent == 'base' else 'link8'}", camera)


@dataclass(frozen=True)
class Residuals:
    """Of each sample against what the other samples say, root mean square."""

    pixels: float  # of a point
    millimetres: float  # from where the middle of the board should be to where it is seen
    degrees: float  # the same for its rotation


@dataclass(frozen=True)
class Calibration:
    """Where a camera is and what its lens does; None where nobody has said."""

    camera: Camera
    frames: Frames | None = None
    date: str | None = None  # ISO 8601
    method: str | None = None
    residuals: Residuals | None = None
    covariance: Array | None = None  # (6, 6) of x, y, z in m and turns about them in rad, in the parent's axes
    board: Board | None = None
    samples: tuple[str, ...] = ()  # that were used
    outliers: Mapping[str, str] = field(default_factory=dict)  # that were not, and why

    @property
    def intrinsics(self) -> Intrinsics:
        """Of the camera."""
        return Intrinsics.of(self.camera)

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
    def from_dict(cls, view: str, data: Any) -> Calibration:
        """The inverse of :meth:`to_dict`.

        Raises:
            GenimaError: for a missing, unknown or malformed field.
        """
        if not isinstance(data, Mapping):
            raise GenimaError("it holds no fields")
        known = (*_CAMERA, "distortion", *(name for name in cls.__dataclass_fields__ if name != "camera"))
        if missing := [name for name in _CAMERA if name not in data]:
            raise GenimaError(f"it lacks {', '.join(missing)}")
        if unknown := [str(name) for name in data if name not in known]:
            raise GenimaError(f"it has unknown fields: {', '.join(unknown)}; known are {', '.join(known)}")

        def read(name: str, convert: Callable[[Any], _T], default: _T) -> _T:
            if name not in data:
                return default
            try:
                return convert(data[name])
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise GenimaError(f"its {name} is malformed: {error}") from None

        try:
            camera = Camera.from_dict(view, data)
            _require_sensible(camera, data)
        except (KeyError, TypeError, ValueError) as error:
            raise GenimaError(f"its camera is malformed: {error}") from None
        return cls(
            camera,
            read("frames", _frames, None),
            read("date", _date, None),
            read("method", str, None),
            read("residuals", _residuals, None),
            read("covariance", _covariance, None),
            read("board", Board.from_dict, None),
            read("samples", lambda names: tuple(str(name) for name in names), ()),
            read("outliers", lambda why: {str(name): str(reason) for name, reason in why.items()}, {}),
        )

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read ``<view>.yaml``.

        Raises:
            GenimaError: for a missing or malformed file.
        """
        data = read_yaml(path, "camera calibration")
        try:
            return cls.from_dict(path.stem, data)
        except GenimaError as error:
            raise GenimaError(f"camera calibration {path}: {error}") from None

    def save(self, folder: Path) -> Path:
        """Write ``<view>.yaml`` in a folder; returns its path. One that is there is kept, with a date to its name.

        Raises:
            GenimaError: when there is no room or no right to.
        """
        camera = self.camera
        head = f"# T_{camera.parent}_camera of the {camera.view} view's optical frame (z forward, x right, y down)"
        if self.sigma:
            head += f"; sure to {self.sigma[0]:.2f} mm and {self.sigma[1]:.3f} deg (1 sigma)"
        path = folder / f"{camera.view}.yaml"
        body = yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=120)
        backup(path)
        atomic_write(path, f"{head}\n{body}".encode())
        return path


def _require_sensible(camera: Camera, data: Mapping[str, Any]) -> None:
    """Raise a ValueError for numbers that no camera has."""
    lens = (camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion)
    numbers = np.array([*lens, *camera.T_parent_camera.ravel()])
    if not np.all(np.isfinite(numbers)):
        raise ValueError("not all numbers are finite")
    if min(camera.fx, camera.fy, camera.width, camera.height) <= 0:
        raise ValueError("fx, fy, width and height must be positive")
    if abs(np.linalg.norm(data["rotation_xyzw"]) - 1) > 1e-3:
        raise ValueError(f"rotation_xyzw {list(data['rotation_xyzw'])} has not length 1")


def _frames(data: Mapping[str, Any]) -> Frames:
    return Frames(**{str(name): str(frame) for name, frame in data.items()})


def _residuals(data: Mapping[str, Any]) -> Residuals:
    return Residuals(**{str(name): _finite(value) for name, value in data.items()})


def _date(data: Any) -> str:
    return datetime.fromisoformat(str(data)).isoformat()


def _covariance(data: Any) -> Array:
    covariance = np.array(data, float)
    if covariance.shape != (6, 6) or not np.all(np.isfinite(covariance)):
        raise ValueError("it is not 6 x 6 finite numbers")
    if np.abs(covariance - covariance.T).max() > 1e-6 * covariance.max() or np.linalg.eigvalsh(covariance)[0] < 0:
        raise ValueError("it is not symmetric and positive")
    return covariance


def _finite(value: Any) -> float:
    if not np.isfinite(float(value)):
        raise ValueError(f"{value} is not finite")
    return float(value)
