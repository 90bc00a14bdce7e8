"""Writing of episodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from genima.cameras.calibration_file import CameraCalibration, Frames
from genima.cameras.camera import Camera
from genima.cameras.plausibility import require_plausible
from genima.data.episodes.bag import (
    COMPRESSED,
    JOINT_COMMAND,
    JOINT_STATES,
    ROBOT_MODEL,
    SCENE,
    SCENE_STATE,
    SUCCESS,
    TASK,
    calibration_topic,
    camera_info_topic,
    compressed_topic,
    types,
)
from genima.data.episodes.bag_recorder import BagRecorder
from genima.data.episodes.metadata import Qos
from genima.data.episodes.scene_states import SceneDescription
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Command, Image, Joints

_ENCODING = {"jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95], "png": [cv2.IMWRITE_PNG_COMPRESSION, 3]}
_QUEUE_BYTES = 64 << 20
_STRING = "std_msgs/msg/String"


class EpisodeWriter:
    """Writer of one episode; the folder gets its name when it is complete.

    As the recorder does, it stores the robot model and the known calibrations of its cameras.
    """

    def __init__(
        self,
        folder: Path,
        robot: RobotModel,
        cameras: Mapping[str, Camera],
        instruction: str,
        images: Literal["jpeg", "png"] = "jpeg",
    ) -> None:
        """Prepare an episode.

        Args:
            folder: of the episode.
            robot: robot of the episode.
            cameras: calibrations by view, for images of their size; for other views none is written.
            instruction: the task.
            images: format: jpeg of quality 95, or lossless png.

        Raises:
            GenimaError: for an existing folder, and an implausible camera.
        """
        if folder.exists():
            raise GenimaError(f"episode {folder} exists already; choose another folder or remove it")
        for view, camera in cameras.items():
            require_plausible(camera, f"camera calibration of {view}")
        self._folder, self._robot, self._cameras, self._instruction = folder, robot, cameras, instruction
        self._images = images
        self._topics: set[str] = set()

    def __enter__(self) -> EpisodeWriter:
        # Only full chunks are written: unfinished files are not kept, and equal demos are equal files.
        self._bag = BagRecorder(
            self._folder, flush_seconds=math.inf, queue_bytes=_QUEUE_BYTES, reserve_bytes=0, replace=True
        )
        try:
            self._write(TASK, 0.0, _STRING, data=self._instruction)
            model = yaml.safe_dump(self._robot.to_dict(), sort_keys=False)
            self._write(ROBOT_MODEL, 0.0, _STRING, data=model)
            for view, camera in self._cameras.items():
                frames = Frames.of(self._robot, camera.parent, _frame(view))
                text = yaml.safe_dump(CameraCalibration(camera, frames).to_dict(), sort_keys=False)
                self._write(calibration_topic(view), 0.0, _STRING, data=text)
        except BaseException:
            self._bag.discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._bag.finish()
        else:
            self._bag.discard()

    def observe(self, stamp: float, images: Mapping[str, Image], joints: Joints) -> None:
        """Record images (rgb) by view and measured joints of one time, in seconds."""
        for view, image in images.items():
            ok, data = cv2.imencode(f".{self._images}", image[..., ::-1], _ENCODING[self._images])
            if not ok:
                raise GenimaError(f"image of view {view} could not be compressed")
            header = self._header(stamp, _frame(view))
            self._write(
                compressed_topic(view), stamp, COMPRESSED,
                header=header, format=f"rgb8; {self._images} compressed bgr8", data=data.ravel(),
            )  # fmt: skip
            if view in self._cameras:  # no intrinsics for uncalibrated views
                self._write_camera_info(self._cameras[view], stamp, header)
        gripper = self._robot.gripper_position(joints.gripper)
        self._write_joints(JOINT_STATES, stamp, joints.positions, np.zeros(0), gripper)

    def describe_scene(self, scene: SceneDescription) -> None:
        """Record the task, seed and perturbations of a simulated scene."""
        self._write(SCENE, 0.0, _STRING, data=yaml.safe_dump(scene.model_dump(), sort_keys=False))

    def state(self, stamp: float, qpos: NDArray[np.float64]) -> None:
        """Record the configuration (nq,) of a simulated scene at ``stamp`` in s, which is that of joints."""
        layout = types().types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
        self._write(SCENE_STATE, stamp, "std_msgs/msg/Float64MultiArray", layout=layout, data=qpos)

    def command(self, command: Command) -> None:
        """Record a command to the robot."""
        self._write_joints(JOINT_COMMAND, command.stamp, command.positions, command.velocities, command.gripper)

    def judge(self, stamp: float, success: bool) -> None:
        """Record the success of the task."""
        self._write(SUCCESS, stamp, "std_msgs/msg/Bool", data=success)

    def _write(self, topic: str, stamp: float, kind: str, **fields: Any) -> None:
        if topic not in self._topics:
            self._topics.add(topic)
            self._bag.add_topic(topic, kind, Qos())
        message = types().types[kind](**fields)
        self._bag.write(topic, types().serialize_cdr(message, kind), round(stamp * 1e9), wait=True)

    def _header(self, stamp: float, frame: str) -> Any:
        nanoseconds = round(stamp * 1e9)
        time = types().types["builtin_interfaces/msg/Time"](sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
        return types().types["std_msgs/msg/Header"](stamp=time, frame_id=frame)

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
        roi = types().types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        self._write(
            camera_info_topic(camera.view), stamp, "sensor_msgs/msg/CameraInfo",
            header=header, **camera.camera_info(), binning_x=0, binning_y=0, roi=roi,
        )  # fmt: skip


def _frame(view: str) -> str:
    """Return the optical frame of a view's camera."""
    return f"{view}_color_optical_frame"
