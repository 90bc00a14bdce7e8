"""MCAP files: reading of intact files in time order, and recovery of damaged ones.

Sizes in a file are not trusted: records and unpacked chunks are limited before they are read, so that no file can
exhaust the memory.
"""

from __future__ import annotations

import heapq
import os
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import lz4.frame
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import EndOfFile, McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Footer, Header, McapRecord, Schema, Statistics
from mcap.writer import MCAP0_MAGIC

from genima.data.episodes.metadata import PROFILE, Compression, Topic
from genima.errors import GenimaError

RECORD_BYTES = 256 << 20  # of a record, and of an unpacked chunk or message
EXPANSION, ALLOWANCE = 1000, 64 << 20  # a file may unpack to this factor of its size, plus these bytes
LATEST = 2**62  # ns: the year 2116; differences of such times fit into 64 bits

_PENDING_BYTES = 512 << 20  # of messages from chunks that overlap in time
_RUN_BYTES = 1 << 20  # of records outside chunks, read at once
_HEAD = struct.Struct("<BQ")  # of a record: opcode, length of its content
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHUNK_INDEX = struct.Struct("<QQQQ")  # first and last log time, place and length of the chunk
_FOOTER_BYTES = 20
_OPCODES = frozenset(Opcode)
_FIRST_PRIVATE_OPCODE = 128
_CONTENT = frozenset((Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE))
_COMPRESSIONS: dict[str, Compression] = {"": "none", "lz4": "lz4", "zstd": "zstd"}
_Record = TypeVar("_Record", bound=McapRecord)


class Message(NamedTuple):
    """Serialized message."""

    channel: int
    log_ns: int
    publish_ns: int
    data: memoryview


class McapScan:
    """Scan of an MCAP file from its start, past damaged chunks, to its truncated end.

    Attributes (of the scanned part):
        schemas: types by number.
        channels: topics by number, also those without messages.
        counts: messages by topic.
        first_ns: smallest log time in ns; None before the first message.
        last_ns: largest log time in ns; None before the first message.
        compression: of the last chunk.
        bytes_lost: size of unreadable data.
        profile: of the header; None where it is damaged.
        whole: True for a file of ROS 2 without loss, with a complete index.
        extras: places of attachments and metadata: opcode, start and end in the file.
    """

    def __init__(self, path: Path) -> None:
        self.schemas: dict[int, Schema] = {}
        self.channels: dict[int, Channel] = {}
        self.counts: dict[str, int] = {}
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self.compression: Compression = "none"
        self.bytes_lost = 0
        self.profile: str | None = None
        self.whole = False
        self.extras: list[tuple[int, int, int]] = []
        self._path = path

    @property
    def topics(self) -> list[Topic]:
        """Return the topics of all channels."""
        return [_topic(channel, self.schemas) for channel in self.channels.values()]

    def topic(self, message: Message) -> str:
        """Return the topic of a scanned message."""
        return self.channels[message.channel].topic

    def messages(self) -> Iterator[Message]:
        """Yield all complete messages, in the order of the file; a chunk is complete if its checksum matches.

        Raises:
            OSError: when the file cannot be read.
        """
        with open(self._path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            summary = _Summary.read(file, size)
            if summary is not None:  # it repeats definitions, which a damaged chunk may have lost
                self._define(*summary.schemas, *summary.channels)
            needed = _CONTENT | {Opcode.HEADER, Opcode.CHUNK}
            unpacked = 0
            scan = _RecordScan(file, size)
            for opcode, start, end in scan:
                if opcode in (Opcode.ATTACHMENT, Opcode.METADATA) and Opcode.CHUNK in needed:
                    self.extras.append((opcode, start, end))
                # Only chunks have checksums: next to them and after them, a damaged index may look like other records.
                if opcode == Opcode.CHUNK:
                    needed = needed & {Opcode.CHUNK}
                elif opcode == Opcode.DATA_END:
                    needed = frozenset()
                if opcode not in needed:
                    continue
                try:
                    content = _read(file, start, end)
                    if opcode == Opcode.HEADER:
                        self.profile = _parse(Header, content).profile
                        continue
                    if opcode == Opcode.CHUNK:
                        self.compression, data = _unpack(content, size * EXPANSION + ALLOWANCE - unpacked)
                        unpacked += len(data)
                        records = [_record(*each) for each in _contents(data) if each[0] in _CONTENT]
                    else:
                        records = [_record(opcode, content)]
                except _DamagedError:
                    self.bytes_lost += end - start + _HEAD.size
                    continue
                for record in records:
                    if not isinstance(record, Message):
                        self._define(record)
                    elif record.channel in self.channels:
                        self._count(record)
                        yield record
                    else:
                        self.bytes_lost += len(record.data)
            self.bytes_lost += scan.bytes_lost
        self.whole = (
            not self.bytes_lost
            and self.profile == PROFILE
            and summary is not None
            and summary.messages == sum(self.counts.values())
        )

    def _define(self, *records: Schema | Channel) -> None:
        for record in records:
            if isinstance(record, Schema):
                self.schemas[record.id] = record
            elif record.schema_id == 0 or record.schema_id in self.schemas:
                self.channels[record.id] = record
                self.counts.setdefault(record.topic, 0)

    def _count(self, message: Message) -> None:
        self.counts[self.topic(message)] += 1
        self.first_ns = message.log_ns if self.first_ns is None else min(self.first_ns, message.log_ns)
        self.last_ns = message.log_ns if self.last_ns is None else max(self.last_ns, message.log_ns)


class McapFile:
    """Intact MCAP file, read in log time order; only chunks that overlap in time are in memory."""

    def __init__(self, path: Path) -> None:
        """Read the places of the chunks, and the topics.

        Raises:
            GenimaError: when the file is damaged or not of ROS 2.
            OSError: when it cannot be read.
        """
        self._file = open(path, "rb")
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            summary = _Summary.read(self._file, self._size)
            try:
                spans = self._find_spans()
            except _DamagedError:  # data before the damage is readable through the index
                if summary is None or not summary.chunks:
                    raise
                spans = summary.chunks
            if summary is None:
                raise _DamagedError("damaged index")
            self._spans = sorted(spans)
            self._describe(path, summary)
        except _DamagedError as error:
            self._file.close()
            raise GenimaError(f"{path.name}: {error}") from None
        except BaseException:
            self._file.close()
            raise
        self._name = path.name

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, int, memoryview]]:
        """Yield topic, log time, publish time (ns) and data of the messages of some topics, in order of log time.

        Raises:
            GenimaError: when the file is damaged.
            OSError: when it cannot be read.
        """
        wanted = {number: name for number, name in self._channels.items() if name in topics}
        try:
            for message in self._iterate_by_time(wanted):
                yield wanted[message.channel], message.log_ns, message.publish_ns, message.data
        except _DamagedError as error:
            raise GenimaError(f"{self._name}: {error}") from None

    def _iterate_by_time(self, wanted: Collection[int]) -> Iterator[Message]:
        pending: list[tuple[int, int, Message]] = []
        order = pending_bytes = unpacked = 0
        for span in self._spans:
            while pending and pending[0][0] < span.first_ns:
                message = heapq.heappop(pending)[2]
                pending_bytes -= len(message.data)
                yield message
            content: memoryview | bytes = _read(self._file, span.begin, span.end, _RUN_BYTES + RECORD_BYTES)
            if span.chunk:
                head = _read(self._file, span.begin - _HEAD.size, span.begin)
                if _HEAD.unpack(head) != (Opcode.CHUNK, len(content)):
                    raise _DamagedError(f"no chunk at byte {span.begin}, where the index has one")
                _, content = _unpack(content, self._size * EXPANSION + ALLOWANCE - unpacked)
                unpacked += len(content)
            for opcode, part in _contents(content):
                if opcode != Opcode.MESSAGE:
                    continue
                message = _message(part)
                if message.channel not in self._channels:
                    raise _DamagedError(f"a message of unknown channel {message.channel}")
                if message.channel in wanted:
                    heapq.heappush(pending, (message.log_ns, order, message))
                    order += 1
                    pending_bytes += len(message.data)
            if pending_bytes > _PENDING_BYTES:
                raise _DamagedError(f"chunks of more than {_PENDING_BYTES >> 20} MB overlap in time")
        while pending:
            yield heapq.heappop(pending)[2]

    def _find_spans(self) -> list[_Span]:
        """Return the spans of messages, without an index."""
        spans: list[_Span] = []
        scan = _RecordScan(self._file, self._size)
        begin = end_of_run = first = 0  # of records outside chunks
        for opcode, start, end in scan:
            if opcode == Opcode.CHUNK:
                first_ns = int.from_bytes(self._file.read(8), "little")
                spans.append(_Span(first_ns, start, end, chunk=True))
            elif opcode == Opcode.MESSAGE:
                head = self._file.read(_MESSAGE.size)
                if len(head) < _MESSAGE.size or end - start < _MESSAGE.size:
                    raise _DamagedError(f"damaged message at byte {start}")
                log_ns = _MESSAGE.unpack(head)[2]
                start -= _HEAD.size
                if start == end_of_run and end - begin <= _RUN_BYTES:
                    spans.pop()
                    first = min(first, log_ns)
                else:
                    begin, first = start, log_ns
                end_of_run = end
                spans.append(_Span(first, begin, end, chunk=False))
        if scan.problem:
            raise _DamagedError(scan.problem)
        return spans

    def _describe(self, path: Path, summary: _Summary) -> None:
        """Find topics and counts by the index, or by a scan without one."""
        opcode, start, end = next(iter(_RecordScan(self._file, self._size)), (0, 0, 0))
        if opcode != Opcode.HEADER:
            raise _DamagedError("damaged header")
        profile = _parse(Header, _read(self._file, start, end)).profile
        if profile != PROFILE:
            raise _DamagedError(f"not of ROS 2 (its profile is {profile[:20]!r})")
        schemas = {schema.id: schema for schema in summary.schemas}
        channels = {channel.id: channel for channel in summary.channels}
        unknown = any(channel.schema_id and channel.schema_id not in schemas for channel in summary.channels)
        if summary.messages is None or unknown or not summary.counts.keys() <= channels.keys():
            scan = McapScan(path)
            for _ in scan.messages():
                pass
            if scan.bytes_lost:
                raise _DamagedError(f"{scan.bytes_lost} bytes are damaged")
            schemas, channels, self.counts = scan.schemas, scan.channels, scan.counts
            self.first_ns, self.last_ns = scan.first_ns, scan.last_ns
        else:
            self.counts = dict.fromkeys((channel.topic for channel in channels.values()), 0)
            for number, count in summary.counts.items():
                self.counts[channels[number].topic] += count
            self.first_ns, self.last_ns = summary.span if summary.messages else (None, None)
        self._channels = {channel.id: channel.topic for channel in channels.values()}
        self.topics = [_topic(channel, schemas) for channel in channels.values()]


# ------------------------------------------------------------------------------------------------------------- records


class _DamagedError(GenimaError):
    """Malformed or truncated MCAP file."""


class _Span(NamedTuple):
    """Chunk, or consecutive records outside chunks."""

    first_ns: int  # smallest log time
    begin: int  # in the file: of a chunk's content, of a record's head
    end: int
    chunk: bool


class _RecordScan:
    """Iterator over opcode, start and end of the content of complete records, with the file at that start."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.bytes_lost = 0  # after the last complete record
        self.problem = ""
        self._file, self._size = file, size

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        file, size = self._file, self._size
        file.seek(0)
        if file.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
            self._stop(0, "not an MCAP file" if size else "empty")
            return
        place = len(MCAP0_MAGIC)
        while True:
            file.seek(place)
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                self._stop(place, f"cut off at byte {size}")
                return
            opcode, length = _HEAD.unpack(head)
            start, end = place + _HEAD.size, place + _HEAD.size + length
            if not (opcode in _OPCODES or opcode >= _FIRST_PRIVATE_OPCODE) or end > size:
                self._stop(place, f"damaged or cut off at byte {place}")
                return
            if opcode == Opcode.FOOTER:
                if size != end + len(MCAP0_MAGIC) or self._tail(end) != MCAP0_MAGIC:
                    self.bytes_lost, self.problem = max(0, size - end - len(MCAP0_MAGIC)), f"damaged after byte {end}"
                return
            yield opcode, start, end
            place = end

    def _tail(self, end: int) -> bytes:
        self._file.seek(end)
        return self._file.read(len(MCAP0_MAGIC))

    def _stop(self, place: int, problem: str) -> None:
        self.bytes_lost, self.problem = self._size - place, problem


class _RecordStream(ReadDataStream):
    """Content of a record; an end within a field is an error."""

    def read(self, length: int) -> bytes:
        data: bytes = super().read(min(length, 2 * RECORD_BYTES))  # a damaged length may be any number
        if len(data) < length:
            raise EndOfFile
        return data


def _parse(kind: type[_Record], content: bytes | memoryview) -> _Record:
    try:
        record: _Record = kind.read(_RecordStream(BytesIO(content)))  # type: ignore[attr-defined]
        return record
    except (McapError, UnicodeDecodeError):
        raise _DamagedError(f"a malformed {kind.__name__.lower()}") from None


def _topic(channel: Channel, schemas: Mapping[int, Schema]) -> Topic:
    schema = schemas.get(channel.schema_id, Schema(id=0, name="", encoding="", data=b""))
    return Topic(channel.topic, schema.name, channel.message_encoding, channel.metadata, schema.encoding, schema.data)


def _read(file: IO[bytes], start: int, end: int, limit: int = RECORD_BYTES) -> bytes:
    if end - start > limit:
        raise _DamagedError(f"a record of {end - start} bytes at byte {start} (the limit is {limit})")
    file.seek(start)
    content = file.read(end - start)
    if len(content) < end - start:
        raise _DamagedError(f"cut off at byte {start + len(content)}")
    return content


def _unpack(content: bytes | memoryview, limit: int) -> tuple[Compression, memoryview]:
    """Return the compression and the records of a chunk of ``content``; at most ``limit`` bytes."""
    chunk = _parse(Chunk, content)
    name, packed, size, checksum = chunk.compression, chunk.data, chunk.uncompressed_size, chunk.uncompressed_crc
    if name not in _COMPRESSIONS:
        raise _DamagedError(f"a chunk is compressed with {name[:20]!r}; lz4 and zstd are read")
    limit = min(RECORD_BYTES, limit)
    if size > limit:
        raise _DamagedError(f"a chunk of {len(packed)} bytes would unpack to {size} (the limit is {limit})")
    data = packed
    try:
        if name == "zstd":
            data = unpack_zstd(packed, size)
        elif name == "lz4":
            data = lz4.frame.LZ4FrameDecompressor().decompress(packed, max_length=size)
    except (RuntimeError, EOFError, GenimaError) as error:
        raise _DamagedError(f"a damaged chunk ({' '.join(str(error).split())})") from None
    if len(data) != size:
        raise _DamagedError(f"a chunk has {len(data)} bytes instead of {size}")
    if checksum and zlib.crc32(data) != checksum:
        raise _DamagedError("a chunk with a wrong checksum")
    return _COMPRESSIONS[name], memoryview(data)


def unpack_zstd(packed: bytes | memoryview, limit: int = RECORD_BYTES) -> bytes:
    """Decompress one zstd frame into at most ``limit`` bytes.

    Raises:
        GenimaError: when it is damaged or would become larger.
    """
    try:
        size = zstandard.frame_content_size(packed)
        if size > limit:
            raise GenimaError(f"{len(packed)} bytes would unpack to {size} (the limit is {limit})")
        return bytes(zstandard.ZstdDecompressor().decompress(packed, max_output_size=max(1, limit)))
    except zstandard.ZstdError as error:
        raise GenimaError(f"zstd: {' '.join(str(error).split())}") from None


def _contents(records: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield opcode and content of consecutive records.

    Raises:
        _DamagedError: for a truncated record.
    """
    view, place = memoryview(records), 0
    while place < len(view):
        if place + _HEAD.size > len(view):
            raise _DamagedError("a record ends too late")
        opcode, length = _HEAD.unpack_from(view, place)
        start, place = place + _HEAD.size, place + _HEAD.size + length
        if place > len(view):
            raise _DamagedError("a record ends too late")
        yield opcode, view[start:place]


def _message(content: bytes | memoryview) -> Message:
    if len(content) < _MESSAGE.size:
        raise _DamagedError("a message without a head")
    channel, _, log_ns, publish_ns = _MESSAGE.unpack_from(content)
    if max(log_ns, publish_ns) > LATEST:
        raise _DamagedError(f"a message with time {max(log_ns, publish_ns)} ns")
    return Message(channel, log_ns, publish_ns, memoryview(content)[_MESSAGE.size :])


def _record(opcode: int, content: bytes | memoryview) -> Schema | Channel | Message:
    if opcode == Opcode.MESSAGE:
        return _message(content)
    return _parse(Schema, content) if opcode == Opcode.SCHEMA else _parse(Channel, content)


class _Summary(NamedTuple):
    """Index at the end of a file."""

    schemas: list[Schema]
    channels: list[Channel]
    messages: int | None  # None: the file does not count them
    counts: dict[int, int]  # by channel
    span: tuple[int, int]  # smallest and largest log time, ns
    chunks: list[_Span]

    @classmethod
    def read(cls, file: IO[bytes], size: int) -> _Summary | None:
        """Return the index, empty where the file has none; None where it is missing or damaged."""
        length = _HEAD.size + _FOOTER_BYTES
        end = size - len(MCAP0_MAGIC) - length
        if end < len(MCAP0_MAGIC):
            return None
        file.seek(end)
        footer = file.read()
        if footer[:1] != bytes([Opcode.FOOTER]) or not footer.endswith(MCAP0_MAGIC):
            return None
        ending = _parse(Footer, footer[_HEAD.size :])
        begin, checksum = ending.summary_start, ending.summary_crc
        found = cls([], [], None, {}, (0, 0), [])
        if begin == 0:
            return found
        if not len(MCAP0_MAGIC) <= begin <= end:
            return None
        try:
            summary = _read(file, begin, end)
            if checksum and checksum != zlib.crc32(footer[: length - 4], zlib.crc32(summary)):
                return None
            for opcode, content in _contents(summary):
                if opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                    record = _record(opcode, content)
                    (found.schemas if isinstance(record, Schema) else found.channels).append(record)  # type: ignore[arg-type]
                elif opcode == Opcode.CHUNK_INDEX:
                    if len(content) < _CHUNK_INDEX.size:
                        return None
                    first, _, place, length = _CHUNK_INDEX.unpack_from(content)
                    if not len(MCAP0_MAGIC) <= place <= place + length <= begin:
                        return None
                    found.chunks.append(_Span(first, place + _HEAD.size, place + length, chunk=True))
                elif opcode == Opcode.STATISTICS:
                    statistics = _parse(Statistics, content)
                    found.counts.update(statistics.channel_message_counts)
                    span = statistics.message_start_time, statistics.message_end_time
                    found = found._replace(messages=statistics.message_count, span=span)
        except _DamagedError:
            return None
        if found.messages is not None and found.messages != sum(found.counts.values()):
            return found._replace(messages=None)
        return found
