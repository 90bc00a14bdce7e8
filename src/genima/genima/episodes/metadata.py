"""What rosbag2 says about a bag, in metadata.yaml and inside its file, as ROS 2 Jazzy writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import yaml
from mcap.writer import CompressionType, Writer

from genima.errors import GenimaError

Compression = Literal["none", "lz4", "zstd"]  # of chunks

METADATA = "metadata.yaml"
PROFILE = "ros2"  # in the header of the file
QOS, TYPE_HASH = "offered_qos_profiles", "topic_type_hash"  # in the metadata of a channel

_VERSION = 9
_NEVER = 2**63 - 1  # ns
_INFORMATION = "rosbag2_bagfile_information"
_QOS_KEYS = {
    "history", "depth", "reliability", "durability", "deadline", "lifespan", "liveliness", "liveliness_lease_duration",
    "avoid_ros_namespace_conventions",
}  # fmt: skip


@dataclass(frozen=True)
class Qos:
    """How a topic is offered; durations in ns, None for those without end."""

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
        """As rosbag2 stores it: a YAML list of one profile."""
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


class Topic(NamedTuple):
    """A topic of a bag."""

    name: str
    msgtype: str  # package/msg/Name
    encoding: str  # of its messages: cdr
    notes: Mapping[str, str]  # QOS and TYPE_HASH, in rosbag2's own words


def qos_profiles(text: str) -> list[dict[str, Any]]:
    """The profiles that a text of rosbag2 holds; none for an empty text.

    Raises:
        GenimaError: when it is no list of complete profiles.
    """
    try:
        profiles = yaml.safe_load(text) or []
    except yaml.YAMLError:
        profiles = None
    if not isinstance(profiles, list) or not all(isinstance(one, dict) and one.keys() >= _QOS_KEYS for one in profiles):
        raise GenimaError(f"not the QoS profiles of a topic: {' '.join(text.split())[:80]}")
    return profiles


def bag_information(
    file: str, topics: Iterable[Topic], counts: Mapping[str, int], first_ns: int | None, last_ns: int | None
) -> dict[str, Any]:
    """What rosbag2 notes about a bag of one file.

    Args:
        file: its name.
        topics: what it has; of those with the same name, the last one counts.
        counts: messages by topic.
        first_ns: smallest log time in ns; None for a bag without messages.
        last_ns: largest log time in ns; None for a bag without messages.
    """
    start = {"nanoseconds_since_epoch": _NEVER if first_ns is None else first_ns}
    duration = {"nanoseconds": (last_ns or 0) - (first_ns or 0)}
    total = sum(counts.values())
    by_name = {topic.name: topic for topic in topics}
    return {
        "version": _VERSION,
        "storage_identifier": "mcap",
        "duration": dict(duration),
        "starting_time": dict(start),
        "message_count": total,
        "topics_with_message_count": [_topic(topic, counts[topic.name]) for topic in by_name.values()],
        "compression_format": "",  # chunks within the file are compressed, if at all: its reader sees to them
        "compression_mode": "",
        "relative_file_paths": [file],
        "files": [{"path": file, "starting_time": start, "duration": duration, "message_count": total}],
        "custom_data": None,
        "ros_distro": "jazzy",
    }


def metadata_text(information: dict[str, Any]) -> str:
    """What metadata.yaml holds."""
    return _dump({_INFORMATION: information})


def start_file(stream: IO[bytes], compression: Compression, chunk_bytes: int = 1 << 20) -> Writer:
    """Begin a bag's MCAP file; a chunk ends when it holds more than ``chunk_bytes``."""
    writer = Writer(stream, chunk_bytes, CompressionType[compression.upper()])
    writer.start(PROFILE, "genima")
    return writer


def finish_file(writer: Writer, information: dict[str, Any]) -> None:
    """Complete a bag's MCAP file, with the copy of metadata.yaml that rosbag2 keeps inside."""
    writer.add_metadata("rosbag2", {"serialized_metadata": _dump(information)})
    writer.finish()


def read_information(folder: Path) -> dict[str, Any] | None:
    """What metadata.yaml says; None where it is missing or damaged."""
    try:
        information = yaml.safe_load((folder / METADATA).read_text())[_INFORMATION]
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError):
        return None
    return information if isinstance(information, dict) else None


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
    seconds, rest = divmod(_NEVER if nanoseconds is None else nanoseconds, 10**9)
    return {"sec": seconds, "nsec": rest}


def _dump(value: object) -> str:
    return yaml.dump(value, Dumper=_Plain, sort_keys=False)


class _Plain(yaml.SafeDumper):
    """Without anchors, which rosbag2 does not write."""

    def ignore_aliases(self, data: object) -> bool:
        return True
