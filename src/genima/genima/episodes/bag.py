"""What the bag of a demo holds: a rosbag2 folder (MCAP) that stock ROS tools open; no ROS installation is needed."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from genima.episodes.errors import EpisodeError

TASK = "/task"
SUCCESS = "/success"
JOINT_STATES = "/joint_states"
JOINT_COMMAND = "/joint_command"
RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
PARTIAL = ".partial"  # folder beside the episodes where those being written lie

_TYPES = {
    TASK: "std_msgs/msg/String",
    SUCCESS: "std_msgs/msg/Bool",
    JOINT_STATES: "sensor_msgs/msg/JointState",
    JOINT_COMMAND: "sensor_msgs/msg/JointState",
}
_IMAGES = re.compile(r"/cameras/(?P<view>[^/]+)/color/image_raw(?P<compressed>/compressed)?")


@cache
def types() -> Typestore:
    """The message types of ROS 2 Jazzy."""
    return get_typestore(Stores.ROS2_JAZZY)


def raw_topic(view: str) -> str:
    """Where the images of a view are."""
    return f"/cameras/{view}/color/image_raw"


def compressed_topic(view: str) -> str:
    """Where they are as JPEG or PNG."""
    return f"{raw_topic(view)}/compressed"


def view_of(topic: str) -> str | None:
    """The view whose images a topic carries, if it does."""
    match = _IMAGES.fullmatch(topic)
    return match["view"] if match else None


def read_messages(folder: Path) -> dict[str, list[Any]]:
    """The messages of every topic named here, in the order of their recording; an empty list for a silent topic.

    Raises:
        EpisodeError: for a bag that cannot be read, and a topic of another type.
    """
    messages: dict[str, list[Any]] = {}
    try:
        with AnyReader([folder], default_typestore=types()) as bag:
            connections = []
            for connection in bag.connections:
                expected = _type_of(connection.topic)
                if expected is None:
                    continue
                if connection.msgtype != expected:
                    raise EpisodeError(folder, f"is {connection.msgtype}, {expected} is needed", connection.topic)
                connections.append(connection)
                messages[connection.topic] = []
            for connection, _, raw in bag.messages(connections) if connections else ():
                messages[connection.topic].append(bag.deserialize(raw, connection.msgtype))
    except EpisodeError:
        raise
    except Exception as error:  # rosbags raises many kinds for a damaged file
        raise EpisodeError(folder, f"cannot be read: {' '.join(str(error).split())}") from None
    return messages


def _type_of(topic: str) -> str | None:
    match = _IMAGES.fullmatch(topic)
    if match:
        return COMPRESSED if match["compressed"] else RAW
    return _TYPES.get(topic)
