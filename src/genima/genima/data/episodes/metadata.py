"""Metadata of rosbag2: metadata.yaml of versions 1 to 9, and the records inside an MCAP file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any, Literal, NamedTuple

import yaml
from mcap.writer import CompressionType, Writer
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from genima.data.episodes.folders import METADATA as METADATA
from genima.errors import GenimaError
from genima.io.files import YAML_BYTES, parse_yaml, read_text, shorten, validate

Compression = Literal["none", "lz4", "zstd"]  # of chunks

PROFILE = "ros2"  # in the header of the file
QOS, TYPE_HASH = "offered_qos_profiles", "topic_type_hash"  # in the metadata of a channel
STORAGES = {".mcap": "mcap", ".db3": "sqlite3"}  # storage_identifier by suffix
ZSTD = ".zstd"  # suffix of a file that is compressed as a whole

_VERSION = 9
_INFINITE = 2**63 - 1  # ns
_INFORMATION = "rosbag2_bagfile_information"
_NAMES = {  # of rmw's enumerations: rosbag2 stored numbers before version 9
    "history": ("system_default", "keep_last", "keep_all", "unknown"),
    "reliability": ("system_default", "reliable", "best_effort", "unknown", "best_available"),
    "durability": ("system_default", "transient_local", "volatile", "unknown", "best_available"),
    "liveliness": ("system_default", "automatic", "manual_by_node", "manual_by_topic", "unknown", "best_available"),
}

# ----------------------------------------------------------------------------------------------------------------- QoS


@dataclass(frozen=True)
class Qos:
    """QoS profile of a topic; durations in ns, None for infinite."""

    depth: int = 10
    reliability: Literal["reliable", "best_effort", "system_default", "unknown"] = "reliable"
    durability: Literal["volatile", "transient_local", "system_default", "unknown"] = "volatile"
    history: Literal["keep_last", "keep_all", "system_default", "unknown"] = "keep_last"
    deadline: int | None = None
    lifespan: int | None = None
    liveliness: Literal["automatic", "manual_by_topic", "system_default", "unknown"] = "automatic"
    liveliness_lease_duration: int | None = None
    avoid_ros_namespace_conventions: bool = False

    def __str__(self) -> str:
        """Return rosbag2's text: a YAML list of one profile."""
        profile = {
            "history": self.history,
            "depth": self.depth,
            "reliability": self.reliability,
            "durability": self.durability,
            "deadline": _duration(self.deadline),
            "lifespan": _duration(self.lifespan),
            "liveliness": self.liveliness,
            "liveliness_lease_duration": _duration(self.liveliness_lease_duration),
            "avoid_ros_namespace_conventions": self.avoid_ros_namespace_conventions,
        }
        return _dump([profile])


class _Schema(BaseModel):
    """Base of rosbag2's schemas: unknown fields are ignored, as each version adds some."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, strict=True, frozen=True)


class _Seconds(_Schema):
    sec: int
    nsec: int


def _qos_name(kind: str) -> BeforeValidator:
    names = _NAMES[kind]

    def name(value: Any) -> Any:
        if type(value) is int and 0 <= value < len(names):
            return names[value]
        return value

    return BeforeValidator(name)


class _Profile(_Schema):
    history: Annotated[str, _qos_name("history")]
    depth: Annotated[int, Field(ge=0)]
    reliability: Annotated[str, _qos_name("reliability")]
    durability: Annotated[str, _qos_name("durability")]
    deadline: _Seconds
    lifespan: _Seconds
    liveliness: Annotated[str, _qos_name("liveliness")]
    liveliness_lease_duration: _Seconds
    avoid_ros_namespace_conventions: bool


def qos_profiles(stored: Any) -> list[dict[str, Any]]:
    """Return the QoS profiles that rosbag2 stored, with names in place of numbers; none for an empty value.

    Args:
        stored: the text of a channel or of versions 4 to 8, or the list of version 9.

    Raises:
        GenimaError: when it is no list of complete profiles.
    """
    if not stored:
        return []
    what = f"not the QoS profiles of a topic ({shorten(str(stored))})"
    profiles = parse_yaml(stored, what) if isinstance(stored, str) else stored
    return [profile.model_dump() for profile in validate(list[_Profile], profiles or [], what)]


# ------------------------------------------------------------------------------------------------------- metadata.yaml


class Topic(NamedTuple):
    """Topic of a bag."""

    name: str
    msgtype: str  # package/msg/Name; empty where unknown
    encoding: str  # of its messages: cdr
    notes: Mapping[str, str]  # QOS and TYPE_HASH, as rosbag2 stores them
    schema: str = ""  # encoding of the definition: ros2msg, ros2idl; empty when the file has none
    definition: bytes = b""  # of the type


class _Nanoseconds(_Schema):
    nanoseconds: int


class _Epoch(_Schema):
    nanoseconds_since_epoch: int


class _TopicMetadata(_Schema):
    name: str
    type: str
    serialization_format: str
    offered_qos_profiles: Any = ""
    type_description_hash: str | None = None


class _TopicCount(_Schema):
    topic_metadata: _TopicMetadata
    message_count: Annotated[int, Field(ge=0)]


class Information(_Schema):
    """Content of metadata.yaml."""

    version: Annotated[int, Field(ge=1, le=_VERSION)]
    storage_identifier: Literal["", "mcap", "sqlite3"]
    duration: _Nanoseconds
    starting_time: _Epoch
    message_count: Annotated[int, Field(ge=0)]
    topics_with_message_count: list[_TopicCount]
    compression_format: str | None = None
    compression_mode: str | None = None
    relative_file_paths: Annotated[list[str], Field(min_length=1)]
    custom_data: Any = None
    ros_distro: str | None = None

    @property
    def files(self) -> list[str]:
        """Names of the bag's files, in order; versions before 4 put the folder before them."""
        return [PurePosixPath(path).name for path in self.relative_file_paths]

    @property
    def compression(self) -> str:
        """Return rosbag2's compression mode: ``file``, ``message``, or empty for none."""
        mode = (self.compression_mode or "").lower()
        return "" if mode == "none" else mode

    @property
    def counts(self) -> dict[str, int]:
        """Return the message counts by topic."""
        counts: dict[str, int] = {}
        for topic in self.topics_with_message_count:
            counts[topic.topic_metadata.name] = counts.get(topic.topic_metadata.name, 0) + topic.message_count
        return counts


class _File(_Schema):
    rosbag2_bagfile_information: Information


def load_information(folder: Path) -> Information:
    """Read metadata.yaml of a bag.

    Raises:
        GenimaError: when it is missing, damaged or of a later version.
    """
    path = folder / METADATA
    data = parse_yaml(read_text(path, "file", YAML_BYTES), METADATA)
    information = validate(_File, data, METADATA).rosbag2_bagfile_information
    if "" in information.files or len(set(information.files)) < len(information.files):
        raise GenimaError(f"{METADATA}: relative_file_paths: not the names of files, each one once")
    if information.compression not in ("", "file", "message"):
        raise GenimaError(f"{METADATA}: compression_mode: must be file, message or none ({information.compression})")
    if information.compression and information.compression_format != "zstd":
        raise GenimaError(f"{METADATA}: compression_format: only zstd is read ({information.compression_format})")
    return information


class FileContent(NamedTuple):
    """Entry of metadata.yaml for a file of a bag."""

    name: str
    messages: int
    first_ns: int | None  # smallest log time; None for a file without messages
    last_ns: int | None  # largest log time


def bag_information(
    files: Sequence[FileContent],
    topics: Iterable[Topic],
    counts: Mapping[str, int],
    compression: str = "",
    like: Information | None = None,
) -> dict[str, Any]:
    """Return the metadata of a bag as rosbag2 stores it in metadata.yaml, version 9.

    Args:
        files: of the bag, in order.
        topics: of the bag; the last one of each name counts.
        counts: messages by topic.
        compression: ``message`` when each message is compressed with zstd.
        like: earlier metadata, of which custom data and the ROS distribution are kept.
    """
    by_name = {topic.name: topic for topic in topics}
    packed = files[0].name.endswith(ZSTD)
    suffix = Path(files[0].name.removesuffix(ZSTD)).suffix
    compression = "file" if packed else compression
    first = min((file.first_ns for file in files if file.first_ns is not None), default=None)
    last = max((file.last_ns for file in files if file.last_ns is not None), default=None)
    return {
        "version": _VERSION,
        "storage_identifier": STORAGES[suffix],
        **_span(first, last),
        "message_count": sum(counts.values()),
        "topics_with_message_count": [_topic(topic, counts[topic.name]) for topic in by_name.values()],
        "compression_format": "zstd" if compression else "",  # chunk compression is not listed
        "compression_mode": compression.upper(),
        "relative_file_paths": [file.name for file in files],
        "files": [
            {"path": file.name, **_span(file.first_ns, file.last_ns, start_first=True), "message_count": file.messages}
            for file in files
        ],
        "custom_data": like.custom_data if like else None,
        "ros_distro": like.ros_distro if like and like.ros_distro else "jazzy",
    }


def metadata_text(information: dict[str, Any]) -> str:
    """Return the text of metadata.yaml."""
    return _dump({_INFORMATION: information})


def start_file(stream: IO[bytes], compression: Compression, chunk_bytes: int = 1 << 20) -> Writer:
    """Begin a bag's MCAP file; a chunk ends when it holds more than ``chunk_bytes``."""
    writer = Writer(stream, chunk_bytes, CompressionType[compression.upper()])
    writer.start(PROFILE, "genima")
    return writer


def finish_file(writer: Writer, information: dict[str, Any]) -> None:
    """Complete a bag's MCAP file, with rosbag2's copy of metadata.yaml inside."""
    writer.add_metadata("rosbag2", {"serialized_metadata": _dump(information)})
    writer.finish()


def _span(first_ns: int | None, last_ns: int | None, start_first: bool = False) -> dict[str, Any]:
    start = {"starting_time": {"nanoseconds_since_epoch": _INFINITE if first_ns is None else first_ns}}
    duration = {"duration": {"nanoseconds": (last_ns or 0) - (first_ns or 0)}}
    return start | duration if start_first else duration | start


def _topic(topic: Topic, count: int) -> dict[str, Any]:
    try:
        profiles = qos_profiles(topic.notes.get(QOS, ""))
    except GenimaError:
        profiles = []
    return {
        "topic_metadata": {
            "name": topic.name,
            "type": topic.msgtype,
            "serialization_format": topic.encoding,
            QOS: profiles,
            "type_description_hash": topic.notes.get(TYPE_HASH, ""),
        },
        "message_count": count,
    }


def _duration(nanoseconds: int | None) -> dict[str, int]:
    seconds, rest = divmod(_INFINITE if nanoseconds is None else nanoseconds, 10**9)
    return {"sec": seconds, "nsec": rest}


def _dump(value: object) -> str:
    return yaml.dump(value, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)


class _PlainDumper(yaml.SafeDumper):
    """YAML dumper without anchors, which rosbag2 does not write."""

    def ignore_aliases(self, data: object) -> bool:
        return True
