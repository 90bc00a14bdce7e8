"""Node: records episodes. Everything that comes is written as it came, one rosbag2 folder (MCAP) an episode.

The topics have the same names in every bag, whatever namespace the robot has. Messages are never unpacked, unless
images shall be compressed. What is lost is counted: in the queue to the disk, and on the way here (DDS tells).
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import yaml
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from genima import paths
from genima.episodes import bag
from genima.episodes.metadata import Qos
from genima.episodes.recording import BagRecorder
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima_interfaces.msg import RecorderStatus
from genima_interfaces.srv import StartEpisode
from genima_nodes import messages, parameters, qos
from genima_nodes.answering import answering
from genima_nodes.health import Health, Meter
from genima_nodes.pacing import STEADY, schedule_in_background, starting_in_background
from genima_nodes.running import run

ENCODINGS = {
    "raw": None,
    "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]),
    "png": (".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]),
}
_DEPTH = 200  # messages that may wait for this process, seconds of images: the guard against a busy moment
_SILENT = 1.0  # s
_TELL = 0.2  # s between words to the operator
_NAME = "%Y-%m-%d_%H-%M-%S"


class RecorderNode(Node):
    """One episode at a time."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for parameters that make no sense.
        """
        super().__init__("recorder", **options)
        self._folder = Path(self.declare_parameter("folder", "data/demos").value)
        self._views = list(self.declare_parameter("views", ["front", "wrist", "left_shoulder", "right_shoulder"]).value)
        self._images = self.declare_parameter("images", "jpeg").value
        if self._images not in ENCODINGS:
            raise GenimaError(f"recorder: images is {self._images!r}; known: {', '.join(ENCODINGS)}")
        self._reserve = parameters.number(self, "reserve", 2.0)  # GB of the disk that stay free
        robot = self.declare_parameter("robot", "panda").value
        RobotModel.load(robot)
        calibration = self.declare_parameter("calibration", "").value
        self._about = _about(robot, calibration, self._views)

        self._bag: BagRecorder | None = None
        self._last, self._begin = Path(), 0.0  # folder; monotonic s
        self._problem = ""
        self._lost = 0  # on the way here, in this episode
        self._success: bool | None = None
        self._compressing = _compressors()
        self._health = Health(self)
        self._health.watch(self._watch)
        self._meters: dict[str, Meter] = {}
        self._kinds: dict[str, type] = {}
        for view in self._views:
            topic = bag.raw_topic(view)
            if self._images == "raw":
                self._listen(Image, topic)
            else:
                self._listen(Image, topic, bag.compressed_topic(view), CompressedImage, self._compress)
            self._listen(CameraInfo, f"/cameras/{view}/color/camera_info")
        self._listen(JointState, bag.JOINT_STATES, reliable=False)
        self._listen(JointState, bag.JOINT_COMMAND)
        self._needed = list(self._meters)
        self._listen(JointState, "/teleop/command")
        self._listen(JointState, "/leader/joint_states", reliable=False)

        self._status = self.create_publisher(RecorderStatus, "recorder/status", qos.STATUS)
        self.create_service(StartEpisode, "recorder/start", self._on_start)
        self.create_service(Trigger, "recorder/stop", answering(self._stop))
        self.create_service(Trigger, "recorder/discard", answering(self._discard))
        self.create_service(SetBool, "recorder/mark", self._on_mark)
        self.create_timer(_TELL, self._tell, clock=STEADY)

    def close(self) -> None:
        """Finish the episode that is recorded."""
        if self._bag is not None:
            try:
                self._stop()
            except GenimaError as error:
                self.get_logger().error(str(error))
        self._compressing.shutdown()

    # What comes.

    def _listen(
        self,
        kind: type,
        topic: str,
        name: str = "",
        kind_in_bag: type | None = None,
        change: Callable[[str, Any, int], None] | None = None,
        reliable: bool = True,
    ) -> None:
        """Record ``topic`` under ``name``: as it comes, or as ``change`` makes of it."""
        name = name or topic
        meter = self._meters[name] = self._health.meter(topic.removeprefix("/"))
        self._kinds[name] = kind_in_bag or kind
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT

        def on_message(message: Any) -> None:
            meter.tick()
            if self._bag is not None:
                now = self.get_clock().now().nanoseconds
                (change or self._write)(name, message, now)

        self.create_subscription(
            kind, topic.removeprefix("/"), on_message, QoSProfile(depth=_DEPTH, reliability=reliability),
            event_callbacks=SubscriptionEventCallbacks(message_lost=partial(self._on_lost, meter)), raw=change is None,
        )  # fmt: skip

    def _on_lost(self, meter: Meter, event: Any) -> None:
        self._lost += event.total_count_change
        for _ in range(event.total_count_change):
            meter.drop()

    def _write(self, name: str, cdr: bytes, stamp: int) -> None:
        if self._bag is None:
            return
        try:
            self._bag.write(name, cdr, stamp)
        except GenimaError as error:
            self._problem = str(error)

    def _compress(self, name: str, message: Image, stamp: int) -> None:
        try:
            image = messages.image_from(message)
        except GenimaError as error:
            self._problem = f"{name}: {error}"
            self._lost += 1
            return
        self._compressing.submit(self._write_compressed, name, image, message.header, stamp)

    def _write_compressed(self, name: str, image: Any, header: Any, stamp: int) -> None:
        extension, options = ENCODINGS[self._images] or ("", [])
        ok, data = cv2.imencode(extension, image[..., ::-1], options)
        if not ok:
            self._problem = f"{name}: an image cannot be compressed"
            self._lost += 1
            return
        message = CompressedImage(header=header, format=f"rgb8; {self._images} compressed bgr8")
        message.data = data.tobytes()
        self._write(name, serialize_message(message), stamp)

    # What the operator wants.

    def _on_start(self, request: StartEpisode.Request, response: StartEpisode.Response) -> StartEpisode.Response:
        try:
            self._start(request)
        except (GenimaError, OSError) as error:
            response.message = str(error)
        else:
            response.success, response.message, response.folder = True, "recording", str(self._last)
        return response

    def _start(self, request: StartEpisode.Request) -> None:
        if self._bag is not None:
            raise GenimaError(f"{self._last} is being recorded already")
        if not request.instruction.strip():
            raise GenimaError("an episode needs an instruction")
        name = request.name.strip() or time.strftime(_NAME)
        if name != Path(name).name or name.startswith("."):
            raise GenimaError(f"{name!r} is no name for a folder")
        if silent := [topic for topic in self._needed if self._meters[topic].age > _SILENT]:
            raise GenimaError(f"nothing comes on {', '.join(silent)}")
        folder = self._folder / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        with starting_in_background():  # the thread that writes
            recorder = BagRecorder(folder, reserve_bytes=int(self._reserve * 1e9))
        now = self.get_clock().now().nanoseconds
        for topic, kind in self._kinds.items():
            recorder.add_topic(topic, _type_name(kind), Qos(depth=1))
        about = {"operator": request.operator_name, "notes": request.notes, "recorded": time.strftime("%FT%T%z")}
        texts = {bag.TASK: request.instruction.strip(), "/episode": yaml.safe_dump(about, allow_unicode=True)}
        texts |= self._about
        for topic, text in texts.items():
            recorder.add_topic(topic, _type_name(String), Qos(depth=1, durability="transient_local"))
            recorder.write(topic, serialize_message(String(data=text)), now)
        self._last, self._begin, self._success, self._lost, self._problem = folder, time.monotonic(), None, 0, ""
        self._bag = recorder

    def _on_mark(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success = self._bag is not None
        response.message = "nothing is recorded"
        if response.success:
            self._success = request.data
            response.message = "marked as a success" if request.data else "marked as a failure"
        return response

    def _stop(self) -> str:
        recorder, self._bag = self._require_recording(), None
        self._wait_for_images()
        if self._success is not None:
            recorder.add_topic(bag.SUCCESS, _type_name(Bool), Qos(depth=1, durability="transient_local"))
            now = self.get_clock().now().nanoseconds
            recorder.write(bag.SUCCESS, serialize_message(Bool(data=self._success)), now)
        recorder.finish()
        return f"{self._last} is complete"

    def _discard(self) -> str:
        recorder, self._bag = self._require_recording(), None
        self._wait_for_images()
        recorder.discard()
        return f"{self._last} is gone"

    def _require_recording(self) -> BagRecorder:
        if self._bag is None:
            raise GenimaError("nothing is recorded")
        return self._bag

    def _wait_for_images(self) -> None:
        self._compressing.shutdown()
        self._compressing = _compressors()

    # What the operator is told.

    def _watch(self) -> None:
        if self._bag is None:
            for about in ("silent", "lost", "recording"):
                self._health.clear(about)
            return
        silent = [topic for topic in self._needed if self._meters[topic].age > _SILENT]
        lost = self._lost + self._bag.statistics.dropped
        for about, problem in {
            "silent": f"nothing comes on {', '.join(silent)}" if silent else "",
            "lost": f"{lost} messages were lost" if lost else "",
            "recording": self._problem or self._bag.statistics.stopped or "",
        }.items():
            if problem:
                self._health.fault(about, problem)
            else:
                self._health.clear(about)

    def _tell(self) -> None:
        status = RecorderStatus(recording=self._bag is not None, folder=str(self._last))
        status.header.stamp = messages.time_message(messages.now(self))
        place = next(path for path in (self._folder, *self._folder.absolute().parents) if path.exists())
        status.free_gigabytes = shutil.disk_usage(place).free / 1e9
        if self._bag is not None:
            said = self._bag.statistics
            status.seconds, status.messages = time.monotonic() - self._begin, said.messages
            status.dropped = self._lost + said.dropped
            status.megabytes_per_second = said.megabytes_per_second
            status.problem = self._problem or said.stopped or ""
        self._status.publish(status)


def _compressors() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, "compresses", schedule_in_background)


def _type_name(kind: type) -> str:
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def _about(robot: str, calibration: str, views: list[str]) -> dict[str, str]:
    """The robot model and the cameras' calibration in use, as they stand on the disk, by topic."""
    file = Path(robot) if robot.endswith(".yaml") else paths.shared("config", "robots", f"{robot}.yaml")
    texts = {"/robot_model": file.read_text()}
    if calibration:
        folder = Path(calibration) if Path(calibration).is_dir() else paths.shared("calibration", calibration)
        for view in views:
            if not (file := folder / f"{view}.yaml").exists():
                raise GenimaError(f"recorder: {folder} has no calibration of view {view}")
            texts[f"/calibration/{view}"] = file.read_text()
    return texts


def main(args: list[str] | None = None) -> int:
    """Entry point of the process."""
    return run(RecorderNode, args, real_time=True)


if __name__ == "__main__":
    sys.exit(main())
