"""Node that records episodes as received, one rosbag2 folder (MCAP) per episode.

Topic names in a bag do not depend on the robot's namespace. Messages are never deserialized, except images to be
compressed. Lost messages are counted: in DDS, in the compression, and in the queue to the disk. All queues are bounded.
"""

from __future__ import annotations

import array
import shutil
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Bool, Float32, String
from std_srvs.srv import SetBool, Trigger

from genima.cameras.calibration_file import CameraCalibration, calibration_folder
from genima.cell import Cell
from genima.data.episodes import bag
from genima.data.episodes.bag_recorder import BagRecorder
from genima.data.episodes.metadata import Qos
from genima.errors import GenimaError
from genima_interfaces.msg import RecorderStatus
from genima_interfaces.srv import StartEpisode
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater, TopicStats
from genima_nodes.ros.node_process import node_main
from genima_nodes.ros.paced_thread import STEADY, starting_in_background
from genima_nodes.ros.services import answer_service
from genima_nodes.ros.worker_thread import WorkerThread

_PNG_FILTER, _UP = 19, 32  # cv2's; an OpenCV older than these names ignores them
ENCODINGS = {
    "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]),
    # Noise does not repeat: to look for repetitions takes three times as long and makes images larger.
    "png": (".png", [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY, _PNG_FILTER, _UP]),
}
_IMAGES, _SMALL = 60, 2000  # messages of a topic that may wait for this process: two seconds, at 30 Hz and at 1 kHz
_SILENT = 1.0  # s
_TELL = 0.2  # s between status messages
_NAME = "%Y-%m-%d_%H-%M-%S"


class RecorderNode(Node):
    """Records one episode at a time."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for parameters that make no sense.
        """
        super().__init__("recorder", **options)
        self._folder = Path(parameters.text(self, "folder", "data/demos"))
        cell = parameters.calibrated_cell(self)
        self._views = parameters.views(self, cell.views)
        self._images = parameters.text(self, "images", "jpeg")
        if self._images not in ("raw", *ENCODINGS):
            raise GenimaError(f"recorder: images is {self._images!r}; known: raw, {', '.join(ENCODINGS)}")
        self._reserve = parameters.number(  # GB of the disk that stay free
            self, "reserve", 2.0, apply=partial(setattr, self, "_reserve")
        )
        self._recreatable = parameters.flag(self, "recreatable", False)
        self._episode_files = _episode_files(cell, self._views)
        bag.types()  # slow: must not delay the first episode

        self._bag: BagRecorder | None = None
        self._last, self._begin = Path(), 0.0  # folder; monotonic s
        self._problem = ""
        self._lost = 0  # before the queue to the disk, in this episode
        self._counting_lost = threading.Lock()
        self._latest = 0  # ns, of what was recorded
        self._compressing: list[WorkerThread[tuple[Image, int]]] = []
        self._diagnostics = DiagnosticUpdater(self)
        self._diagnostics.add_check(self._watch)
        self._meters: dict[str, TopicStats] = {}
        self._kinds: dict[str, type] = {}
        for view in self._views:
            topic = bag.raw_topic(view)
            if self._images == "raw":
                self._listen(Image, topic)
            else:
                self._listen(Image, topic, bag.compressed_topic(view), CompressedImage)
            self._listen(CameraInfo, bag.camera_info_topic(view))
        self._listen(JointState, bag.JOINT_STATES, reliable=False)
        self._listen(JointState, bag.JOINT_COMMAND)
        self._needed = list(self._meters)
        self._listen(JointState, "/teleop/command")
        self._listen(JointState, "/leader/joint_states", reliable=False)
        self._listen(Float32, "/leader/gripper", reliable=False)

        self._status = self.create_publisher(RecorderStatus, "recorder/status", qos.STATUS)
        self.create_service(StartEpisode, "recorder/start", self._on_start)
        self.create_service(Trigger, "recorder/stop", answer_service(self._stop))
        self.create_service(Trigger, "recorder/discard", answer_service(self._discard))
        self.create_service(SetBool, "recorder/mark", self._on_mark)
        self.create_timer(_TELL, self._publish_status, clock=STEADY)

    def close(self) -> None:
        """Finish the current episode."""
        if self._bag is not None:
            try:
                self._stop()
            except GenimaError as error:
                self.get_logger().error(str(error))
        for compressing in self._compressing:
            compressing.close()

    # Input

    def _listen(
        self, kind: type, topic: str, name: str = "", kind_in_bag: type | None = None, reliable: bool = True
    ) -> None:
        """Record ``topic``, as it comes; or under another name, compressed."""
        name = name or topic
        meter = self._meters[name] = self._diagnostics.add_topic(topic.removeprefix("/"))
        self._kinds[name] = kind_in_bag or kind
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        compressing: WorkerThread[tuple[Image, int]] | None = None
        if kind_in_bag is not None:
            compressing = WorkerThread(partial(self._compress, name, meter), _IMAGES, f"compresses {topic}")
            self._compressing.append(compressing)

        def on_message(message: Any) -> None:
            meter.tick()
            if self._bag is None:
                return
            now = self._now()
            if compressing is None:
                self._write(name, message, now)
            elif not compressing.take((message, now)):
                self._count_lost(meter)

        self.create_subscription(
            kind,
            topic.removeprefix("/"),
            on_message,
            QoSProfile(depth=_IMAGES if kind is Image else _SMALL, reliability=reliability),
            event_callbacks=SubscriptionEventCallbacks(message_lost=partial(self._on_lost, meter)),
            raw=compressing is None,
        )

    def _now(self) -> int:
        now = int(self.get_clock().now().nanoseconds)
        if now < self._latest:
            self._problem = f"the clock went back by {(self._latest - now) / 1e9:.3f} s: the episode's times are wrong"
        self._latest = now
        return now

    def _on_lost(self, meter: TopicStats, event: Any) -> None:
        self._count_lost(meter, event.total_count_change)

    def _count_lost(self, meter: TopicStats, count: int = 1) -> None:
        with self._counting_lost:
            self._lost += count
            meter.dropped += count

    def _write(self, name: str, cdr: bytes, stamp: int) -> None:
        if self._bag is None:
            return
        try:
            self._bag.write(name, cdr, stamp)
        except GenimaError as error:
            self._problem = str(error)

    def _compress(self, name: str, meter: TopicStats, image: tuple[Image, int]) -> None:
        message, stamp = image
        compressed = CompressedImage(header=message.header, format=f"rgb8; {self._images} compressed bgr8")
        try:
            compressed.data = array.array("B", encode(messages.image_from(message), self._images))
        except GenimaError as error:
            self._problem = f"{name}: {error}"
            self._count_lost(meter)
            return
        self._write(name, serialize_message(compressed), stamp)

    # Services

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
        if self.count_publishers("recorder/status") > 1:
            raise GenimaError("another recorder runs on the same topics; end one of them")
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
            recorder = BagRecorder(folder, reserve_bytes=int(self._reserve * 1e9), replace=self._recreatable)
        now = self.get_clock().now().nanoseconds
        for topic, kind in self._kinds.items():
            recorder.add_topic(topic, _type_name(kind), Qos(depth=1))
        about = {"operator": request.operator_name, "notes": request.notes, "recorded": time.strftime("%FT%T%z")}
        texts = {bag.TASK: request.instruction.strip(), bag.EPISODE: yaml.safe_dump(about, allow_unicode=True)}
        texts |= self._episode_files
        for topic, text in texts.items():
            recorder.add_topic(topic, _type_name(String), Qos(depth=1, durability="transient_local"))
            recorder.write(topic, serialize_message(String(data=text)), now)
        self._last, self._begin, self._lost, self._problem = folder, time.monotonic(), 0, ""
        self._latest = now
        self._bag = recorder

    def _on_mark(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        try:
            self._mark(request.data)
        except GenimaError as error:
            response.message = str(error)
        else:
            response.success = True
            response.message = "marked as a success" if request.data else "marked as a failure"
        return response

    def _mark(self, success: bool) -> None:
        """Write a judgement at once, safe from power cuts; the last one counts."""
        if self._bag is None:
            raise GenimaError("nothing is recorded")
        if bag.SUCCESS not in self._bag.statistics.topics:
            self._bag.add_topic(bag.SUCCESS, _type_name(Bool), Qos(depth=1, durability="transient_local"))
        self._bag.write(bag.SUCCESS, serialize_message(Bool(data=success)), self._now(), wait=True)

    def _stop(self) -> str:
        recorder = self._end()
        said = recorder.statistics
        recorder.finish()
        if said.stopped is None:
            return f"{self._last} is complete"
        marked = bag.SUCCESS in said.topics and said.topics[bag.SUCCESS].messages > 0
        return f"{self._last} ends early{'' if marked else ' and has no mark'}: {said.stopped}"

    def _discard(self) -> str:
        self._end().discard()
        return f"{self._last} is gone"

    def _end(self) -> BagRecorder:
        """Stop recording; return the recorder with all received messages."""
        if self._bag is None:
            raise GenimaError("nothing is recorded")
        for compressing in self._compressing:
            compressing.wait()
        recorder, self._bag = self._bag, None
        return recorder

    # Status

    def _watch(self) -> None:
        if self._bag is None:
            for about in ("silent", "lost", "recording"):
                self._diagnostics.clear_fault(about)
            return
        silent = [topic for topic in self._needed if self._meters[topic].age > _SILENT]
        lost = self._lost + self._bag.statistics.dropped
        for about, problem in {
            "silent": f"nothing comes on {', '.join(silent)}" if silent else "",
            "lost": f"{lost} messages were lost" if lost else "",
            "recording": self._problem or self._bag.statistics.stopped or "",
        }.items():
            if problem:
                self._diagnostics.set_fault(about, problem)
            else:
                self._diagnostics.clear_fault(about)

    def _publish_status(self) -> None:
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


def encode(image: NDArray[np.uint8], images: str) -> bytes:
    """Encode an rgb image (h, w, 3) as a file.

    Raises:
        GenimaError: when it cannot be compressed.
    """
    extension, options = ENCODINGS[images]
    try:
        _, data = cv2.imencode(extension, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    except cv2.error as error:
        raise GenimaError(f"an image cannot be compressed: {' '.join(str(error).split())}") from None
    return bytes(data)


def _type_name(kind: type) -> str:
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def _episode_files(cell: Cell, views: list[str]) -> dict[str, str]:
    """Return the robot model and calibrations in use, as texts of their files, by topic."""
    texts = {bag.ROBOT_MODEL: yaml.safe_dump(cell.robot.to_dict(), sort_keys=False)}
    if cell.calibration:
        folder = calibration_folder(cell.calibration)
        for view in views:
            if not (file := folder / f"{view}.yaml").exists():
                raise GenimaError(f"recorder: {folder} has no calibration of view {view}")
            CameraCalibration.load(file)
            texts[bag.calibration_topic(view)] = file.read_text(encoding="utf-8")
    return texts


main = node_main(RecorderNode, real_time=True, role="recorder")
