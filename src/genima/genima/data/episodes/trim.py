"""Copies of demos without the idle time before the first and after the last motion."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genima.data.episodes.bag import JOINT_COMMAND, JOINT_STATES, SUCCESS, TASK, BagReader, header_stamp, types
from genima.data.episodes.bag_recorder import BagRecorder
from genima.data.episodes.episode_index import EpisodeIndex
from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.idle import Interval, find_idle, find_tracks
from genima.data.episodes.judgement import read_judgement
from genima.data.episodes.metadata import QOS, Qos, qos_profiles
from genima.errors import GenimaError
from genima.robot.model import RobotModel

_QUEUE_BYTES = 64 << 20


class TrimResult(NamedTuple):
    """Result of trimming a demo, in s."""

    cut_begin: float
    cut_end: float
    left: float


def trim(folder: Path, out: Path, default: RobotModel | None, keep: float) -> TrimResult:
    """Copy a demo without the rest at its start and end.

    Messages stay unchanged to the byte, unknown types included. Those with a header are cut by its stamp, others by
    their recording time. Latched topics, and single messages without a header, are kept; they count as recorded within
    the copy.

    Args:
        folder: a rosbag2 folder, MCAP or SQLite; the copy is MCAP.
        out: folder of the complete copy.
        default: robot of a demo that holds no model, as of :meth:`EpisodeIndex.load_robot`.
        keep: s of rest to keep at both ends.

    Raises:
        EpisodeError: for a demo that cannot be read completely, and one without motion.
        GenimaError: when the copy cannot be written; nothing of it remains.
    """
    index = EpisodeIndex.of(folder)
    tracks = find_tracks(index, index.load_robot(default))
    if not tracks:
        raise EpisodeError(folder, f"no joints in {JOINT_STATES} and {JOINT_COMMAND}")
    activity = find_idle(tracks)
    if activity.moving is None:
        raise EpisodeError(folder, "nothing moves")
    whole = Interval(0.0, index.seconds)
    kept = Interval(max(whole.begin, activity.moving.begin - keep), min(whole.end, activity.moving.end + keep))
    stamps = range(index.start_ns + math.floor(kept.begin * 1e9), index.start_ns + math.ceil(kept.end * 1e9) + 1)
    delay = round(1e9 * float(np.median(index.delays[next(iter(tracks))])))  # ns, of the recording behind the stamps
    _copy(folder, out, stamps, range(stamps.start + delay, stamps.stop + delay))
    return TrimResult(kept.begin, whole.end - kept.end, kept.seconds)


def _copy(folder: Path, out: Path, stamps: range, log_times: range) -> None:
    """Write the messages within times in ns."""
    judged = read_judgement(folder)
    with BagReader(folder) as source:
        bag = BagRecorder(out, flush_seconds=math.inf, queue_bytes=_QUEUE_BYTES, reserve_bytes=0, replace=True)
        try:
            for topic in source.topics.values():
                bag.copy_topic(topic)
            latched = {name for name in source.topics if _is_latched(source, name)}
            for name, log_ns, cdr, publish_ns in source.messages(source.topics):
                if name in latched:
                    log_ns = min(max(log_ns, log_times.start), log_times.stop - 1)
                elif (header_stamp(cdr) not in stamps) if source.stamped(name) else (log_ns not in log_times):
                    continue
                bag.write(name, cdr, log_ns, publish_ns, wait=True)
            if judged is not None:
                _write_judgement(bag, judged, log_times.stop - 1)
            bag.finish()
        except BaseException:
            bag.discard()
            raise


def _is_latched(source: BagReader, name: str) -> bool:
    """Return whether a topic's messages are valid for the whole episode."""
    if name in (TASK, SUCCESS) or (not source.stamped(name) and source.counts[name] == 1):
        return True
    try:
        profiles = qos_profiles(source.topics[name].notes.get(QOS, ""))
    except GenimaError:
        return False
    return any(profile["durability"] == "transient_local" for profile in profiles)


def _write_judgement(bag: BagRecorder, success: bool, log_ns: int) -> None:
    """Write a judgement that was made after the recording as its last message."""
    kind = "std_msgs/msg/Bool"
    if SUCCESS not in bag.statistics.topics:
        bag.add_topic(SUCCESS, kind, Qos(depth=1, durability="transient_local"))
    bag.write(SUCCESS, types().serialize_cdr(types().types[kind](data=success), kind), log_ns, wait=True)
