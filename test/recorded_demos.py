"""Demos as bags that tests modify: topics with different rates, and messages with recording delay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recorded_messages import START, compressed, header, joint_state, message, raw
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from genima.data.episodes.bag_recorder import BagRecorder
from genima.data.episodes.metadata import Qos
from genima.io import paths

FRONT, WRIST = "/cameras/front/color/image_raw/compressed", "/cameras/wrist/color/image_raw"
FRONT_INFO, WRIST_INFO = "/cameras/front/color/camera_info", "/cameras/wrist/color/camera_info"
STATES, COMMANDS, TELEOP, LEADER = "/joint_states", "/joint_command", "/teleop/command", "/leader/joint_states"
RATES = {FRONT: 30, WRIST: 30, FRONT_INFO: 30, WRIST_INFO: 30, STATES: 100, COMMANDS: 50, TELEOP: 50, LEADER: 50}
PHASES = dict(zip(RATES, (0.003, 0.011, 0.003, 0.011, 0.0, 0.004, 0.002, 0.001), strict=True))  # s
SECONDS, DELAY = 4.0, 0.005
HOME = np.array([0.0, -0.35, 0.0, -2.35, 0.0, 2.0, 0.785, 0.35])  # gripper half open; rad
JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
K = np.array([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]])  # px
EXPERT = "operator: Ada\nnotes: by hand\n"
FORCE = "std_msgs/Header header\nfloat64 force\n"
LATCHED = Qos(depth=1, durability="transient_local")
TYPES = get_typestore(Stores.ROS2_JAZZY)
TYPES.register(get_types_from_msg(FORCE, "lab_msgs/msg/Force"))


@dataclass(frozen=True)
class BagEntry:
    """Message and its recording time in s."""

    message: Any
    log: float

    @property
    def time(self) -> float:
        stamp = self.message.header.stamp
        return stamp.sec + stamp.nanosec / 1e9 - START / 1e9


@dataclass(frozen=True)
class Demo:
    """Content of a bag by topic."""

    entries: Mapping[str, list[BagEntry]]
    qos: Mapping[str, Qos] = field(default_factory=dict)

    def times(self, topic: str) -> NDArray[np.float64]:
        return np.array([entry.log - DELAY for entry in self.entries[topic]])

    def without(self, topic: str) -> Demo:
        return replace(self, entries={name: entries for name, entries in self.entries.items() if name != topic})

    def with_entries(self, topic: str, entries: list[BagEntry]) -> Demo:
        return replace(self, entries={**self.entries, topic: entries})

    def drop(self, topic: str, which: slice) -> Demo:
        kept = np.delete(np.arange(len(self.entries[topic])), which)
        return self.with_entries(topic, [self.entries[topic][i] for i in kept])

    def changed(self, topic: str, which: slice, change: Callable[[BagEntry], BagEntry]) -> Demo:
        entries = list(self.entries[topic])
        entries[which] = [change(entry) for entry in entries[which]]
        return self.with_entries(topic, entries)

    def write(self, folder: Path) -> Path:
        with BagRecorder(folder, reserve_bytes=0, definitions={"lab_msgs/msg/Force": FORCE}) as bag:
            all_entries = []
            for topic, entries in self.entries.items():
                kind = entries[0].message.__msgtype__ if entries else "sensor_msgs/msg/JointState"
                bag.add_topic(topic, kind, self.qos.get(topic, Qos(depth=1)))
                all_entries += [(START + round(entry.log * 1e9), topic, entry.message) for entry in entries]
            for log, topic, message in sorted(all_entries, key=lambda entry: entry[0]):
                cdr = bytes(TYPES.serialize_cdr(message, message.__msgtype__))
                bag.write(topic, cdr, log, log - 1000, wait=True)
        return folder


def motion(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return joints with the gripper's (N, 8) in rad; some joint always moves."""
    angles = np.outer(times, np.linspace(1.5, 2.5, 8)) + np.arange(8)
    return HOME + 0.25 * np.sin(angles)


def picture(i: int) -> NDArray[np.uint8]:
    return np.random.default_rng(i).integers(20, 230, (24, 32, 3), np.uint8)


def entry_at(time: float, message: Any) -> BagEntry:
    return BagEntry(message, time + DELAY)


def text(value: str) -> Any:
    return message("std_msgs/String", data=value)


def camera_info(time: float) -> Any:
    roi = message("sensor_msgs/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return message(
        "sensor_msgs/CameraInfo",
        header=header(time), height=24, width=32, distortion_model="plumb_bob", d=np.zeros(5), k=K.ravel(),
        r=np.eye(3).ravel(), p=np.eye(3, 4).ravel(), binning_x=0, binning_y=0, roi=roi,
    )  # fmt: skip


def make_demo(
    warp: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda times: times, seconds: float = SECONDS
) -> Demo:
    """Return a demo without faults; ``warp`` maps message times to times of the motion."""
    times = {topic: np.arange(PHASES[topic], seconds, 1 / rate) for topic, rate in RATES.items()}
    entries = {
        FRONT: [entry_at(t, compressed(t, picture(i))) for i, t in enumerate(times[FRONT])],
        WRIST: [entry_at(t, raw(t, picture(1000 + i))) for i, t in enumerate(times[WRIST])],
    }
    entries |= {topic: [entry_at(t, camera_info(t)) for t in times[topic]] for topic in (FRONT_INFO, WRIST_INFO)}
    for topic in (STATES, COMMANDS, TELEOP, LEADER):
        values = motion(warp(times[topic]))
        names = (*JOINTS, "finger_joint")
        if topic == LEADER:
            names = tuple(f"servo_{i}" for i in range(8))
        elif topic != STATES:
            values[:, 7] = 1 - values[:, 7] / 0.7
        entries[topic] = [entry_at(t, joint_state(t, row, names)) for t, row in zip(times[topic], values, strict=True)]
    # as the recorder stores it
    robot_model = paths.config_file("panda", "config", "robots").read_text(encoding="utf-8")
    latched = {"/task": text("wave"), "/episode": text(EXPERT), "/robot_model": text(robot_model)}
    entries |= {topic: [BagEntry(message_, 0.0)] for topic, message_ in latched.items()}
    entries["/success"] = [BagEntry(message("std_msgs/Bool", data=True), seconds)]
    return Demo(entries, dict.fromkeys((*latched, "/success"), LATCHED))


CLEAN = make_demo()
SHORT = make_demo(seconds=0.8)


def stamped(time: float) -> Callable[[BagEntry], BagEntry]:
    return lambda entry: replace(entry, message=replace(entry.message, header=header(time)))


def logged(delay: float) -> Callable[[BagEntry], BagEntry]:
    return lambda entry: replace(entry, log=entry.log + delay)


def image(pixels: NDArray[np.uint8]) -> Callable[[BagEntry], BagEntry]:
    def change(entry: BagEntry) -> BagEntry:
        make = raw if entry.message.__msgtype__ == "sensor_msgs/msg/Image" else compressed
        return replace(entry, message=make(entry.time, pixels))

    return change
