"""Copies of demos without the rest before the first and after the last motion."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mcap.records import Message
from rosbags.interfaces.typing import Typesdict
from rosbags.typesys import get_types_from_msg

from genima.episodes.bag import JOINT_COMMAND, JOINT_STATES, SUCCESS, TASK, has_header, header_stamp, types
from genima.episodes.errors import EpisodeError
from genima.episodes.idle import Stretch, find_idle, find_tracks
from genima.episodes.metadata import QOS, qos_profiles, read_information
from genima.episodes.recording import BagRecorder
from genima.episodes.scan import Scan
from genima.episodes.survey import Survey
from genima.robot.model import RobotModel

_QUEUE_BYTES = 64 << 20


class Trimmed(NamedTuple):
    """What became of a demo, in s."""

    cut_begin: float
    cut_end: float
    left: float


class _Topic(NamedTuple):
    msgtype: str
    qos: str  # in rosbag2's own words
    stamped: bool  # whether its messages begin with a header
    lasting: bool  # whether what it says holds for the whole episode


def trim(folder: Path, out: Path, robot: RobotModel, keep: float) -> Trimmed:
    """Copy a demo but for the rest at its beginning and end.

    Messages stay as they are to the byte. Those with a header are cut by its stamp, others by when they were recorded.
    What is latched, or was said without a header and only once, stays; it counts as recorded in what is left.

    Args:
        folder: a rosbag2 folder (MCAP).
        out: the copy's name when it is complete.
        robot: whose joints tell what moves.
        keep: s of rest that stay at both ends.

    Raises:
        EpisodeError: when the demo cannot be read whole, and when nothing moves in it.
        GenimaError: when it cannot be written; nothing is left then.
    """
    survey = Survey.of(folder)
    tracks = find_tracks(survey, robot)
    if not tracks:
        raise EpisodeError(folder, f"neither {JOINT_STATES} nor {JOINT_COMMAND} says where the joints are")
    activity = find_idle(tracks)
    if activity.moving is None:
        raise EpisodeError(folder, "nothing moves")
    whole = Stretch(0.0, survey.seconds)
    kept = Stretch(max(whole.begin, activity.moving.begin - keep), min(whole.end, activity.moving.end + keep))
    stamps = range(survey.start_ns + math.floor(kept.begin * 1e9), survey.start_ns + math.ceil(kept.end * 1e9) + 1)
    delay = round(1e9 * float(np.median(survey.delays[next(iter(tracks))])))  # ns, of the recording behind the stamps
    _copy(folder, out, stamps, range(stamps.start + delay, stamps.stop + delay))
    return Trimmed(kept.begin, whole.end - kept.end, kept.seconds)


def _copy(folder: Path, out: Path, stamps: range, log_times: range) -> None:
    """Write the messages within times in ns."""
    files = _files(folder)
    scans = [_scan(folder, file) for file in files]
    topics = _topics(scans)
    schemas = {(schema.name, schema.data) for scan in scans for schema in scan.schemas.values()}
    definitions = {name: text.decode() for name, text in schemas if not _is_ours(name, text)}
    bag = BagRecorder(
        out, definitions=definitions, flush_seconds=math.inf, queue_bytes=_QUEUE_BYTES, reserve_bytes=0, replace=True
    )
    try:
        for name, topic in topics.items():
            bag.add_topic(name, topic.msgtype, topic.qos)
        for name, message in _messages(files):
            topic, log_ns = topics[name], message.log_time
            if topic.lasting:
                log_ns = min(max(log_ns, log_times.start), log_times.stop - 1)
            elif (header_stamp(message.data) not in stamps) if topic.stamped else (log_ns not in log_times):
                continue
            bag.write(name, message.data, log_ns, message.publish_time, wait=True)
        bag.finish()
    except BaseException:
        bag.discard()
        raise


def _files(folder: Path) -> list[Path]:
    """A bag's files, in order."""
    information = read_information(folder) or {}
    names = information.get("relative_file_paths") or []
    if information.get("storage_identifier") != "mcap" or information.get("compression_mode") or not names:
        raise EpisodeError(folder, "only MCAP files that are not compressed as a whole can be trimmed")
    return [folder / name for name in names]


def _scan(folder: Path, file: Path) -> Scan:
    """Walk through a file to its end."""
    scan = Scan(file)
    for _ in scan.messages():
        pass
    if not scan.whole:
        raise EpisodeError(folder, f"{file.name} is damaged; ./genima episodes repair keeps what it holds")
    return scan


def _topics(scans: Sequence[Scan]) -> dict[str, _Topic]:
    topics = {}
    for scan in scans:
        for channel in scan.channels.values():
            name, schema = channel.topic, scan.schemas[channel.schema_id]
            stamped = has_header(_fields(schema.name, schema.data), schema.name)
            qos = channel.metadata.get(QOS, "")
            once = not stamped and sum(each.counts.get(name, 0) for each in scans) == 1
            lasting = once or name in (TASK, SUCCESS) or any(_is_latched(profile) for profile in qos_profiles(qos))
            topics[name] = _Topic(schema.name, qos, stamped, lasting)
    return topics


def _messages(files: Sequence[Path]) -> Iterator[tuple[str, Message]]:
    """Those of all topics, with the topic's name."""
    for file in files:
        scan = Scan(file)
        for message in scan.messages():
            yield scan.channels[message.channel_id].topic, message


def _is_latched(profile: dict[str, Any]) -> bool:
    return profile["durability"] in ("transient_local", 1)  # rosbag2 wrote numbers once


def _is_ours(msgtype: str, definition: bytes) -> bool:
    """Whether a type is what ROS 2 Jazzy has under its name."""
    return all(types().fielddefs.get(name) == fields for name, fields in _fields(msgtype, definition).items())


@cache
def _fields(msgtype: str, definition: bytes) -> Typesdict:
    return get_types_from_msg(definition.decode(), msgtype)
