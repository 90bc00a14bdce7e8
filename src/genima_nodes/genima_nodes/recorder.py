"""Node: record episodes as received, one rosbag2 folder (MCAP) per episode.

Topic names in a bag do not depend on the robot's namespace. Messages are not deserialized, except images for
compression. Messages lost in DDS, in the compression and in the queue to the disk are counted. All queues are bounded.
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
from genima_nodes.ros.services import trigger_callback
from genima_nodes.ros.worker_thread import WorkerThread

_PNG_FILTER, _FILTER_UP = 19, 32  # cv2's constants; older versions of OpenCV have no names for them and ignore them
ENCODINGS = {
    "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]),
    # Huffman only: camera noise has no repetitions, and a search for them takes three times as long.
    "png": (".png", [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY, _PNG_FILTER, _FILTER_UP]),
}
_IMAGE_DEPTH, _DEPTH = 60, 2000  # queue lengths: two seconds of images at 30 Hz, of other messages at 1 kHz
_TIMEOUT = 1.0  # s without a message of a required topic
_STATUS_PERIOD = 0.2  # s
_NAME_FORMAT = "%Y-%m-%d_%H-%M-%S"


class RecorderNode(Node):
    """Recorder of one episode at a time."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for parameters out of range.
        """
        super().__init__("recorder", **options)
        self._folder = Path(parameters.text(self, "folder", "data/demos"))
        cell = parameters.calibrated_cell(self)
        self._views = parameters.views(self, cell.views)
        self._images = parameters.text(self, "images", "jpeg", ("raw", *ENCODINGS))
        self._reserve = parameters.number(  # GB of the disk that must remain free
            self, "reserve", 2.0, apply=partial(setattr, self, "_reserve")
        )
        self._recreatable = parameters.flag(self, "recreatable", False)
        self._episode_files = _episode_files(cell, self._views)
        bag.types()  # slow: load them before the first episode

        self._bag: BagRecorder | None = None
        self._episode, self._start_time = Path(), 0.0  # folder of the newest episode; monotonic s
        self._problem = ""
        self._lost = 0  # messages before the queue to the disk, in this episode
        self._lost_lock = threading.Lock()
        self._last_stamp = 0  # ns, of the last recorded message
        self._compressors: list[WorkerThread[tuple[Image, int]]] = []
        self._diagnostics = DiagnosticUpdater(self)
        self._diagnostics.add_check(self._watch)
        self._stats: dict[str, TopicStats] = {}
        self._kinds: dict[str, type] = {}
        for view in self._views:
            topic = bag.raw_topic(view)
            if self._images == "raw":
                self._record(Image, topic)
            else:
                self._record(Image, topic, bag.compressed_topic(view), CompressedImage)
            self._record(CameraInfo, bag.camera_info_topic(view))
        self._record(JointState, bag.JOINT_STATES, reliable=False)
        self._record(JointState, bag.JOINT_COMMAND)
        self._required = list(self._stats)
        self._record(JointState, "/teleop/command")
        self._record(JointState, "/leader/joint_states", reliable=False)
        self._record(Float32, "/leader/gripper", reliable=False)

        self._status = self.create_publisher(RecorderStatus, "recorder/status", qos.STATUS)
        self.create_service(StartEpisode, "recorder/start", self._on_start)
        self.create_service(Trigger, "recorder/stop", trigger_callback(self._stop))
        self.create_service(Trigger, "recorder/discard", trigger_callback(self._discard))
        self.create_service(SetBool, "recorder/mark", self._on_mark)
        self.create_timer(_STATUS_PERIOD, self._publish_status, clock=STEADY)

    def close(self) -> None:
        """Finish the current episode."""
        if self._bag is not None:
            try:
                self._stop()
            except GenimaError as error:
                self.get_logger().error(str(error))
        for compressor in self._compressors:
            compressor.close()

    # Input

    def _record(
        self, kind: type, topic: str, name: str = "", kind_in_bag: type | None = None, reliable: bool = True
    ) -> None:
        """Record ``topic`` as received, or compressed under another name."""
        name = name or topic
        stats = self._stats[name] = self._diagnostics.add_topic(topic.removeprefix("/"))
        self._kinds[name] = kind_in_bag or kind
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        compressor: WorkerThread[tuple[Image, int]] | None = None
        if kind_in_bag is not None:
            compressor = WorkerThread(partial(self._compress, name, stats), _IMAGE_DEPTH, f"compress {topic}")
            self._compressors.append(compressor)

        def on_message(message: Any) -> None:
            stats.tick()
            if self._bag is None:
                return
            now = self._now()
            if compressor is None:
                self._write(name, message, now)
            elif not compressor.put((message, now)):
                self._count_lost(stats)

        self.create_subscription(
            kind,
            topic.removeprefix("/"),
            on_message,
            QoSProfile(depth=_IMAGE_DEPTH if kind is Image else _DEPTH, reliability=reliability),
            event_callbacks=SubscriptionEventCallbacks(message_lost=partial(self._on_lost, stats)),
            raw=compressor is None,
        )

    def _now(self) -> int:
        now = int(self.get_clock().now().nanoseconds)
        if now < self._last_stamp:
            step = (self._last_stamp - now) / 1e9
            self._problem = f"clock: set back by {step:.3f} s; the episode's times are wrong, discard it"
        self._last_stamp = now
        return now

    def _on_lost(self, stats: TopicStats, event: Any) -> None:
        self._count_lost(stats, event.total_count_change)

    def _count_lost(self, stats: TopicStats, count: int = 1) -> None:
        with self._lost_lock:
            self._lost += count
            stats.dropped += count

    def _write(self, name: str, cdr: bytes, stamp: int) -> None:
        if self._bag is None:
            return
        try:
            self._bag.write(name, cdr, stamp)
        except GenimaError as error:
            self._problem = str(error)

    def _compress(self, name: str, stats: TopicStats, image: tuple[Image, int]) -> None:
        message, stamp = image
        compressed = CompressedImage(header=message.header, format=f"rgb8; {self._images} compressed bgr8")
        try:
            compressed.data = array.array("B", encode(messages.image_from(message), self._images))
        except GenimaError as error:
            self._problem = f"{name}: {error}"
            self._count_lost(stats)
            return
        self._write(name, serialize_message(compressed), stamp)

    # Services

    def _on_start(self, request: StartEpisode.Request, response: StartEpisode.Response) -> StartEpisode.Response:
        try:
            self._start(request)
        except (GenimaError, OSError) as error:
            response.message = str(error)
        else:
            response.success, response.message, response.folder = True, "recording", str(self._episode)
        return response

    def _start(self, request: StartEpisode.Request) -> None:
        if self._bag is not None:
            raise GenimaError(f"recorder: already recording {self._episode}; stop it first")
        if self.count_publishers("recorder/status") > 1:
            raise GenimaError("recorder: another recorder runs on the same topics; end one of them")
        if not request.instruction.strip():
            raise GenimaError("recorder/start: no instruction; an episode needs one")
        name = request.name.strip() or time.strftime(_NAME_FORMAT)
        if name != Path(name).name or name.startswith("."):
            raise GenimaError(f"recorder/start: {name!r} is not a name for a folder")
        if missing := [topic for topic in self._required if self._stats[topic].age > _TIMEOUT]:
            raise GenimaError(f"recorder: no messages on {', '.join(missing)}")
        folder = self._folder / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        with starting_in_background():  # its writer thread
            recorder = BagRecorder(folder, reserve_bytes=int(self._reserve * 1e9), replace=self._recreatable)
        now = self.get_clock().now().nanoseconds
        for topic, kind in self._kinds.items():
            recorder.add_topic(topic, _type_name(kind), Qos(depth=1))
        metadata = {"operator": request.operator_name, "notes": request.notes, "recorded": time.strftime("%FT%T%z")}
        texts = {bag.TASK: request.instruction.strip(), bag.EPISODE: yaml.safe_dump(metadata, allow_unicode=True)}
        texts |= self._episode_files
        for topic, text in texts.items():
            recorder.add_topic(topic, _type_name(String), Qos(depth=1, durability="transient_local"))
            recorder.write(topic, serialize_message(String(data=text)), now)
        self._episode, self._start_time, self._lost, self._problem = folder, time.monotonic(), 0, ""
        self._last_stamp = now
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
        """Record a mark and wait until it is on disk; the last one counts."""
        if self._bag is None:
            raise GenimaError("recorder: not recording")
        if bag.SUCCESS not in self._bag.statistics.topics:
            self._bag.add_topic(bag.SUCCESS, _type_name(Bool), Qos(depth=1, durability="transient_local"))
        self._bag.write(bag.SUCCESS, serialize_message(Bool(data=success)), self._now(), wait=True)

    def _stop(self) -> str:
        recorder = self._end()
        statistics = recorder.statistics
        recorder.finish()
        if statistics.stopped is None:
            return f"{self._episode}: complete"
        marked = bag.SUCCESS in statistics.topics and statistics.topics[bag.SUCCESS].messages > 0
        return f"{self._episode}: ended early{'' if marked else ', without a mark'} ({statistics.stopped})"

    def _discard(self) -> str:
        self._end().discard()
        return f"{self._episode}: discarded"

    def _end(self) -> BagRecorder:
        """Stop recording; return the recorder with all received messages."""
        if self._bag is None:
            raise GenimaError("recorder: not recording")
        for compressor in self._compressors:
            compressor.wait()
        recorder, self._bag = self._bag, None
        return recorder

    # Status

    def _watch(self) -> None:
        if self._bag is None:
            for key in ("topics", "lost", "recording"):
                self._diagnostics.clear_fault(key)
            return
        missing = [topic for topic in self._required if self._stats[topic].age > _TIMEOUT]
        lost = self._lost + self._bag.statistics.dropped
        for key, problem in {
            "topics": f"no messages on {', '.join(missing)}" if missing else "",
            "lost": f"{lost} messages" if lost else "",
            "recording": self._problem or self._bag.statistics.stopped or "",
        }.items():
            self._diagnostics.update_fault(key, problem)

    def _publish_status(self) -> None:
        status = RecorderStatus(recording=self._bag is not None, folder=str(self._episode))
        status.header.stamp = messages.time_message(messages.now(self))
        existing = next(path for path in (self._folder, *self._folder.absolute().parents) if path.exists())
        status.free_gigabytes = shutil.disk_usage(existing).free / 1e9
        if self._bag is not None:
            statistics = self._bag.statistics
            status.seconds, status.messages = time.monotonic() - self._start_time, statistics.messages
            status.dropped = self._lost + statistics.dropped
            status.megabytes_per_second = statistics.megabytes_per_second
            status.problem = self._problem or statistics.stopped or ""
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
        raise GenimaError(f"image: cannot be compressed ({' '.join(str(error).split())})") from None
    return bytes(data)


def _type_name(kind: type) -> str:
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def _episode_files(cell: Cell, views: list[str]) -> dict[str, str]:
    """Return the text of the files of the robot model and the calibrations by topic."""
    texts = {bag.ROBOT_MODEL: yaml.safe_dump(cell.robot.to_dict(), sort_keys=False)}
    if cell.calibration:
        folder = calibration_folder(cell.calibration)
        for view in views:
            if not (file := folder / f"{view}.yaml").exists():
                raise GenimaError(f"recorder: calibration {folder} has no view {view}")
            CameraCalibration.load(file)
            texts[bag.calibration_topic(view)] = file.read_text(encoding="utf-8")
    return texts


main = node_main(RecorderNode, real_time=True, role="recorder")
