"""Recorder node."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from ros_graph import Graph, overrides
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_srvs.srv import SetBool, Trigger

from genima.data.episodes import Episode
from genima.data.episodes.bag_recorder import BagRecorder
from genima.data.episodes.repair import repair
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.model import RobotModel
from genima.types import Command, Joints
from genima_interfaces.msg import RecorderStatus
from genima_interfaces.srv import StartEpisode
from genima_nodes import recorder
from genima_nodes.recorder import RecorderNode, encode
from genima_nodes.ros import messages, qos

PANDA = RobotModel.load("panda")
VIEWS = ("front", "wrist")
SIZE = 32


class RecorderFixture:
    """Recorder node with publishers of images, joints and commands."""

    def __init__(self, graph: Graph, folder: Path, **parameters: object) -> None:
        self.graph, self.folder = graph, folder
        values = {"folder": str(folder), "views": list(VIEWS), "calibration": "sim", "images": "raw"} | parameters
        graph.add(RecorderNode(parameter_overrides=overrides(**values)))
        self.statuses = graph.subscribe(RecorderStatus, "recorder/status", qos.STATUS)
        self._images = {v: graph.publisher(Image, f"cameras/{v}/color/image_raw", qos.IMAGE) for v in VIEWS}
        self._infos = {v: graph.publisher(CameraInfo, f"cameras/{v}/color/camera_info", qos.IMAGE) for v in VIEWS}
        self._publish_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
        self._publish_command = graph.publisher(JointState, "joint_command", qos.JOINT_COMMAND)
        self._begin = round(time.time())
        self.sent: list[float] = []  # stamps of images

    def image(self, k: int) -> np.ndarray:
        return np.random.default_rng(k).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)

    def work(self, silent: str = "") -> None:
        """Publish one frame, stamped 1/30 s after the previous one."""
        now = self._begin + len(self.sent) / 30
        for view in VIEWS:
            if view != silent:
                self._images[view](messages.image_message(self.image(len(self.sent)), now, view))
                info = CameraInfo(height=SIZE, width=SIZE)
                info.header.stamp = messages.time_message(now)
                self._infos[view](info)
        self.sent.append(now)
        for k in range(4):
            stamp = now + k / 120
            self._publish_joints(messages.joints_message(Joints(stamp, PANDA.home + len(self.sent) / 100, 0.5), PANDA))
            self._publish_command(messages.command_message(Command(stamp, PANDA.home, np.zeros(7), 0.5), PANDA))
            time.sleep(1 / 120)

    def start(self, name: str = "one", instruction: str = "wave") -> StartEpisode.Response:
        request = StartEpisode.Request(name=name, instruction=instruction, operator_name="Ada", notes="a: note")
        return self.graph.call(StartEpisode, "recorder/start", request)

    def start_when_ready(self, **what: str) -> None:
        """Start as soon as all required topics have messages."""
        self.graph.until(lambda: self.start(**what).success, "no start", self.work)
        self._begin += 100
        self.sent.clear()

    def reports(self, expected: str) -> Callable[[], bool]:
        """Return a condition: the status reports this problem."""
        return lambda: bool(self.statuses) and expected in self.statuses[-1].problem

    def call(self, what: str) -> Trigger.Response:
        return self.graph.call(Trigger, f"recorder/{what}", Trigger.Request())


@pytest.mark.parametrize("images", ["raw", "png", "jpeg"])
def test_episode_contains_received_messages(graph, tmp_path: Path, images: str) -> None:
    fixture = RecorderFixture(graph, tmp_path, images=images)
    fixture.start_when_ready()
    for _ in range(30):
        fixture.work()
    assert graph.call(SetBool, "recorder/mark", SetBool.Request(data=True)).success
    graph.until(lambda: fixture.statuses[-1].recording and fixture.statuses[-1].messages > 30, "no status")
    assert fixture.call("stop").success
    episode = Episode.load(tmp_path / "one", PANDA)
    assert episode.instruction == "wave" and episode.success and episode.views == VIEWS
    assert len(episode) in (29, 30)
    for k, stamp in enumerate(episode.stamps):
        sent = int(np.argmin(np.abs(np.array(fixture.sent) - stamp)))
        assert abs(fixture.sent[sent] - stamp) < 1e-5 and sent - k in (0, 1)
        worst = np.abs(episode.image("front", k).astype(int) - fixture.image(sent)).max()
        assert worst == 0 or images == "jpeg"
    about, robot, camera = (text_of(tmp_path, topic) for topic in ("/episode", "/robot_model", "/calibration/front"))
    assert yaml.safe_load(about)["operator"] == "Ada" and yaml.safe_load(about)["notes"] == "a: note"
    assert yaml.safe_load(robot) == PANDA.to_dict()
    assert camera == paths.shared("calibration", "sim", "front.yaml").read_text()


def read_messages(folder: Path, topic: str) -> list[bytes]:
    with open(folder / "one" / "one.mcap", "rb") as file:
        return [message.data for _, _, message in make_reader(file).iter_messages(topics=[topic])]


def stamps_of(messages: list[bytes]) -> list[float]:
    return [int.from_bytes(d[4:8], "little") + int.from_bytes(d[8:12], "little") * 1e-9 for d in messages]


def text_of(folder: Path, topic: str) -> str:
    (cdr,) = read_messages(folder, topic)
    return cdr[8:].rstrip(b"\0").decode()


def test_every_message_is_recorded_once_in_order(graph, tmp_path: Path) -> None:
    fixture = RecorderFixture(graph, tmp_path)
    fixture.start_when_ready()
    for _ in range(60):
        fixture.work()
    assert fixture.call("stop").success
    joints, images = read_messages(tmp_path, "/joint_states"), read_messages(tmp_path, "/cameras/wrist/color/image_raw")
    assert len(images) == 60 and len(joints) == 240
    np.testing.assert_allclose(stamps_of(images), fixture.sent, atol=1e-6)
    assert fixture.statuses[-1].dropped == 0


@pytest.mark.any_pace
def test_invalid_requests_are_rejected_in_one_line(graph, tmp_path: Path) -> None:
    fixture = RecorderFixture(graph, tmp_path)
    assert not fixture.call("stop").success and not fixture.call("discard").success
    assert not graph.call(SetBool, "recorder/mark", SetBool.Request(data=True)).success
    assert "no messages on /cameras/front/color/image_raw, " in fixture.start().message
    fixture.start_when_ready()
    assert "already recording" in fixture.start(name="two").message
    assert fixture.call("discard").success
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "files of a discarded episode remain"
    for what, expected in (
        ({"instruction": " "}, "no instruction"),
        ({"name": "../away"}, "not a name for a folder"),
        ({"name": ".hidden"}, "not a name for a folder"),
    ):
        assert expected in fixture.start(**what).message
    fixture.start_when_ready()
    assert fixture.call("stop").success
    graph.until(lambda: "exists" in fixture.start().message, "the episode is overwritten", fixture.work)


def test_camera_without_images_is_reported(graph, tmp_path: Path) -> None:
    fixture = RecorderFixture(graph, tmp_path)
    fixture.start_when_ready()
    silent = graph.reports_fault("recorder", "no messages on /cameras/wrist/color/image_raw")
    graph.until(silent, "fault not reported", lambda: fixture.work(silent="wrist"))
    graph.until(graph.has_no_fault("recorder"), "no recovery", fixture.work)
    assert fixture.call("stop").success


@pytest.mark.any_pace
def test_close_finishes_episode(graph, tmp_path: Path) -> None:
    fixture = RecorderFixture(graph, tmp_path)
    fixture.start_when_ready()
    fixture.work()
    graph.nodes[-1].close()
    assert (tmp_path / "one" / "metadata.yaml").exists()


def test_rosbags_reads_every_message(graph, tmp_path: Path) -> None:
    fixture = RecorderFixture(graph, tmp_path, images="jpeg")
    fixture.start_when_ready()
    for _ in range(10):
        fixture.work()
    assert fixture.call("stop").success
    about = yaml.safe_load((tmp_path / "one" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    topics = {topic["topic_metadata"]["name"]: topic for topic in about["topics_with_message_count"]}
    received: dict[str, list[object]] = {name: [] for name in topics}
    with AnyReader([tmp_path / "one"]) as bag:  # by the definitions in the file alone
        for connection, _, data in bag.messages():
            received[connection.topic].append(bag.deserialize(data, connection.msgtype))
    assert {name: len(found) for name, found in received.items()} == {n: t["message_count"] for n, t in topics.items()}
    assert len(received["/cameras/wrist/color/image_raw/compressed"]) == 10
    assert received["/task"][0].data == "wave"  # type: ignore[attr-defined]
    lasting = [name for name, t in topics.items() if "transient_local" in str(t["topic_metadata"])]
    assert lasting == ["/task", "/episode", "/robot_model", "/calibration/front", "/calibration/wrist"]


def test_png_is_lossless_and_jpeg_keeps_colours() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    back = cv2.imdecode(np.frombuffer(encode(image, "png"), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(back, image)
    image[:] = (200, 100, 50)
    back = cv2.imdecode(np.frombuffer(encode(image, "jpeg"), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(back.astype(int) - image).max() <= 2
    with pytest.raises(GenimaError, match="cannot be compressed"):
        encode(image[:0], "png")


def test_images_beyond_compression_queue_are_counted_as_lost(
    graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = threading.Event()

    def encode_later(image: np.ndarray, images: str) -> bytes:
        busy.wait()
        return encode(image, images)

    monkeypatch.setattr(recorder, "encode", encode_later)
    monkeypatch.setattr(recorder, "_IMAGE_DEPTH", 3)
    fixture = RecorderFixture(graph, tmp_path, images="png")
    try:
        fixture.start_when_ready()
        for _ in range(10):
            fixture.work()
        graph.until(lambda: fixture.statuses[-1].dropped == 2 * (10 - 1 - 3), "not counted")  # one is being compressed
        graph.until(graph.reports_fault("recorder", "lost: 12 messages"), "fault not reported")
    finally:
        busy.set()
    assert fixture.call("stop").success
    images = read_messages(tmp_path, "/cameras/wrist/color/image_raw/compressed")
    assert [round(stamp - fixture.sent[0], 3) for stamp in stamps_of(images)] == [0, 0.033, 0.067, 0.1]
    assert len(read_messages(tmp_path, "/cameras/wrist/color/camera_info")) == 10


@pytest.mark.any_pace
def test_disk_reserve_ends_episode_without_damage(graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = itertools.chain([9.0] * 40, itertools.repeat(1.0))  # GB; asked with every status and every flush
    usage = type("Usage", (), {"free": property(lambda self: next(free) * 1e9)})()
    fixture = RecorderFixture(graph, tmp_path)
    fixture.start_when_ready()
    for _ in range(10):
        fixture.work()
    assert graph.call(SetBool, "recorder/mark", SetBool.Request(data=True)).success
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    graph.until(fixture.reports("the disk has 1.00 GB left"), "problem not reported", fixture.work)
    answer = fixture.call("stop")
    assert answer.success and "ended early (" in answer.message and "1.00 GB" in answer.message
    episode = Episode.load(tmp_path / "one", PANDA)
    assert len(episode) > 5 and episode.success and repair(tmp_path / "one").healthy


@pytest.mark.any_pace
def test_mark_after_end_is_rejected(graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture = RecorderFixture(graph, tmp_path)
    fixture.start_when_ready()
    usage = type("Usage", (), {"free": 1e9})()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    graph.until(fixture.reports("the disk has 1.00 GB left"), "problem not reported", fixture.work)
    answer = graph.call(SetBool, "recorder/mark", SetBool.Request(data=True))
    assert not answer.success and "1.00 GB" in answer.message
    assert "ended early, without a mark" in fixture.call("stop").message


@pytest.mark.any_pace
def test_mark_is_written_at_once_and_last_one_counts(graph, tmp_path: Path) -> None:
    fixture = RecorderFixture(graph, tmp_path)
    fixture.start_when_ready()
    for _ in range(10):
        fixture.work()
    for success in (True, False):
        assert graph.call(SetBool, "recorder/mark", SetBool.Request(data=success)).success
    written = tmp_path / ".partial" / "one" / "one.mcap"
    graph.until(lambda: b"std_msgs/msg/Bool" in written.read_bytes(), "messages remain in memory", fixture.work)
    assert fixture.call("stop").success
    assert [cdr[4] for cdr in read_messages(tmp_path, "/success")] == [1, 0]
    assert Episode.load(tmp_path / "one", PANDA).success is False


@pytest.mark.any_pace
def test_second_recorder_on_same_topics_is_rejected(graph, tmp_path: Path) -> None:
    fixture = RecorderFixture(graph, tmp_path)
    another = graph.publisher(RecorderStatus, "recorder/status", qos.STATUS)
    graph.until(
        lambda: "another recorder runs" in fixture.start().message, "second recorder not detected", fixture.work
    )
    another(RecorderStatus())


@pytest.mark.any_pace
def test_full_disk_is_reported_and_episode_can_be_repaired(small_disk: Path, graph) -> None:
    fixture = RecorderFixture(graph, small_disk, reserve=0.0)
    fixture.start_when_ready()
    (small_disk / "filler").write_bytes(bytes(500_000))
    graph.until(fixture.reports("No space left"), "problem not reported", fixture.work)
    answer = fixture.call("stop")
    assert not answer.success and "No space left" in answer.message and "\n" not in answer.message
    (small_disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert not repair(small_disk / "one").healthy and len(Episode.load(small_disk / "one", PANDA)) > 5
    assert fixture.start(name="two").success or "no messages on" in fixture.start(name="two").message


@pytest.mark.any_pace
def test_second_recorder_of_same_episode_is_rejected(graph, tmp_path: Path) -> None:
    fixture = RecorderFixture(graph, tmp_path)
    with BagRecorder(tmp_path / "one", reserve_bytes=0):
        graph.until(lambda: "is being recorded by process" in fixture.start().message, "not refused", fixture.work)
    assert "exists already" in fixture.start().message or "no messages on" in fixture.start().message


def test_clock_set_back_is_reported_and_no_message_lost(graph, tmp_path: Path) -> None:
    fixture = RecorderFixture(graph, tmp_path, use_sim_time=True)
    publish = graph.publisher(Clock, "/clock", qos.STATUS)
    publish(Clock(clock=messages.time_message(1000.0)))
    fixture.start_when_ready()
    fixture.work()
    publish(Clock(clock=messages.time_message(998.5)))
    graph.until(fixture.reports("set back by 1.500 s"), "problem not reported", fixture.work)
    assert fixture.call("stop").success
    images = read_messages(tmp_path, "/cameras/wrist/color/image_raw")
    np.testing.assert_allclose(sorted(stamps_of(images)), fixture.sent, atol=1e-6)
    with pytest.raises(GenimaError, match="goes back"):  # such an episode is not used for training
        Episode.load(tmp_path / "one", PANDA)


@pytest.mark.any_pace
@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"images": "webp"}, "images is webp; it must be one of raw, jpeg, png"),
        ({"calibration": "nowhere"}, "nowhere"),
        ({"views": ["front", "ceiling"]}, "has no view ceiling"),
        ({"reserve": -1.0}, "reserve"),
    ],
)
def test_invalid_parameters_are_rejected(graph, tmp_path: Path, changes, expected: str) -> None:
    with pytest.raises(GenimaError, match=expected):
        RecorderFixture(graph, tmp_path, **changes)
