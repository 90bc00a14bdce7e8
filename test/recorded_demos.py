"""Demos as bags that tests change: topics with rates of their own, and messages that were recorded late."""

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
HOME = np.array([0.0, -0.35, 0.0, -2.35, 0.0, 2.0, 0.785, 0.35])  # the gripper's half open, in rad
JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
K = np.array([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]])  # px
EXPERT = "operator: Ada\nnotes: by hand\n"
FORCE = "std_msgs/Header header\nfloat64 force\n"
LATCHED = Qos(depth=1, durability="transient_local")
TYPES = get_typestore(Stores.ROS2_JAZZY)
TYPES.register(get_types_from_msg(FORCE, "lab_msgs/msg/Force"))


@dataclass(frozen=True)
class BagEntry:
    """Message and the time of its recording in s."""

    message: Any
    log: float

    @property
    def time(self) -> float:
        stamp = self.message.header.stamp
        return stamp.sec + stamp.nanosec / 1e9 - START / 1e9


@dataclass(frozen=True)
class Demo:
    """Content of a bag by topic."""

    said: Mapping[str, list[BagEntry]]
    qos: Mapping[str, Qos] = field(default_factory=dict)

    def times(self, topic: str) -> NDArray[np.float64]:
        return np.array([said.log - DELAY for said in self.said[topic]])

    def without(self, topic: str) -> Demo:
        return replace(self, said={name: said for name, said in self.said.items() if name != topic})

    def but(self, topic: str, said: list[BagEntry]) -> Demo:
        return replace(self, said={**self.said, topic: said})

    def lost(self, topic: str, which: slice) -> Demo:
        return self.but(topic, [self.said[topic][i] for i in np.delete(np.arange(len(self.said[topic])), which)])

    def changed(self, topic: str, which: slice, change: Callable[[BagEntry], BagEntry]) -> Demo:
        said = list(self.said[topic])
        said[which] = [change(each) for each in said[which]]
        return self.but(topic, said)

    def write(self, folder: Path) -> Path:
        with BagRecorder(folder, reserve_bytes=0, definitions={"lab_msgs/msg/Force": FORCE}) as bag:
            everything = []
            for topic, said in self.said.items():
                kind = said[0].message.__msgtype__ if said else "sensor_msgs/msg/JointState"
                bag.add_topic(topic, kind, self.qos.get(topic, Qos(depth=1)))
                everything += [(START + round(each.log * 1e9), topic, each.message) for each in said]
            for log, topic, each in sorted(everything, key=lambda one: one[0]):
                cdr = bytes(TYPES.serialize_cdr(each, each.__msgtype__))
                bag.write(topic, cdr, log, log - 1000, wait=True)
        return folder


def motion(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 8): joints and the gripper's, in rad; something always moves."""
    angles = np.outer(times, np.linspace(1.5, 2.5, 8)) + np.arange(8)
    return HOME + 0.25 * np.sin(angles)


def picture(i: int) -> NDArray[np.uint8]:
    return np.random.default_rng(i).integers(20, 230, (24, 32, 3), np.uint8)


def told(time: float, message: Any) -> BagEntry:
    return BagEntry(message, time + DELAY)


def text(words: str) -> Any:
    return message("std_msgs/String", data=words)


def camera_info(time: float) -> Any:
    roi = message("sensor_msgs/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return message(
        "sensor_msgs/CameraInfo",
        header=header(time), height=24, width=32, distortion_model="plumb_bob", d=np.zeros(5), k=K.ravel(),
        r=np.eye(3).ravel(), p=np.eye(3, 4).ravel(), binning_x=0, binning_y=0, roi=roi,
    )  # fmt: skip


def recorded(
    warp: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda times: times, seconds: float = SECONDS
) -> Demo:
    """A demo without a fault, which moves as far as ``warp`` says."""
    times = {topic: np.arange(PHASES[topic], seconds, 1 / rate) for topic, rate in RATES.items()}
    said = {
        FRONT: [told(t, compressed(t, picture(i))) for i, t in enumerate(times[FRONT])],
        WRIST: [told(t, raw(t, picture(1000 + i))) for i, t in enumerate(times[WRIST])],
    }
    said |= {topic: [told(t, camera_info(t)) for t in times[topic]] for topic in (FRONT_INFO, WRIST_INFO)}
    for topic in (STATES, COMMANDS, TELEOP, LEADER):
        values = motion(warp(times[topic]))
        names = (*JOINTS, "finger_joint")
        if topic == LEADER:
            names = tuple(f"servo_{i}" for i in range(8))
        elif topic != STATES:
            values[:, 7] = 1 - values[:, 7] / 0.7
        said[topic] = [told(t, joint_state(t, row, names)) for t, row in zip(times[topic], values, strict=True)]
    robot_model = paths.config_file("panda", "config", "robots").read_text(
        encoding="utf-8"
    )  # as the recorder stores it
    lasting = {"/task": text("wave"), "/episode": text(EXPERT), "/robot_model": text(robot_model)}
    said |= {topic: [BagEntry(words, 0.0)] for topic, words in lasting.items()}
    said["/success"] = [BagEntry(message("std_msgs/Bool", data=True), seconds)]
    return Demo(said, dict.fromkeys((*lasting, "/success"), LATCHED))


CLEAN = recorded()
SHORT = recorded(seconds=0.8)


def stamped(time: float) -> Callable[[BagEntry], BagEntry]:
    return lambda said: replace(said, message=replace(said.message, header=header(time)))


def logged(delay: float) -> Callable[[BagEntry], BagEntry]:
    return lambda said: replace(said, log=said.log + delay)


def image(pixels: NDArray[np.uint8]) -> Callable[[BagEntry], BagEntry]:
    def change(said: BagEntry) -> BagEntry:
        make = raw if said.message.__msgtype__ == "sensor_msgs/msg/Image" else compressed
        return replace(said, message=make(said.time, pixels))

    return change
