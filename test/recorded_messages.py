"""ROS messages of recordings, made without ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from genima.data.episodes.bag_recorder import BagRecorder
from genima.data.episodes.metadata import Qos
from genima.types import Image

TYPES = get_typestore(Stores.ROS2_JAZZY)
START = 1_700_000_000 * 10**9  # ns
JOINTS = (*(f"panda_joint{i}" for i in range(1, 8)), "finger_joint")


def message(kind: str, **fields: Any) -> Any:
    package, name = kind.split("/")
    return TYPES.types[f"{package}/msg/{name}"](**fields)


def header(time: float) -> Any:
    stamp = START + round(time * 1e9)
    time_message = message("builtin_interfaces/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)
    return message("std_msgs/Header", stamp=time_message, frame_id="")


def raw(time: float, image: NDArray[np.uint8], encoding: str = "rgb8", padding: int = 0) -> Any:
    h, w, _ = image.shape
    pixels = image if encoding == "rgb8" else image[..., ::-1]
    rows = np.pad(pixels.reshape(h, 3 * w), ((0, 0), (0, padding)), constant_values=77)
    return message(
        "sensor_msgs/Image",
        header=header(time), height=h, width=w, encoding=encoding, is_bigendian=0, step=3 * w + padding,
        data=rows.ravel(),
    )  # fmt: skip


def compressed(time: float, image: NDArray[np.uint8], kind: str = "png") -> Any:
    data = cv2.imencode(f".{kind}", image[..., ::-1])[1].ravel()
    return message(
        "sensor_msgs/CompressedImage", header=header(time), format=f"rgb8; {kind} compressed bgr8", data=data
    )


def joint_state(time: float, values: NDArray[np.float64], names: tuple[str, ...] = JOINTS) -> Any:
    return message(
        "sensor_msgs/JointState",
        header=header(time), name=list(names), position=np.array(values), velocity=np.zeros(0), effort=np.zeros(0),
    )  # fmt: skip


def table(x: int, size: int = 200) -> Image:
    """Return an image of a grey table with a dark square from column x."""
    image = np.full((size, size, 3), 160, np.uint8)
    image[80:120, x : x + 40] = (90, 40, 30)
    return image


def record(folder: Path, streams: Mapping[str, Sequence[Any]], chunk_bytes: int = 1 << 20) -> Path:
    """Write a bag of messages with headers by topic, one of each topic in turn."""
    recorder = BagRecorder(folder, reserve_bytes=0, chunk_bytes=chunk_bytes)
    for topic, messages in streams.items():
        recorder.add_topic(topic, messages[0].__msgtype__, Qos())
    for i in range(max(map(len, streams.values()))):
        for topic, messages in streams.items():
            if i < len(messages):
                cdr = TYPES.serialize_cdr(messages[i], messages[i].__msgtype__)
                recorder.write(topic, cdr, 10**9 + i * 10**7, wait=True)
    recorder.finish()
    return folder
