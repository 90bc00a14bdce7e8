"""Bags of demos: rosbag2 folders (MCAP or SQLite), without a ROS installation."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import tempfile
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, NoReturn

import zstandard
from rosbags.interfaces import Nodetype
from rosbags.interfaces.typing import Typesdict
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.folders import PARTIAL as PARTIAL
from genima.data.episodes.folders import is_bag_file
from genima.data.episodes.mcap_file import ALLOWANCE, EXPANSION, McapFile, unpack_zstd
from genima.data.episodes.metadata import METADATA, STORAGES, TYPE_HASH, ZSTD, Information, Topic, load_information
from genima.data.episodes.sqlite_file import SqliteFile
from genima.errors import GenimaError

TASK = "/task"
SUCCESS = "/success"
ROBOT_MODEL = "/robot_model"  # YAML, as in config/robots
SCENE = "/scene"  # task, seed and perturbations of a simulated demo: YAML
SCENE_STATE = "/scene_state"  # configuration of a simulated scene
EPISODE = "/episode"  # operator, leader and notes: YAML
JOINT_STATES = "/joint_states"
JOINT_COMMAND = "/joint_command"
RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"

_DEFINITION_BYTES = 1 << 18  # of a type, in a bag
_TIME_TOLERANCE = 10**9  # ns between metadata.yaml and the times of the messages
_TYPES = {
    TASK: "std_msgs/msg/String",
    SUCCESS: "std_msgs/msg/Bool",
    ROBOT_MODEL: "std_msgs/msg/String",
    SCENE: "std_msgs/msg/String",
    SCENE_STATE: "std_msgs/msg/Float64MultiArray",
    JOINT_STATES: "sensor_msgs/msg/JointState",
    JOINT_COMMAND: "sensor_msgs/msg/JointState",
}
_IMAGES = re.compile(r"/cameras/(?P<view>[^/]+)/color/image_raw(?P<compressed>/compressed)?")


@cache
def types() -> Typestore:
    """Return the message types of ROS 2 Jazzy."""
    return get_typestore(Stores.ROS2_JAZZY)


def raw_topic(view: str) -> str:
    """Return the topic of a view's raw images."""
    return f"/cameras/{view}/color/image_raw"


def compressed_topic(view: str) -> str:
    """Return the topic of a view's JPEG or PNG images."""
    return f"{raw_topic(view)}/compressed"


def camera_info_topic(view: str) -> str:
    """Return the topic of a view's CameraInfo."""
    return f"/cameras/{view}/color/camera_info"


def calibration_topic(view: str) -> str:
    """Return the topic of the calibration (YAML text) in use for a view."""
    return f"/calibration/{view}"


def view_of(topic: str) -> str | None:
    """Return the view of an image topic; None for other topics."""
    match = _IMAGES.fullmatch(topic)
    return match["view"] if match else None


def image_topic(published: Collection[str], view: str) -> str:
    """Return the image topic of a view that has messages; of two recordings, the smaller one."""
    return compressed_topic(view) if compressed_topic(view) in published else raw_topic(view)


def has_header(fields: Typesdict, msgtype: str) -> bool:
    """Return whether messages of a type begin with a header.

    Args:
        fields: fields of types by name, such as ``Typestore.fielddefs``.
        msgtype: ``package/msg/Name``.
    """
    return next(iter(fields[msgtype][1]), None) == ("header", (Nodetype.NAME, "std_msgs/msg/Header"))


def header_stamp(cdr: bytes | memoryview) -> int:
    """Return the stamp (ns) of the header that a message of 12 bytes or more begins with."""
    order: Literal["little", "big"] = "little" if cdr[1] & 1 else "big"
    seconds = int.from_bytes(cdr[4:8], order, signed=True)
    return seconds * 10**9 + int.from_bytes(cdr[8:12], order)


class BagMessage(NamedTuple):
    """Recorded message."""

    topic: str
    log_ns: int
    cdr: bytes
    publish_ns: int = 0


class BagReader:
    """Reader of a bag, message by message; only a few chunks are in memory.

    The files' content is compared with metadata.yaml. A topic of an unknown type, or one that differs from ROS 2
    Jazzy's, is no fault of the bag: it is in ``unread``, and its messages can be copied but not deserialized.

    Attributes:
        types: of the messages, by topic.
        topics: as the files describe them, by name; without a definition in the bag, with that of ROS 2 Jazzy.
        counts: messages by topic.
        unread: reason why a topic cannot be deserialized, by topic.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.types: dict[str, str] = {}
        self.topics: dict[str, Topic] = {}
        self.counts: dict[str, int] = {}
        self.unread: dict[str, str] = {}

    def __enter__(self) -> BagReader:
        """Open the bag.

        Raises:
            EpisodeError: for a bag that cannot be read or differs from its metadata.yaml, and a known topic of another
                type.
        """
        with contextlib.ExitStack() as stack:
            with _reading(self._folder):
                self._open(stack)
            self._stack = stack.pop_all()
        for topic, msgtype in self.types.items():
            expected = _type_of(topic)
            if expected is None or (msgtype == expected and topic not in self.unread):
                continue
            self._stack.close()
            what = f"is {msgtype or 'of no type'}, {expected} is needed" if msgtype != expected else self.unread[topic]
            raise EpisodeError(self._folder, what, topic)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]:
        """Yield the messages of some topics, in the order of their recording.

        Raises:
            EpisodeError: for a damaged file, or other counts than its index has.
        """
        found = {topic: 0 for topic in topics if topic in self.types}
        with _reading(self._folder):
            for file in self._files if found else ():
                for topic, log_ns, publish_ns, data in file.messages(found):
                    cdr = unpack_zstd(data) if self._packed else bytes(data)
                    if len(cdr) < 12 and topic in self._stamped:
                        raise GenimaError(f"{topic}: a message of {len(cdr)} bytes")
                    found[topic] += 1
                    yield BagMessage(topic, log_ns, cdr, publish_ns)
            for topic, count in found.items():
                if count != self.counts[topic]:
                    self._refuse(f"{topic} has {count} messages, its file lists {self.counts[topic]}")

    def deserialize(self, message: BagMessage) -> Any:
        """Return the deserialized message.

        Raises:
            EpisodeError: for a damaged message, or a topic that cannot be deserialized.
        """
        if message.topic in self.unread:
            raise EpisodeError(self._folder, self.unread[message.topic], message.topic)
        with _reading(self._folder):
            try:
                return types().deserialize_cdr(message.cdr, self.types[message.topic])
            except Exception as error:  # rosbags raises many kinds for a damaged message
                raise GenimaError(f"{message.topic}: {' '.join(str(error).split())}") from None

    @property
    def start_ns(self) -> int:
        """Log time of the first message in ns; 0 without messages."""
        return min((file.first_ns for file in self._files if file.first_ns is not None), default=0)

    def stamped(self, topic: str) -> bool:
        """Return whether the messages of a topic have a header."""
        return topic in self._stamped

    def _open(self, stack: contextlib.ExitStack) -> None:
        information = self._information()
        self._packed = information.compression == "message"
        paths = [self._folder / name for name in information.files]
        if missing := [path.name for path in paths if not path.is_file()]:
            self._refuse(f"{missing[0]} is missing")
        listed = {name.removesuffix(ZSTD) for name in information.files}
        for other in sorted(path.name for path in self._folder.iterdir() if is_bag_file(path.name)):
            if other.removesuffix(ZSTD) not in listed:
                self._refuse(f"{METADATA} does not list {other}")
        if information.compression == "file":
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="genima_bag_")))
            paths = [unpack_file(path, place) for path in paths]
        self._files: list[McapFile | SqliteFile] = []
        for path in paths:
            storage = STORAGES.get(path.suffix)
            if storage is None or information.storage_identifier not in ("", storage):
                self._refuse(f"{path.name} is no file of storage {information.storage_identifier!r}")
            try:
                file = McapFile(path) if storage == "mcap" else SqliteFile(path)
            except GenimaError as error:
                self._refuse(str(error))
            stack.callback(file.close)
            self._files.append(file)
        self._describe()
        self._compare(information)

    def _information(self) -> Information:
        if not self._folder.is_dir():
            raise GenimaError("no such folder")
        try:
            return load_information(self._folder)
        except GenimaError as error:
            self._refuse(f"no {METADATA}" if not (self._folder / METADATA).exists() else str(error))

    def _describe(self) -> None:
        """Merge the topics of all files, and find those that can be deserialized."""
        self._stamped: set[str] = set()
        for file in self._files:
            for topic in file.topics:
                known = self.topics.setdefault(topic.name, topic)
                if (known.msgtype, known.definition) != (topic.msgtype, topic.definition):
                    self.unread[topic.name] = f"has several types or definitions of {known.msgtype or 'no type'}"
            for name, count in file.counts.items():
                self.counts[name] = self.counts.get(name, 0) + count
        for name, topic in self.topics.items():
            self.types[name] = topic.msgtype
            try:
                fields = message_fields(topic)
            except GenimaError as error:
                self.unread.setdefault(name, str(error))
                continue
            if has_header(fields, topic.msgtype):
                self._stamped.add(name)
            if not topic.definition:
                self.topics[name] = with_definition(topic)
        self._stamped -= self.unread.keys()

    def _compare(self, information: Information) -> None:
        listed_counts = information.counts
        for name in sorted(listed_counts.keys() | self.counts.keys()):
            wanted, found = listed_counts.get(name, 0), self.counts.get(name, 0)
            if wanted != found:
                self._refuse(f"{name}: {METADATA} lists {wanted} messages, the files hold {found}")
        for each in (topic.topic_metadata for topic in information.topics_with_message_count):
            if each.type != self.types.get(each.name, each.type):
                self._refuse(f"{each.name} is {self.types[each.name]}, {METADATA} lists {each.type}")
        if information.message_count != sum(self.counts.values()):
            what = f"{METADATA} lists {information.message_count} messages in all, the files hold"
            self._refuse(f"{what} {sum(self.counts.values())}")
        if not span_fits(information, [(file.first_ns, file.last_ns) for file in self._files]):
            self._refuse(f"{METADATA} lists other times than the files have")

    def _refuse(self, what: str) -> NoReturn:
        raise GenimaError(f"{what}; try: ./genima episodes repair {shlex.quote(str(self._folder))}")


def read_messages(folder: Path) -> dict[str, list[Any]]:
    """Return the messages of every topic named here, in the order of their recording; empty topics included.

    Raises:
        EpisodeError: for a bag that cannot be read, and a topic of another type.
    """
    with BagReader(folder) as bag:
        messages: dict[str, list[Any]] = {topic: [] for topic in bag.types if _type_of(topic) is not None}
        for message in bag.messages(messages):
            messages[message.topic].append(bag.deserialize(message))
    return messages


def span_fits(information: Information, spans: Collection[tuple[int | None, int | None]]) -> bool:
    """Return whether metadata.yaml has the times of its files, of which ``spans`` has the first and the last (ns)."""
    firsts = [first for first, _ in spans if first is not None]
    lasts = [last for _, last in spans if last is not None]
    if not firsts or not lasts:
        return True
    start = information.starting_time.nanoseconds_since_epoch
    return (
        abs(start - min(firsts)) <= _TIME_TOLERANCE
        and abs(start + information.duration.nanoseconds - max(lasts)) <= _TIME_TOLERANCE
    )


def message_fields(topic: Topic) -> Typesdict:
    """Return the fields of a topic's type and its nested types, by the bag's definitions or by Jazzy's.

    Raises:
        GenimaError: for a type that is unknown, or differs from the bag's definition.
    """
    ours = types().fielddefs
    if topic.encoding != "cdr":
        raise GenimaError(f"messages in encoding {topic.encoding or 'unknown'} are not read")
    if topic.schema == "ros2msg" and topic.definition.strip():
        fields = _parsed(topic.msgtype, topic.definition)
        if topic.msgtype in ours and any(
            name in ours and list(found[1]) != list(ours[name][1]) for name, found in fields.items()
        ):
            raise GenimaError(f"its definition of {topic.msgtype} is not ROS 2's")
        return fields
    if topic.msgtype not in ours:
        what = f"no definition that is read ({topic.schema})" if topic.definition else "no definition"
        raise GenimaError(f"{what} of {topic.msgtype or 'its type'} in the bag")
    hashed = topic.notes.get(TYPE_HASH, "")
    if hashed and hashed != types().hash_rihs01(topic.msgtype):
        raise GenimaError(f"no definition in the bag, and its {topic.msgtype} is not that of ROS 2 Jazzy")
    return ours


def with_definition(topic: Topic) -> Topic:
    """Return a topic with ROS 2 Jazzy's definition of its type."""
    text, _ = types().generate_msgdef(topic.msgtype, ros_version=2)
    notes = {**topic.notes, TYPE_HASH: topic.notes.get(TYPE_HASH) or types().hash_rihs01(topic.msgtype)}
    return topic._replace(schema="ros2msg", definition=text.encode(), notes=notes)


@cache
def _parsed(msgtype: str, definition: bytes) -> Typesdict:
    """Parse a definition into types and names, without generating code."""
    if len(definition) > _DEFINITION_BYTES:
        raise GenimaError(f"a definition of {msgtype} of {len(definition)} bytes")
    try:
        fields = get_types_from_msg(definition.decode().replace("\r\n", "\n"), msgtype)
    except Exception as error:  # rosbags raises many kinds
        raise GenimaError(f"its definition of {msgtype} cannot be read ({' '.join(str(error).split())[:80]})") from None
    if msgtype not in fields:
        raise GenimaError(f"its definition of {msgtype} cannot be read")
    return fields


def unpack_file(path: Path, place: Path) -> Path:
    """Decompress a file into a temporary folder; return its path.

    Raises:
        GenimaError: when it is damaged, or unpacks to more than the limits and the disk allow.
    """
    out = place / path.name.removesuffix(ZSTD)
    limit = path.stat().st_size * EXPANSION + ALLOWANCE
    room = shutil.disk_usage(place).free - ALLOWANCE
    size = 0
    command = f"zstd -d {shlex.quote(str(path))} && ./genima episodes repair {shlex.quote(str(path.parent))}"
    try:
        with open(path, "rb") as file, open(out, "wb") as unpacked:
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            while data := reader.read(1 << 20):
                size += len(data)
                if size > min(limit, room):
                    raise GenimaError(f"{path.name}: unpacks to more than {size - len(data)} bytes; try: {command}")
                unpacked.write(data)
    except zstandard.ZstdError as error:
        raise GenimaError(f"{path.name}: damaged ({' '.join(str(error).split())})") from None
    return out


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except EpisodeError:
        raise
    except GenimaError as error:
        raise EpisodeError(folder, f"cannot be read: {error}") from None
    except OSError as error:
        raise EpisodeError(folder, f"cannot be read: {error.strerror or error}") from None


def _type_of(topic: str) -> str | None:
    match = _IMAGES.fullmatch(topic)
    if match:
        return COMPRESSED if match["compressed"] else RAW
    return _TYPES.get(topic)
