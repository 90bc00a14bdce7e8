"""Samples on disk, as the live calibrator leaves them and anybody can make them: ``NAME.png`` and ``NAME.yaml``.

The image is as the camera gave it, not rectified. Beside it lies what belongs to it::

    view: front
    joints: {panda_joint1: 0.012, panda_joint2: -0.35, ...}  # rad, by name; without the gripper's, it is taken for open
    camera_info:  # as ROS says it: pixels are counted from the middle of the first one
      frame_id: front_color_optical_frame
      width: 640
      height: 480
      distortion_model: plumb_bob
      d: [0.1, -0.2, 0.0, 0.0, 0.1]
      k: [615.0, 0.0, 319.5, 0.0, 615.0, 239.5, 0.0, 0.0, 1.0]

A sample is there once its YAML file is: that is written last, and removed first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.files import atomic_write
from genima.handeye.board import Board
from genima.handeye.detection import detect
from genima.handeye.intrinsics import Intrinsics
from genima.handeye.samples import Sample
from genima.observation import Image
from genima.robot.model import RobotModel, pick


@dataclass(frozen=True)
class CameraInfo:
    """What a driver says of a camera: the fields of a ROS CameraInfo that matter here."""

    frame_id: str  # the optical frame
    width: int  # px
    height: int  # px
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]  # (9,), row by row

    @property
    def intrinsics(self) -> Intrinsics:
        """The lens.

        Raises:
            GenimaError: for an uncalibrated camera or an unknown distortion model.
        """
        return Intrinsics.from_camera_info(self.width, self.height, self.distortion_model, self.d, self.k)

    def require_view(self, view: str, views: Collection[str]) -> None:
        """Raise a GenimaError where the optical frame is named after another one of ``views``."""
        others = [other for other in views if other in self.frame_id and other != view]
        if others and view not in self.frame_id:
            raise GenimaError(
                f"what comes as {view} says that it is {others[0]} (its frame is {self.frame_id}): are two cameras' "
                "names swapped? Correct the driver's names or topics, or name the right view"
            )

    @classmethod
    def of(cls, message: Any) -> CameraInfo:
        """Of a ROS message."""
        numbers = (tuple(float(number) for number in values) for values in (message.d, message.k))
        return cls(message.header.frame_id, message.width, message.height, message.distortion_model, *numbers)


@dataclass(frozen=True)
class RawSample:
    """One stop of the robot as it was recorded."""

    name: str
    view: str
    image: Image  # (h, w, 3)
    joints: Mapping[str, float]  # rad, by name
    info: CameraInfo

    def positions(self, robot: RobotModel) -> NDArray[np.float64]:
        """Joints (n,) in the robot's order.

        Raises:
            GenimaError: when they are another robot's.
        """
        return pick(f"sample {self.name}", list(self.joints), list(self.joints.values()), robot.joint_names)

    def detected(self, board: Board, robot: RobotModel) -> Sample:
        """With the board that is seen.

        Raises:
            GenimaError: when none is, and for joints of another robot.
        """
        return Sample(self.name, self.positions(robot), detect(self.image, board, self.info.intrinsics))


def save_sample(folder: Path, sample: RawSample) -> None:
    """Write one sample; it is there as a whole, or not at all.

    Raises:
        GenimaError: when one of that name is there, and when there is no room or no right to.
    """
    file = folder / f"{sample.name}.yaml"
    if file.exists():
        raise GenimaError(f"{folder} has a sample {sample.name} already: drop it first, or take another folder")
    info = sample.info
    said = {
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
    atomic_write(file, yaml.safe_dump(said, sort_keys=False, default_flow_style=None, width=120).encode())


def drop_sample(folder: Path, name: str) -> None:
    """Remove a sample, if it is there."""
    for suffix in (".yaml", ".png"):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


def sample_names(folder: Path) -> list[str]:
    """The names of a folder's samples, sorted.

    Raises:
        GenimaError: where there is none.
    """
    names = sorted(path.stem for path in folder.glob("*.yaml") if path.with_suffix(".png").exists())
    if not names:
        raise GenimaError(f"{folder} holds neither a demo (rosbag2) nor samples (NAME.png with NAME.yaml)")
    return names


def load_samples(folder: Path, names: Sequence[str]) -> Iterator[RawSample]:
    """A folder's samples by their names, all of one view and one camera.

    Raises:
        GenimaError: for a missing or malformed file, and samples of different cameras.
    """
    first: RawSample | None = None
    for name in names:
        sample = _load(folder, name)
        first = first or sample
        if sample.view != first.view:
            raise GenimaError(
                f"{folder} mixes views: sample {first.name} is of {first.view}, {name} of {sample.view}; a folder each"
            )
        if sample.info != first.info:
            raise GenimaError(
                f"{folder} mixes cameras: what camera_info says of sample {name} differs from sample {first.name}: "
                "leave out those of another camera or resolution"
            )
        yield sample


def _load(folder: Path, name: str) -> RawSample:
    path = folder / f"{name}.yaml"
    try:
        data = yaml.safe_load(path.read_text())
        if not isinstance(data, Mapping) or set(data) != {"view", "joints", "camera_info"}:
            raise ValueError("it has not just the fields view, joints and camera_info")
        said = data["camera_info"]
        info = CameraInfo(
            str(said["frame_id"]), int(said["width"]), int(said["height"]), str(said["distortion_model"]),
            tuple(float(number) for number in said["d"]), tuple(float(number) for number in said["k"]),
        )  # fmt: skip
        joints = {str(joint): float(position) for joint, position in data["joints"].items()}
        bgr = cv2.imdecode(np.frombuffer(path.with_suffix(".png").read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except OSError as error:
        raise GenimaError(f"cannot read sample {path}: {error.strerror}") from None
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError, cv2.error) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise GenimaError(f"sample {path} is malformed: {what}") from None
    if bgr is None:
        raise GenimaError(f"{path.with_suffix('.png')} is no image")
    return RawSample(name, str(data["view"]), np.ascontiguousarray(bgr[..., ::-1]), joints, info)
