"""Calibration samples on disk: ``NAME.png`` and ``NAME.yaml``.

The image is as published by the camera, not undistorted. The YAML file has its metadata::

    view: front
    joints: {panda_joint1: 0.012, panda_joint2: -0.35, ...}  # rad, by name; the gripper's for ./genima calibrate robot
    camera_info:  # as in ROS: the centre of the first pixel is at 0
      frame_id: front_color_optical_frame
      width: 640
      height: 480
      distortion_model: plumb_bob
      d: [0.1, -0.2, 0.0, 0.0, 0.1]
      k: [615.0, 0.0, 319.5, 0.0, 615.0, 239.5, 0.0, 0.0, 1.0]

The YAML file is written last and removed first: a sample is complete if it exists.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.intrinsics import CameraIntrinsics
from genima.errors import GenimaError
from genima.io.files import FileSchema, Finite, Pixels, Text, atomic_write, load_yaml, read_bytes
from genima.robot.model import RobotModel, select_by_name
from genima.system.ros_names import RosName
from genima.types import Image
from genima_calibration.board_detection import detect
from genima_calibration.samples import Sample

_PNG, _IMAGE_BYTES = b"\x89PNG\r\n\x1a\n", 256 << 20


@dataclass(frozen=True)
class CameraInfo:
    """Fields of a ROS CameraInfo for a calibration."""

    frame_id: str  # the optical frame
    width: int  # px
    height: int  # px
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]  # (9,), row by row

    @property
    def intrinsics(self) -> CameraIntrinsics:
        """Return the camera's intrinsics.

        Raises:
            GenimaError: for an uncalibrated camera or an unknown distortion model.
        """
        return CameraIntrinsics.from_camera_info(self.width, self.height, self.distortion_model, self.d, self.k)

    def require_view(self, view: str, views: Collection[str]) -> None:
        """Raise a GenimaError if the optical frame belongs to another one of ``views``."""
        others = [other for other in views if other in self.frame_id and other != view]
        if others and view not in self.frame_id:
            raise GenimaError(
                f"camera {view}: its frame is that of {others[0]} ({self.frame_id}); correct the driver's names or "
                "topics, or name the right view"
            )

    @classmethod
    def of(cls, message: Any) -> CameraInfo:
        """Convert a ROS message."""
        numbers = (tuple(float(number) for number in values) for values in (message.d, message.k))
        return cls(message.header.frame_id, message.width, message.height, message.distortion_model, *numbers)


class _CameraInfoSchema(FileSchema):
    frame_id: str
    width: Pixels
    height: Pixels
    distortion_model: str
    d: Annotated[list[Finite], Field(max_length=14)]
    k: Annotated[list[Finite], Field(min_length=9, max_length=9)]


class _SampleSchema(FileSchema):
    view: RosName
    joints: Annotated[dict[Text, Finite], Field(min_length=1, max_length=100)]
    camera_info: _CameraInfoSchema


@dataclass(frozen=True)
class RawSample:
    """Recorded sample before detection."""

    name: str
    view: str
    image: Image  # (h, w, 3)
    joints: Mapping[str, float]  # rad, by name
    info: CameraInfo

    def positions(self, robot: RobotModel) -> NDArray[np.float64]:
        """Return joints (n,) in the robot's order.

        Raises:
            GenimaError: for joints of another robot.
        """
        return select_by_name(f"sample {self.name}", list(self.joints), list(self.joints.values()), robot.joint_names)

    def detected(self, board: CalibrationBoard, robot: RobotModel) -> Sample:
        """Return the sample with its detected board.

        Raises:
            GenimaError: when the board is not detected, and for joints of another robot.
        """
        return Sample(self.name, self.positions(robot), detect(self.image, board, self.info.intrinsics))


def save_sample(folder: Path, sample: RawSample) -> None:
    """Write one sample atomically.

    Raises:
        GenimaError: when a sample of that name exists, and when it cannot be written.
    """
    file = folder / f"{sample.name}.yaml"
    if sample_exists(folder, sample.name):
        raise GenimaError(f"{folder}: sample {sample.name} exists; drop it first, or use another folder")
    info = sample.info
    content = {
        "view": sample.view,
        "joints": {name: float(position) for name, position in sample.joints.items()},
        "camera_info": {
            "frame_id": info.frame_id,
            "width": info.width,
            "height": info.height,
            "distortion_model": info.distortion_model,
            "d": list(info.d),
            "k": list(info.k),
        },
    }
    atomic_write(file.with_suffix(".png"), cv2.imencode(".png", sample.image[..., ::-1])[1].tobytes())
    atomic_write(file, yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120).encode())


def sample_exists(folder: Path, name: str) -> bool:
    """Check for a sample, or another file of its name."""
    return any((folder / f"{name}{suffix}").exists() for suffix in (".yaml", ".png"))


def drop_sample(folder: Path, name: str) -> None:
    """Remove a sample, if it exists."""
    for suffix in (".yaml", ".png"):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


def present_samples(folder: Path) -> list[str]:
    """Return the sorted names of a folder's samples; empty without a folder."""
    files = (path for path in folder.glob("*.yaml") if not path.name.startswith("."))  # hidden ones are macOS's
    return sorted(path.stem for path in files if path.with_suffix(".png").exists())


def sample_names(folder: Path) -> list[str]:
    """Return the sorted names of a folder's samples.

    Raises:
        GenimaError: when there are none.
    """
    if not folder.exists():
        raise GenimaError(f"{folder}: does not exist; name a demo (rosbag2) or a folder of samples")
    if not (names := present_samples(folder)):
        raise GenimaError(f"{folder}: no demo (rosbag2) and no samples (NAME.png with NAME.yaml); name another folder")
    return names


def load_samples(folder: Path, names: Sequence[str]) -> Iterator[RawSample]:
    """Load a folder's samples by name, all of one view and one camera.

    Raises:
        GenimaError: for a missing or malformed file, and samples of different cameras.
    """
    first: RawSample | None = None
    for name in names:
        sample = _load(folder, name)
        first = first or sample
        if sample.view != first.view:
            raise GenimaError(
                f"{folder}: samples of two views ({first.name} of {first.view}, {name} of {sample.view}); use a folder "
                "for each"
            )
        if sample.info != first.info:
            raise GenimaError(
                f"{folder}: samples of two cameras (camera_info of {name} differs from that of {first.name}); remove "
                "those of another camera or resolution"
            )
        yield sample


def _load(folder: Path, name: str) -> RawSample:
    path = folder / f"{name}.yaml"
    content = load_yaml(_SampleSchema, path, "sample")
    fields = content.camera_info.model_dump()
    info = CameraInfo(**fields | {"d": tuple(fields["d"]), "k": tuple(fields["k"])})
    return RawSample(name, content.view, _read_png(path.with_suffix(".png"), info), content.joints, info)


def _read_png(path: Path, info: CameraInfo) -> Image:
    """Read an image (h, w, 3), with its size checked before memory is allocated."""
    data = read_bytes(path, "sample's image", _IMAGE_BYTES)
    if not data.startswith(_PNG):
        raise GenimaError(f"sample's image {path}: not a PNG image; save it as PNG, which is lossless")
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    if (width, height) != (info.width, info.height):
        raise GenimaError(
            f"sample's image {path}: {width}x{height}, but camera_info of {info.width}x{info.height}; take both "
            "from the same stream"
        )
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if b"IEND" in data[-64:] else None
    except cv2.error:
        bgr = None
    if bgr is None:
        raise GenimaError(f"sample's image {path}: damaged or cut short; remove the sample, or take it again")
    return np.ascontiguousarray(bgr[..., ::-1])
