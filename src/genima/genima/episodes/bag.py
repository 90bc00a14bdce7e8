"""Write and read episodes as rosbag2 folders (MCAP) that stock ROS tools open; no ROS installation is needed."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from genima.errors import GenimaError
from genima.observation import Command, Image, Joints
from genima.robot.model import RobotModel
from genima.views.camera import Camera

_JPEG_QUALITY = 95
_PARTIAL = ".partial"  # folder beside the episodes where those being written lie
_BAG_VERSION: Literal[9] = 9  # what ROS 2 Jazzy writes


@cache
def _types() -> Typestore:
    return get_typestore(Stores.ROS2_JAZZY)


def _image_topic(view: str) -> str:
    return f"/cameras/{view}/color/image_raw/compressed"


class EpisodeWriter:
    """Writes one episode; the folder gets its name only when it is complete, so a killed run leaves no half episode."""

    def __init__(self, folder: Path, robot: RobotModel, cameras: Mapping[str, Camera], instruction: str) -> None:
        if folder.exists():
            raise GenimaError(f"episode {folder} exists already; choose another folder or remove it")
        self._folder, self._robot, self._cameras, self._instruction = folder, robot, cameras, instruction
        self._partial = folder.parent / _PARTIAL / folder.name
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        self._bag = Writer(self._partial, version=_BAG_VERSION, storage_plugin=StoragePlugin.MCAP)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> EpisodeWriter:
        self._bag.open()
        self._write("/task", 0.0, "std_msgs/msg/String", data=self._instruction)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bag.close()
        if kind is None:
            self._partial.rename(self._folder)
        else:
            shutil.rmtree(self._partial, ignore_errors=True)

    def observe(self, stamp: float, images: Mapping[str, Image], joints: Joints) -> None:
        """Record four images (rgb) and the measured joints of one moment, in seconds."""
        for view, image in images.items():
            ok, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
            if not ok:
                raise GenimaError(f"image of view {view} could not be compressed")
            header = self._header(stamp, f"{view}_color_optical_frame")
            self._write(
                _image_topic(view), stamp, "sensor_msgs/msg/CompressedImage",
                header=header, format="rgb8; jpeg compressed bgr8", data=jpeg.ravel(),
            )  # fmt: skip
            self._write_camera_info(self._cameras[view], stamp, header)
        gripper = self._robot.gripper_position(joints.gripper)
        self._write_joints("/joint_states", stamp, joints.positions, np.zeros(0), gripper)

    def command(self, command: Command) -> None:
        """Record what the robot was told."""
        self._write_joints("/joint_command", command.stamp, command.positions, command.velocities, command.gripper)

    def judge(self, stamp: float, success: bool) -> None:
        """Record whether the task was done."""
        self._write("/success", stamp, "std_msgs/msg/Bool", data=success)

    def _write(self, topic: str, stamp: float, kind: str, **fields: Any) -> None:
        if topic not in self._connections:
            self._connections[topic] = self._bag.add_connection(topic, kind, typestore=_types())
        message = _types().types[kind](**fields)
        self._bag.write(self._connections[topic], round(stamp * 1e9), _types().serialize_cdr(message, kind))

    def _header(self, stamp: float, frame: str) -> Any:
        nanoseconds = round(stamp * 1e9)
        time = _types().types["builtin_interfaces/msg/Time"](sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
        return _types().types["std_msgs/msg/Header"](stamp=time, frame_id=frame)

    def _write_joints(
        self,
        topic: str,
        stamp: float,
        positions: NDArray[np.floating],
        velocities: NDArray[np.floating],
        gripper: float,
    ) -> None:
        self._write(
            topic, stamp, "sensor_msgs/msg/JointState",
            header=self._header(stamp, ""),
            name=[*self._robot.joint_names, self._robot.gripper_joint],
            position=np.append(positions, gripper).astype(np.float64),
            velocity=np.append(velocities, 0.0).astype(np.float64) if len(velocities) else np.zeros(0),
            effort=np.zeros(0),
        )  # fmt: skip

    def _write_camera_info(self, camera: Camera, stamp: float, header: Any) -> None:
        roi = _types().types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        self._write(
            f"/cameras/{camera.view}/color/camera_info", stamp, "sensor_msgs/msg/CameraInfo",
            header=header, height=camera.height, width=camera.width, distortion_model="plumb_bob", d=np.zeros(5),
            k=camera.K.ravel(), r=np.eye(3).ravel(), p=camera.P.ravel(), binning_x=0, binning_y=0, roi=roi,
        )  # fmt: skip


@dataclass(frozen=True)
class Episode:
    """One demo in memory: T moments at a constant rate, images still compressed."""

    folder: Path
    instruction: str
    stamps: NDArray[np.float64]  # (T,) s
    positions: NDArray[np.float64]  # (T, n) rad, measured
    gripper: NDArray[np.float64]  # (T,) measured open fraction
    command_positions: NDArray[np.float64]  # (T, n) rad; row t was given right after moment t
    command_gripper: NDArray[np.float64]  # (T,) commanded open fraction
    jpegs: Mapping[str, list[NDArray[np.uint8]]]  # by view, T each
    success: bool

    def __len__(self) -> int:
        return len(self.stamps)

    def image(self, view: str, t: int) -> Image:
        """The (h, w, 3) rgb image of a view at moment t."""
        if view not in self.jpegs:
            raise GenimaError(f"episode {self.folder} lacks images of view {view}")
        decoded = cv2.imdecode(self.jpegs[view][t], cv2.IMREAD_COLOR)
        if decoded is None:
            raise GenimaError(f"episode {self.folder}: image {t} of view {view} cannot be decoded")
        return np.ascontiguousarray(decoded[..., ::-1])

    @classmethod
    def load(cls, folder: Path, robot: RobotModel) -> Episode:
        """Read an episode; joints are matched by name, everything is aligned by ``header.stamp``.

        Raises:
            GenimaError: when the bag cannot be read, lacks a topic, or its topics disagree on the moments.
        """
        stamps: defaultdict[str, list[float]] = defaultdict(list)
        data: defaultdict[str, list[Any]] = defaultdict(list)
        instruction, success = "", False
        try:
            with AnyReader([folder], default_typestore=_types()) as bag:
                for connection, _, raw in bag.messages():
                    message: Any = bag.deserialize(raw, connection.msgtype)
                    topic = connection.topic
                    if topic == "/task":
                        instruction = message.data
                    elif topic == "/success":
                        success = message.data
                    elif connection.msgtype in ("sensor_msgs/msg/JointState", "sensor_msgs/msg/CompressedImage"):
                        stamps[topic].append(message.header.stamp.sec + message.header.stamp.nanosec * 1e-9)
                        is_image = connection.msgtype.endswith("Image")
                        value = message.data if is_image else robot.in_order(message.name, message.position)
                        data[topic].append(value)
        except GenimaError as error:
            raise GenimaError(f"episode {folder}: {error}") from None
        except Exception as error:  # rosbags raises many kinds for a damaged file
            raise GenimaError(f"episode {folder} cannot be read: {' '.join(str(error).split())}") from None
        if missing := [topic for topic in ("/joint_states", "/joint_command") if topic not in data]:
            raise GenimaError(f"episode {folder} lacks {', '.join(missing)}")
        moments = np.array(stamps["/joint_states"])
        for topic, times in stamps.items():
            if len(times) != len(moments) or np.abs(np.array(times) - moments).max() > 1e-3:
                raise GenimaError(f"episode {folder}: {topic} and /joint_states differ in their moments")
        images = {topic.split("/")[2]: values for topic, values in data.items() if topic.startswith("/cameras/")}
        measured, commanded = data["/joint_states"], data["/joint_command"]
        return cls(
            folder, instruction, moments,
            np.array([p for p, _ in measured]), np.array([robot.open_fraction(g) for _, g in measured]),
            np.array([p for p, _ in commanded]), np.array([g for _, g in commanded]),
            images, success,
        )  # fmt: skip


def find_episodes(folder: Path) -> list[Path]:
    """All complete episodes below a folder, sorted.

    Raises:
        GenimaError: when there is none.
    """
    found = sorted(path.parent for path in folder.rglob("metadata.yaml") if _PARTIAL not in path.parts)
    if not found:
        raise GenimaError(f"no episodes (rosbag2 folders) in {folder}; ./genima record makes some")
    return found
