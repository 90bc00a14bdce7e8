"""Tests of aligning unsynchronised demos; faults are reported with topic and time."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from recorded_messages import JOINTS, START, TYPES, compressed, header, joint_state, message, raw
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from scipy.interpolate import make_interp_spline

from genima.data.episodes import Episode, EpisodeError
from genima.robot.model import RobotModel

DURATION = 2.0  # s
PERIOD = 1 / 30  # s, of the cameras
FRONT, WRIST, LEFT, RIGHT = TOPICS = (
    "/cameras/front/color/image_raw",
    "/cameras/wrist/color/image_raw",
    "/cameras/left_shoulder/color/image_raw/compressed",
    "/cameras/right_shoulder/color/image_raw/compressed",
)
STATES, COMMANDS = "/joint_states", "/joint_command"


def motion(times: Any) -> NDArray[np.float64]:
    """(N, 8): a smooth motion of all joints, the gripper's between open and closed (0 and 0.7 rad)."""
    arm = np.sin(np.outer(times, np.linspace(1.0, 3.0, 7)) + np.arange(7))
    return np.column_stack([arm, 0.35 + 0.3 * np.sin(np.asarray(times))])


def picture(camera: int, i: int) -> NDArray[np.uint8]:
    """Image i of a camera, encoded in its colour."""
    return np.full((4, 6, 3), (i % 256, 40 * camera, 250), np.uint8)


def at_rate(rate: float, rng: np.random.Generator, jitter: float = 0.2, first: float | None = None) -> list[float]:
    """Stamps of a topic in s with a random phase, jittered by a fraction of the period."""
    period = 1 / rate
    times = np.arange(rng.uniform(0, period) if first is None else first, DURATION, period)
    return list(np.round(times + rng.uniform(0, jitter * period, len(times)), 9))


@dataclass(frozen=True)
class Demo:
    """Content of a bag: stamps in s and messages by topic."""

    times: dict[str, list[float]]
    messages: dict[str, list[Any]]

    def without(self, topic: str, lost: Any) -> Demo:
        kept = np.delete(np.arange(len(self.times[topic])), lost)
        times, messages = ([each[topic][i] for i in kept] for each in (self.times, self.messages))
        return Demo(self.times | {topic: times}, self.messages | {topic: messages})

    def replaced(self, topic: str, i: int, other: Any) -> Demo:
        changed = [other if k == i else m for k, m in enumerate(self.messages[topic])]
        return replace(self, messages=self.messages | {topic: changed})

    def stamped(self, topic: str, i: int, time: float) -> Demo:
        return self.replaced(topic, i, replace(self.messages[topic][i], header=header(time)))

    def since_start(self, topic: str, i: int) -> float:
        return self.times[topic][i] - min(times[0] for times in self.times.values())

    def write(self, folder: Path) -> Path:
        with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
            for topic, messages in self.messages.items():
                silent = "sensor_msgs/msg/CompressedImage" if topic.endswith("compressed") else "sensor_msgs/msg/Image"
                kind = messages[0].__msgtype__ if messages else silent
                connection = bag.add_connection(topic, kind, typestore=TYPES)
                for i, each in enumerate(messages):  # in this order, independent of the headers
                    time = self.times[topic][min(i, len(self.times[topic]) - 1)] if topic in self.times else 0.0
                    bag.write(connection, START + round(time * 1e9) + 5_000_000, TYPES.serialize_cdr(each, kind))
        return folder


def make_demo(joint_rate: float = 100.0, command_rate: float = 50.0, seed: int = 0) -> Demo:
    """Two raw and two compressed cameras, unsynchronised; joints in another order in every message."""
    rng = np.random.default_rng(seed)
    times = {topic: at_rate(1 / PERIOD, rng) for topic in TOPICS}
    times |= {STATES: at_rate(joint_rate, rng), COMMANDS: at_rate(command_rate, rng)}
    makers: tuple[Callable[[float, NDArray[np.uint8]], Any], ...] = (
        raw,
        lambda time, image: raw(time, image, "bgr8", padding=2),
        compressed,
        lambda time, image: compressed(time, image, "jpg"),
    )
    messages = {
        topic: [make(time, picture(c, i)) for i, time in enumerate(times[topic])]
        for c, (topic, make) in enumerate(zip(TOPICS, makers, strict=True))
    }
    messages[STATES] = []
    for time, values in zip(times[STATES], motion(times[STATES]), strict=True):
        order = rng.permutation(9)
        names = np.array([*JOINTS, "track_joint"])[order]
        messages[STATES].append(joint_state(time, np.append(values, 9.9)[order], tuple(map(str, names))))
    messages[COMMANDS] = [joint_state(t, np.full(8, i / 1e4)) for i, t in enumerate(times[COMMANDS])]
    messages["/task"] = [message("std_msgs/String", data="wave")]
    return Demo(times, messages)


DEMO = make_demo()


@pytest.mark.parametrize(
    "joint_rate, command_rate", [(30, 20), (30, 1000), (61, 50), (100, 30), (250, 20), (1000, 1000)]
)
def test_alignment_of_images_joints_and_commands(
    joint_rate: float, command_rate: float, tmp_path: Path, robot: RobotModel
) -> None:
    demo = make_demo(joint_rate, command_rate, seed=int(joint_rate + command_rate))
    episode = Episode.load(demo.write(tmp_path / "demo"), robot)
    moments = episode.stamps - START / 1e9  # exact to a quarter of a microsecond
    assert len(episode) >= DURATION / PERIOD - 4 and episode.instruction == "wave" and not episode.success
    assert abs(episode.period - PERIOD) < 0.1 * PERIOD
    assert episode.views == ("front", "left_shoulder", "right_shoulder", "wrist")

    exact = 0
    for camera, topic in enumerate(TOPICS):
        view, stamps = topic.split("/")[2], np.array(demo.times[topic])
        distance = np.abs(moments[:, None] - stamps)
        nearest = distance.argmin(1)
        assert distance.min(1).max() < 0.75 * PERIOD
        exact += distance.min(1).max() < 1e-6 and list(nearest) == list(range(nearest[0], nearest[0] + len(moments)))
        for t, i in enumerate(nearest):
            image = episode.image(view, t)
            assert image.flags.c_contiguous and image.flags.writeable
            assert np.abs(image.astype(int) - picture(camera, i)).max() <= (3 if camera == 3 else 0)  # JPEG loses a bit
    assert exact == 1  # the moments are one camera's, none of its images left out

    assert demo.times[STATES][0] <= moments[0] + 1e-6 and moments[-1] <= demo.times[STATES][-1] + 1e-6
    line = make_interp_spline(demo.times[STATES], motion(demo.times[STATES]), k=1)(moments)
    np.testing.assert_allclose(episode.positions, line[:, :7], atol=2e-6)
    np.testing.assert_allclose(episode.gripper, 1 - line[:, 7] / robot.gripper_closed, atol=2e-6)
    chord = 3.0**2 * (1.4 / joint_rate) ** 2 / 8  # how far a chord strays from the motion: acceleration * step^2 / 8
    assert np.abs(episode.positions - motion(moments)[:, :7]).max() < chord + 2e-6

    following = np.append(moments[1:], moments[-1] + episode.period)
    last = [np.flatnonzero(np.array(demo.times[COMMANDS]) < time - 1e-6)[-1] for time in following]
    np.testing.assert_allclose(episode.command_positions, np.array(last)[:, None] / 1e4 * np.ones(7))
    np.testing.assert_allclose(episode.command_gripper, np.array(last) / 1e4)


@pytest.mark.parametrize("task", ["push_button-1", "take_lid_off_saucepan-1"])
def test_synchronous_recording_round_trip_is_exact(demos_folder: Path, robot: RobotModel, task: str) -> None:
    messages: dict[str, list[Any]] = {}
    with AnyReader([demos_folder / task]) as bag:
        for connection, _, data in bag.messages():
            messages.setdefault(connection.topic, []).append(bag.deserialize(data, connection.msgtype))
    episode = Episode.load(demos_folder / task, robot)
    stamps = [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for m in messages[STATES]]
    np.testing.assert_array_equal(episode.stamps, stamps)
    np.testing.assert_array_equal(episode.positions, [m.position[:7] for m in messages[STATES]])
    np.testing.assert_array_equal(episode.gripper, [robot.open_fraction(m.position[7]) for m in messages[STATES]])
    np.testing.assert_array_equal(episode.command_positions, [m.position[:7] for m in messages[COMMANDS]])
    np.testing.assert_array_equal(episode.command_gripper, [m.position[7] for m in messages[COMMANDS]])
    for view in ("front", "wrist", "left_shoulder", "right_shoulder"):
        images = messages[f"/cameras/{view}/color/image_raw/compressed"]
        assert len(images) == len(episode)
        for t in range(0, len(episode), 9):
            np.testing.assert_array_equal(episode.image(view, t), cv2.imdecode(images[t].data, 1)[..., ::-1])


def test_slowest_camera_sets_sample_times(tmp_path: Path, robot: RobotModel) -> None:
    demo = DEMO.without(WRIST, slice(1, None, 2))
    episode = Episode.load(demo.write(tmp_path / "demo"), robot)
    assert abs(episode.period - 2 * PERIOD) < 0.2 * PERIOD
    assert np.abs(episode.stamps[:, None] - START / 1e9 - demo.times[WRIST]).min(1).max() < 1e-6


def test_duplicate_image_topics_are_used_once(tmp_path: Path, robot: RobotModel) -> None:
    twice = Demo(
        DEMO.times | {f"{FRONT}/compressed": DEMO.times[FRONT]},
        DEMO.messages | {f"{FRONT}/compressed": [compressed(t, picture(3, 99)) for t in DEMO.times[FRONT]]},
    )
    assert (Episode.load(twice.write(tmp_path / "twice"), robot).image("front", 0) == picture(3, 99)).all()
    silent = replace(DEMO, messages=DEMO.messages | {LEFT.removesuffix("/compressed"): [], f"{WRIST}/compressed": []})
    episode = Episode.load(silent.write(tmp_path / "silent"), robot)
    assert (episode.image("left_shoulder", 0)[..., 1] == 80).all() and (episode.image("wrist", 0)[..., 1] == 40).all()


@pytest.mark.parametrize("topic", [FRONT, LEFT, RIGHT, STATES, COMMANDS])
def test_alignment_uses_common_interval(topic: str, tmp_path: Path, robot: RobotModel) -> None:
    demo = DEMO.without(WRIST, slice(1, None, 2))  # so the wrist gives the moments
    third = len(DEMO.times[topic]) // 3
    demo = demo.without(topic, slice(0, third)).without(topic, slice(-third, None))
    moments, first, last = np.array(demo.times[WRIST]), demo.times[topic][0], demo.times[topic][-1]
    period = float(np.median(np.diff(moments)))
    begin, end = {
        STATES: (first, last),
        COMMANDS: (moments[moments <= first][-1], last + 1.5 * period),
    }.get(topic, (first - period / 2, last + period / 2))
    episode = Episode.load(demo.write(tmp_path / "demo"), robot)
    np.testing.assert_allclose(episode.stamps - START / 1e9, moments[(begin <= moments) & (moments <= end)], atol=1e-6)
    assert 5 < len(episode) < 15


def test_late_first_command_is_accepted(tmp_path: Path, robot: RobotModel) -> None:
    demo = DEMO.without(COMMANDS, slice(0, 75))  # 1.5 s
    episode = Episode.load(demo.write(tmp_path / "demo"), robot)
    assert 0.4 / PERIOD <= len(episode) <= 0.6 / PERIOD and episode.command_gripper[0] >= 75 / 1e4


def assert_rejected(
    demo: Demo, folder: Path, robot: RobotModel, topic: str | None, time: float | None, what: str
) -> None:
    """Loading, or reading all images, fails with one line that names episode, topic and time."""
    demo.write(folder)
    with pytest.raises(EpisodeError) as caught:
        episode = Episode.load(folder, robot)
        for view in episode.views:
            for t in range(len(episode)):
                episode.image(view, t)
    error = caught.value
    line = str(error)
    assert (error.episode, error.topic) == (folder, topic) and what in error.what
    assert (error.time is None) if time is None else error.time == pytest.approx(time, abs=1e-6)
    assert str(folder) in line and error.what in line and "\n" not in line
    assert (topic or "") in line and (time is None or f"at {time:.3f} s" in line)


@pytest.mark.parametrize("topic", [*TOPICS, STATES, COMMANDS])
def test_lost_messages_are_reported_by_preceding_message(topic: str, tmp_path: Path, robot: RobotModel) -> None:
    n = len(DEMO.times[topic])
    lost = {STATES: 6, COMMANDS: 3}.get(topic, 2)  # what makes a hole of more than one and a half moments, or images
    demo = DEMO.without(topic, slice(n // 2, n // 2 + lost))
    gap = demo.times[topic][n // 2] - demo.times[topic][n // 2 - 1]
    assert_rejected(demo, tmp_path / "demo", robot, topic, DEMO.since_start(topic, n // 2 - 1), f"{gap:.3f} s later")


@pytest.mark.parametrize("topic", TOPICS)
def test_lost_image_is_replaced_by_neighbour(topic: str, tmp_path: Path, robot: RobotModel) -> None:
    whole = Episode.load(DEMO.write(tmp_path / "whole"), robot)
    n = len(DEMO.times[topic]) // 2
    episode = Episode.load(DEMO.without(topic, n).write(tmp_path / "demo"), robot)
    assert len(episode) == len(whole)
    np.testing.assert_allclose(episode.stamps, whole.stamps, atol=PERIOD / 2)
    np.testing.assert_allclose(episode.positions, whole.positions, atol=3 * PERIOD / 2)
    view = topic.split("/")[2]
    differ = [t for t in range(len(whole)) if (episode.image(view, t) != whole.image(view, t)).any()]
    assert len(differ) <= 2  # moments whose image was that one
    for t in differ:
        neighbours = [whole.image(view, k) for k in range(t - 2, t + 3)]
        assert any((episode.image(view, t) == image).all() for image in neighbours)


def test_joint_states_lost_between_two_images_are_bridged(tmp_path: Path, robot: RobotModel) -> None:
    whole = Episode.load(DEMO.write(tmp_path / "whole"), robot)
    episode = Episode.load(DEMO.without(STATES, slice(100, 102)).write(tmp_path / "demo"), robot)
    np.testing.assert_allclose(episode.positions, whole.positions, atol=3.0**2 * 0.04**2 / 8)  # a chord's error
    np.testing.assert_array_equal(episode.stamps, whole.stamps)


@pytest.mark.parametrize("topic", [FRONT, RIGHT, STATES, COMMANDS])
def test_decreasing_and_repeated_stamps_are_reported(topic: str, tmp_path: Path, robot: RobotModel) -> None:
    i = len(DEMO.times[topic]) // 2
    before = DEMO.times[topic][i - 1]
    time = DEMO.since_start(topic, i - 1)
    assert_rejected(DEMO.stamped(topic, i, before), tmp_path / "same", robot, topic, time, "is the same")
    assert_rejected(
        DEMO.stamped(topic, i, before - 0.25), tmp_path / "back", robot, topic, time, "goes back by 0.250 s"
    )


@pytest.mark.parametrize("topic", [FRONT, LEFT, STATES])
def test_late_and_short_topics_are_reported(topic: str, tmp_path: Path, robot: RobotModel) -> None:
    n, cut = len(DEMO.times[topic]), round(0.6 * len(DEMO.times[topic]))
    late, early = DEMO.without(topic, slice(0, cut)), DEMO.without(topic, slice(n - cut, None))
    assert_rejected(late, tmp_path / "late", robot, topic, late.since_start(topic, 0), "s after /")
    assert_rejected(early, tmp_path / "early", robot, topic, early.since_start(topic, -1), "s before /")


@pytest.mark.parametrize("topic", [FRONT, LEFT, STATES, COMMANDS, "/task"])
def test_topic_without_messages_is_reported(topic: str, tmp_path: Path, robot: RobotModel) -> None:
    demo = replace(DEMO, messages={name: each for name, each in DEMO.messages.items() if name != topic})
    if topic in TOPICS:
        demo = replace(demo, messages=demo.messages | {topic.removesuffix("/compressed"): []})
    assert_rejected(demo, tmp_path / "demo", robot, topic.removesuffix("/compressed"), None, "no messages")


@pytest.mark.parametrize("topic", [STATES, COMMANDS])
@pytest.mark.parametrize(
    "names, values, what",
    [
        (JOINTS[1:], motion(0.0)[0, 1:], "missing (panda_joint1)"),
        ((*JOINTS, JOINTS[2]), [*motion(0.0)[0], 0.0], "duplicate names (panda_joint3)"),
        (JOINTS, [*motion(0.0)[0, :6], np.nan, 0.5], "not finite (panda_joint7)"),
        (JOINTS, motion(0.0)[0, :7], "8 names, 7 values"),
    ],
)
def test_faulty_joint_message_is_reported(
    topic: str, names: tuple[str, ...], values: Any, what: str, tmp_path: Path, robot: RobotModel
) -> None:
    faulty = joint_state(DEMO.times[topic][40], values, names)
    demo = DEMO.replaced(topic, 40, faulty)
    assert_rejected(demo, tmp_path / "demo", robot, topic, DEMO.since_start(topic, 40), what)


def test_gripper_command_out_of_range_is_reported(tmp_path: Path, robot: RobotModel) -> None:
    demo = DEMO.replaced(COMMANDS, 7, joint_state(DEMO.times[COMMANDS][7], np.full(8, 40.0)))
    assert_rejected(demo, tmp_path / "demo", robot, COMMANDS, DEMO.since_start(COMMANDS, 7), "finger_joint is 40,")


def _cut(image: Any) -> Any:
    return replace(image, data=image.data[: len(image.data) // 2])


@pytest.mark.parametrize(
    "topic, change, what",
    [
        (FRONT, lambda image: replace(image, encoding="mono8"), "mono8"),
        (FRONT, _cut, "bytes in rows of 18"),
        (WRIST, lambda image: raw(0.0, np.zeros((8, 6, 3), np.uint8), "bgr8"), "6x8 pixels, the first has 6x4"),
        (LEFT, lambda image: compressed(0.0, np.zeros((4, 4, 3), np.uint8)), "4x4 pixels, the first has 6x4"),
        (LEFT, _cut, "cannot be decoded"),
        (RIGHT, lambda image: replace(image, data=image.data[:-4]), "cannot be decoded"),
        (RIGHT, lambda image: replace(image, data=np.zeros(0, np.uint8)), "0 bytes"),
    ],
)
def test_invalid_image_is_error_on_access(
    topic: str, change: Callable[[Any], Any], what: str, tmp_path: Path, robot: RobotModel
) -> None:
    image = change(DEMO.messages[topic][20])
    demo = DEMO.replaced(topic, 20, replace(image, header=DEMO.messages[topic][20].header))
    assert_rejected(demo, tmp_path / "demo", robot, topic, DEMO.since_start(topic, 20), what)
    Episode.load(tmp_path / "demo", robot)  # which decodes none


def test_demo_of_two_samples_is_too_short(tmp_path: Path, robot: RobotModel) -> None:
    demo = DEMO
    for topic in TOPICS:
        demo = demo.without(topic, slice(2, None))
    assert_rejected(demo, tmp_path / "two", robot, FRONT, demo.since_start(FRONT, 0), "too short: only 2 messages")
    demo = DEMO.without(COMMANDS, slice(3, None))
    assert_rejected(demo, tmp_path / "apart", robot, None, None, "moments have images, joints and a command")


def test_bag_without_messages_or_cameras_is_rejected(tmp_path: Path, robot: RobotModel) -> None:
    assert_rejected(Demo({}, {}), tmp_path / "empty", robot, None, None, "empty")
    blind = replace(DEMO, messages={t: m for t, m in DEMO.messages.items() if t not in TOPICS})
    assert_rejected(blind, tmp_path / "blind", robot, "/cameras/VIEW/color/image_raw", None, "no camera")


def test_empty_instruction_is_reported(tmp_path: Path, robot: RobotModel) -> None:
    demo = replace(DEMO, messages=DEMO.messages | {"/task": [message("std_msgs/String", data=" ")]})
    assert_rejected(demo, tmp_path / "demo", robot, "/task", None, "empty instruction")


def test_joint_states_of_another_type_are_reported(tmp_path: Path, robot: RobotModel) -> None:
    demo = replace(DEMO, messages=DEMO.messages | {STATES: DEMO.messages["/task"]})
    assert_rejected(
        demo, tmp_path / "demo", robot, STATES, None, "is std_msgs/msg/String, sensor_msgs/msg/JointState is"
    )


def test_low_joint_state_rate_is_reported(tmp_path: Path, robot: RobotModel) -> None:
    every_20th = np.delete(np.arange(len(DEMO.times[STATES])), slice(None, None, 20))
    demo = DEMO.without(STATES, every_20th)
    assert_rejected(demo, tmp_path / "demo", robot, STATES, demo.since_start(STATES, 0), "too few")


def test_only_requested_views_are_checked(tmp_path: Path, robot: RobotModel) -> None:
    folder = DEMO.without(WRIST, slice(20, 25)).write(tmp_path / "demo")
    episode = Episode.load(folder, robot, views={"right_shoulder", "front"})
    assert episode.views == ("front", "right_shoulder")
    with pytest.raises(EpisodeError, match="upper_wrist.*no messages"):
        Episode.load(folder, robot, views=("front", "upper_wrist"))
    with pytest.raises(EpisodeError, match="left_shoulder.*no images"):
        episode.image("left_shoulder", 0)


def test_fault_is_picklable(tmp_path: Path) -> None:
    fault = EpisodeError(tmp_path, "lost", FRONT, 1.25)
    other = pickle.loads(pickle.dumps(fault))
    assert str(other) == str(fault) == f"episode {tmp_path}: {FRONT} at 1.250 s: lost"
    assert (other.episode, other.what, other.topic, other.time) == (tmp_path, "lost", FRONT, 1.25)
