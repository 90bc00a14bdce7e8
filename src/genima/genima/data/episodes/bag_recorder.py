"""Non-blocking recorder of serialized messages; a crash loses at most the last second."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from genima.data.episodes.bag import types
from genima.data.episodes.folders import PARTIAL, BagLock, claim, remove_recording_files, sync_folder
from genima.data.episodes.metadata import (
    METADATA,
    QOS,
    TYPE_HASH,
    FileContent,
    Qos,
    Topic,
    bag_information,
    finish_file,
    metadata_text,
    qos_profiles,
    start_file,
)
from genima.errors import GenimaError
from genima.io.files import atomic_write

_RATE_FLUSHES = 5  # flushes over which the rate is averaged


@dataclass(frozen=True)
class TopicStatistics:
    """Counts of a topic's messages."""

    messages: int  # accepted and not lost
    bytes: int  # of these
    dropped: int  # rejected by a full queue, or lost when the recording failed
    megabytes_per_second: float  # current rate


@dataclass(frozen=True)
class Statistics:
    """State of a recording."""

    topics: Mapping[str, TopicStatistics]
    seconds: float  # since it started
    queue_bytes: int  # waiting for the disk
    slowest_flush: float  # s
    stopped: str | None  # reason for a stop on a failure

    @property
    def messages(self) -> int:
        """Return the number of recorded messages, all topics."""
        return sum(topic.messages for topic in self.topics.values())

    @property
    def dropped(self) -> int:
        """Return the number of dropped messages, all topics."""
        return sum(topic.dropped for topic in self.topics.values())

    @property
    def megabytes_per_second(self) -> float:
        """Return the current data rate, all topics."""
        return sum(topic.megabytes_per_second for topic in self.topics.values())


class _Message(NamedTuple):
    topic: str
    log_ns: int
    publish_ns: int
    data: bytes | memoryview


@dataclass
class _TopicCounts:
    messages: int = 0
    bytes: int = 0
    dropped: int = 0


class _File:
    """MCAP file being written; one thread at a time may use it."""

    def __init__(self, path: Path, chunk_bytes: int) -> None:
        self.chunk: list[_Message] = []  # current chunk: not yet written to the operating system
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self.slowest_sync = 0.0  # s
        self._stream = open(path, "xb")
        # Chunks are ended here, not by the library: the loss of a failed write is then known.
        self._writer = start_file(self._stream, "none", sys.maxsize)
        self._chunk_size, self._chunk_bytes = 0, chunk_bytes
        self._schemas: dict[tuple[str, str, bytes], int] = {}  # their numbers in the file
        self._channels: dict[str, int] = {}
        self._unsynced = False

    def add_topic(self, topic: Topic) -> None:
        """Define a topic, unless it is defined."""
        if topic.name in self._channels:
            return
        schema = (topic.msgtype, topic.schema, topic.definition)
        if schema not in self._schemas:
            self._schemas[schema] = self._writer.register_schema(*schema) if topic.msgtype else 0
        self._channels[topic.name] = self._writer.register_channel(
            topic.name, topic.encoding, self._schemas[schema], dict(topic.notes)
        )

    def add(self, message: _Message) -> None:
        """Add a message to the current chunk, and end a full one."""
        self.chunk.append(message)
        self._chunk_size += len(message.data)
        self._unsynced = True
        self.first_ns = message.log_ns if self.first_ns is None else min(self.first_ns, message.log_ns)
        self.last_ns = message.log_ns if self.last_ns is None else max(self.last_ns, message.log_ns)
        self._writer.add_message(self._channels[message.topic], message.log_ns, bytes(message.data), message.publish_ns)
        if self._chunk_size > self._chunk_bytes:
            self._end_chunk()

    def flush(self) -> None:
        """Sync all data to the disk, where it survives a power cut."""
        if self._unsynced:
            start = time.monotonic()
            self._end_chunk()
            self._sync()
            self.slowest_sync = max(self.slowest_sync, time.monotonic() - start)

    def finish(self, information: dict[str, Any]) -> None:
        """Complete the file."""
        finish_file(self._writer, information)
        self._sync()

    def close(self) -> None:
        """Close the file, complete or not."""
        with contextlib.suppress(OSError):  # the destructor would write again after a failed write
            self._stream.close()

    def _end_chunk(self) -> None:
        """Write the current chunk to the operating system, where it survives the end of the process."""
        self._writer.flush()
        self.chunk, self._chunk_size = [], 0

    def _sync(self) -> None:
        self._stream.flush()
        os.fdatasync(self._stream.fileno())
        self._unsynced = False


class BagRecorder:
    """Recorder of serialized messages to a rosbag2 folder (MCAP), which gets its name when it is complete.

    Until then it is in the folder ``PARTIAL`` of the same parent, where :func:`genima.data.episodes.repair.repair`
    repairs it after a crash. As a context manager it is finished at the end; after an exception it stays there for a
    repair. Any thread may add topics and messages.
    """

    def __init__(
        self,
        folder: Path,
        *,
        definitions: Mapping[str, str] | None = None,
        flush_seconds: float = 0.5,
        queue_bytes: int = 512 << 20,
        reserve_bytes: int = 1 << 30,
        chunk_bytes: int = 1 << 20,
        replace: bool = False,
    ) -> None:
        """Start a recording.

        Args:
            folder: the bag's name when it is complete.
            definitions: texts of .msg files by type (``package/msg/Name``), for types that are not part of ROS 2.
            flush_seconds: s between syncs to the disk; infinite: only full chunks are
            written, and equal messages make equal files.
            queue_bytes: limit of the queue for the disk.
            reserve_bytes: free space below which the recording is completed and stops; checked at every flush.
            chunk_bytes: a chunk ends when it holds more.
            replace: the recording can be repeated: it replaces an unfinished one of that kind.

        Raises:
            GenimaError: for an existing, running or unfinished recording, without space or permission, and for an
                invalid definition.
        """
        self._folder, self._partial = folder, folder.parent / PARTIAL / folder.name
        self._types = _typestore(definitions or {})
        self._flush_seconds, self._queue_bytes, self._reserve_bytes = flush_seconds, queue_bytes, reserve_bytes
        _refuse_existing(folder)
        self._lock = claim(self._partial, replace)
        try:
            _refuse_existing(folder)  # it may have been finished meanwhile
            if (shortage := self._space_problem()) is not None:
                raise GenimaError(f"cannot record {folder}: {shortage}")
            self._path = self._partial / f"{folder.name}.mcap"
            self._file = _File(self._path, chunk_bytes)  # used by the writer thread only, until it ends
            for place in (self._partial, self._partial.parent, folder.parent):
                sync_folder(place)
        except BaseException as error:
            self._remove()
            self._lock.release(self._partial)
            if isinstance(error, OSError):
                raise GenimaError(f"cannot record {folder}: {error.strerror}") from None
            raise

        self._topics: dict[str, Topic] = {}
        self._tallies: dict[str, _TopicCounts] = {}
        self._queue: deque[_Message | Topic] = deque()
        self._queued = 0  # bytes
        self._stopped: str | None = None
        self._failed = self._closing = self._closed = self._named = False
        self._start = time.monotonic()
        self._rates: deque[tuple[float, dict[str, int]]] = deque([(self._start, {})], _RATE_FLUSHES)
        self._mutex = threading.Lock()
        self._filled, self._room = threading.Condition(self._mutex), threading.Condition(self._mutex)
        self._thread = threading.Thread(target=self._run, name=f"writes {folder.name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> BagRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.close()
        elif not self._closed:
            self.finish()

    @property
    def partial(self) -> Path:
        """Path of the bag until it is finished."""
        return self._partial

    def add_topic(self, topic: str, msgtype: str, qos: Qos | str = "") -> None:
        """Add a topic, before its first message.

        Args:
            topic: its full name.
            msgtype: its type, ``package/msg/Name``.
            qos: offered QoS, or its text in rosbag2.

        Raises:
            GenimaError: for an existing topic, an unknown type, an invalid QoS text, and a stopped recording.
        """
        text = str(qos)
        qos_profiles(text)
        try:
            definition, _ = self._types.generate_msgdef(msgtype, ros_version=2)
            hashed = self._types.hash_rihs01(msgtype)
        except Exception as error:  # rosbags raises many kinds for types without a definition
            what = f"cannot record {topic}: type {msgtype} has no definition here"
            raise GenimaError(f"{what} ({' '.join(str(error).split())})") from None
        self.copy_topic(Topic(topic, msgtype, "cdr", {QOS: text, TYPE_HASH: hashed}, "ros2msg", definition.encode()))

    def copy_topic(self, topic: Topic) -> None:
        """Add a topic of another bag unchanged, before its first message.

        Raises:
            GenimaError: for an existing topic, and a stopped recording.
        """
        with self._mutex:
            self._require_running()
            if topic.name in self._topics:
                raise GenimaError(f"cannot record {topic.name} twice in {self._folder}")
            self._topics[topic.name], self._tallies[topic.name] = topic, _TopicCounts()
            self._queue.append(topic)
            self._filled.notify()

    def write(
        self, topic: str, cdr: bytes | memoryview, log_ns: int, publish_ns: int | None = None, *, wait: bool = False
    ) -> bool:
        """Enqueue a message, which must not change afterwards; return whether it was accepted.

        Args:
            topic: one that was added.
            cdr: the serialized message.
            log_ns: time of reception, ns.
            publish_ns: time of publication, ns; None: the same.
            wait: wait for space in the queue instead of dropping and counting the message.

        Raises:
            GenimaError: for an unknown topic, an invalid time, and a stopped recording.
        """
        publish_ns = log_ns if publish_ns is None else publish_ns
        if not (0 <= log_ns < 1 << 63 and 0 <= publish_ns < 1 << 63):
            raise GenimaError(f"cannot record {topic}: {log_ns} or {publish_ns} is no time in ns")
        with self._mutex:
            self._require_running()
            if (tally := self._tallies.get(topic)) is None:
                raise GenimaError(f"cannot record {topic}: it is no topic of {self._folder}")
            while self._queued and self._queued + len(cdr) > self._queue_bytes:
                if not wait:
                    tally.dropped += 1
                    return False
                self._room.wait()
                self._require_running()
            self._queue.append(_Message(topic, log_ns, publish_ns, cdr))
            self._queued += len(cdr)
            tally.messages += 1
            tally.bytes += len(cdr)
            self._filled.notify()
        return True

    @property
    def statistics(self) -> Statistics:
        """Return the current state of the recording."""
        with self._mutex:
            now = time.monotonic()
            since, before = self._rates[0]
            topics = {
                topic: TopicStatistics(
                    tally.messages,
                    tally.bytes,
                    tally.dropped,
                    max(0.0, (tally.bytes - before.get(topic, 0)) / 1e6 / max(now - since, 1e-3)),
                )
                for topic, tally in self._tallies.items()
            }
            return Statistics(topics, now - self._start, self._queued, self._file.slowest_sync, self._stopped)

    def finish(self) -> None:
        """Write queued messages, complete the bag and rename it; also after a stop for lack of space.

        Raises:
            GenimaError: when writing fails or failed before, and for a recording that is over; the data stays in
                ``PARTIAL`` for a repair.
        """
        if self._closed:
            raise GenimaError(f"recording {self._folder}: over; start another")
        try:
            self._end_thread()
            if self._failed:
                raise GenimaError(self._stopped)
            for added in self._topics.values():  # some may be queued when the recording stopped
                self._file.add_topic(added)
            counts = {topic: tally.messages for topic, tally in self._tallies.items()}
            content = FileContent(self._path.name, sum(counts.values()), self._file.first_ns, self._file.last_ns)
            information = bag_information([content], self._topics.values(), counts)
            self._file.finish(information)
            atomic_write(self._partial / METADATA, metadata_text(information).encode())
            sync_folder(self._partial)
            _refuse_existing(self._folder)
            self._partial.rename(self._folder)
            self._named = True
            sync_folder(self._partial.parent)
            sync_folder(self._folder.parent)
        except OSError as error:
            raise GenimaError(f"cannot write {self._path}: {error.strerror}") from None
        finally:
            self.close()

    def close(self) -> None:
        """End the recording without completing it; written messages can be repaired."""
        if not self._closed:
            self._end_thread()
            self._file.close()
            self._lock.release(self._folder if self._named else self._partial, done=self._named)
            self._closed = True

    def discard(self) -> None:
        """End the recording and remove it, unless it was finished.

        Raises:
            GenimaError: when another recorder has taken over the unfinished recording.
        """
        if self._closed:
            if self._named or not self._partial.exists():
                return
            self._lock = BagLock(self._partial)
        with self._mutex:
            self._queue.clear()
            self._queued = 0
        self._end_thread()
        self._file.close()
        self._remove()
        self._lock.release(self._partial)
        self._closed = True

    def _remove(self) -> None:
        """Remove the files of this recording; other files stay."""
        with contextlib.suppress(OSError):
            remove_recording_files(self._partial)

    def _require_running(self) -> None:
        if self._stopped is not None:
            raise GenimaError(self._stopped)
        if self._closing:
            raise GenimaError(f"recording {self._folder}: over; start another")

    def _end_thread(self) -> None:
        with self._mutex:
            self._closing = True
            self._filled.notify()
            self._room.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            due = time.monotonic() + self._flush_seconds
            while self._stopped is None:
                item = self._next(due)
                if isinstance(item, _Message):
                    self._file.add(item)
                elif item is not None:
                    self._file.add_topic(item)
                elif self._closing:
                    break
                if (now := time.monotonic()) >= due:
                    due = now + self._flush_seconds
                    self._flush()
            self._flush()
        except OSError as error:
            self._stop(f"cannot write {self._path}: {error.strerror}", failed=True)
        except Exception as error:  # every error is reported to the owner
            self._stop(f"cannot write {self._path}: {' '.join(str(error).split())}", failed=True)

    def _next(self, due: float) -> _Message | Topic | None:
        """Return the next item to write; None without one until ``due``, or at the end."""
        with self._mutex:
            if not self._queue and not self._closing:
                wait = due - time.monotonic()
                self._filled.wait(None if math.isinf(wait) else max(0.0, wait))
            if not self._queue:
                return None
            item = self._queue.popleft()
            if isinstance(item, _Message):
                self._queued -= len(item.data)
                self._room.notify_all()
            return item

    def _flush(self) -> None:
        self._file.flush()
        with self._mutex:
            self._rates.append((time.monotonic(), {topic: tally.bytes for topic, tally in self._tallies.items()}))
        if self._stopped is None and not self._closing and (shortage := self._space_problem()) is not None:
            self._stop(f"recording {self._folder} stopped: {shortage}")

    def _stop(self, reason: str, failed: bool = False) -> None:
        with self._mutex:
            self._stopped, self._failed = reason, failed
            for item in (*self._file.chunk, *self._queue):
                if isinstance(item, _Message):
                    tally = self._tallies[item.topic]
                    tally.messages -= 1
                    tally.bytes -= len(item.data)
                    tally.dropped += 1
            self._queue.clear()
            self._queued = 0
            self._room.notify_all()

    def _space_problem(self) -> str | None:
        """Return the problem of the free disk space; None without one."""
        if self._reserve_bytes <= 0:
            return None
        free = shutil.disk_usage(self._partial).free
        if free >= self._reserve_bytes:
            return None
        return f"the disk has {free / 1e9:.2f} GB left, {self._reserve_bytes / 1e9:.2f} GB are kept in reserve"


def _typestore(definitions: Mapping[str, str]) -> Typestore:
    if not definitions:
        return types()
    store = get_typestore(Stores.ROS2_JAZZY)
    for name, text in definitions.items():
        try:
            store.register(get_types_from_msg(text, name))
        except Exception as error:  # rosbags raises many kinds
            raise GenimaError(f"the definition of {name} cannot be read: {' '.join(str(error).split())}") from None
    return store


def _refuse_existing(folder: Path) -> None:
    if folder.exists():
        raise GenimaError(f"episode {folder} exists already; choose another folder or remove it")
