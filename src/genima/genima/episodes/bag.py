"""What the bag of a demo holds: a rosbag2 folder (MCAP) that stock ROS tools open; no ROS installation is needed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Nodetype
from rosbags.interfaces.typing import Typesdict
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from genima.episodes.errors import EpisodeError

TASK = "/task"
SUCCESS = "/success"
EPISODE = "/episode"  # who led the arm, and notes: YAML
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


def camera_info_topic(view: str) -> str:
    """Where a view's camera says what its lens does."""
    return f"/cameras/{view}/color/camera_info"


def calibration_topic(view: str) -> str:
    """Where the calibration of a view's camera is, that was in use: its YAML file."""
    return f"/calibration/{view}"


def view_of(topic: str) -> str | None:
    """The view whose images a topic carries, if it does."""
    match = _IMAGES.fullmatch(topic)
    return match["view"] if match else None


def image_topic(spoken: Collection[str], view: str) -> str:
    """Where the images of a view are, by the topics that have messages; of two recordings, the smaller one."""
    return compressed_topic(view) if compressed_topic(view) in spoken else raw_topic(view)


def has_header(fields: Typesdict, msgtype: str) -> bool:
    """Whether messages of a type begin with a header, as all do that say when they were taken.

    Args:
        fields: what types consist of, by name, such as ``Typestore.fielddefs``.
        msgtype: ``package/msg/Name``.
    """
    return next(iter(fields[msgtype][1]), None) == ("header", (Nodetype.NAME, "std_msgs/msg/Header"))


def header_stamp(cdr: bytes | memoryview) -> int:
    """When a message was taken, in ns, by the header that it begins with; nothing else of it is looked at."""
    order: Literal["little", "big"] = "little" if cdr[1] & 1 else "big"
    seconds = int.from_bytes(cdr[4:8], order, signed=True)
    return seconds * 10**9 + int.from_bytes(cdr[8:12], order)


class Recorded(NamedTuple):
    """A message as it was recorded."""

    topic: str
    log_ns: int
    cdr: bytes


class BagReader:
    """Reads a bag message by message; no more than a chunk of its file is in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> BagReader:
        """Open it.

        Raises:
            EpisodeError: for a bag that cannot be read, and when a topic that has a meaning is of another type.
        """
        with _reading(self._folder):
            self._bag = AnyReader([self._folder], default_typestore=types())
            self._bag.open()
        self.types = {connection.topic: connection.msgtype for connection in self._bag.connections}
        try:
            for connection in self._bag.connections:
                expected = _type_of(connection.topic)
                if expected is not None and connection.msgtype != expected:
                    what = f"is {connection.msgtype}, {expected} is needed"
                    raise EpisodeError(self._folder, what, connection.topic)
        except EpisodeError:
            self._bag.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bag.close()

    def messages(self, topics: Collection[str]) -> Iterator[Recorded]:
        """Those of some topics, in the order of their recording.

        Raises:
            EpisodeError: when the file is damaged there.
        """
        connections = [connection for connection in self._bag.connections if connection.topic in topics]
        with _reading(self._folder):
            for connection, log_ns, cdr in self._bag.messages(connections) if connections else ():
                yield Recorded(connection.topic, log_ns, cdr)

    def understood(self, message: Recorded) -> Any:
        """A message with the fields that the bag says it has.

        Raises:
            EpisodeError: when it is damaged.
        """
        with _reading(self._folder):
            return self._bag.deserialize(message.cdr, self.types[message.topic])

    def stamped(self, topic: str) -> bool:
        """Whether the messages of a topic have a header."""
        return has_header(self._bag.typestore.fielddefs, self.types[topic])


def read_messages(folder: Path) -> dict[str, list[Any]]:
    """The messages of every topic named here, in the order of their recording; an empty list for a silent topic.

    Raises:
        EpisodeError: for a bag that cannot be read, and a topic of another type.
    """
    with BagReader(folder) as bag:
        messages: dict[str, list[Any]] = {topic: [] for topic in bag.types if _type_of(topic) is not None}
        for message in bag.messages(messages):
            messages[message.topic].append(bag.understood(message))
    return messages


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # rosbags raises many kinds for a damaged file
        raise EpisodeError(folder, f"cannot be read: {' '.join(str(error).split())}") from None


def _type_of(topic: str) -> str | None:
    match = _IMAGES.fullmatch(topic)
    if match:
        return COMPRESSED if match["compressed"] else RAW
    return _TYPES.get(topic)
