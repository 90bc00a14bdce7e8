"""What an MCAP file holds, damaged or not."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO

from mcap.opcode import Opcode
from mcap.reader import FOOTER_SIZE, make_reader
from mcap.records import Channel, Chunk, Footer, Header, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.summary import Summary
from mcap.writer import MCAP0_MAGIC

from genima.episodes.metadata import PROFILE, Compression

_HEAD = 9  # bytes before the content of a record: opcode and length
_OPCODES = frozenset(Opcode)
_FIRST_PRIVATE_OPCODE = 128
_CHUNKS = frozenset((Opcode.CHUNK,))
_UNCHUNKED = frozenset((Opcode.HEADER, Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE))
_COMPRESSIONS: dict[str, Compression] = {"": "none", "lz4": "lz4", "zstd": "zstd"}


class Scan:
    """Walks through an MCAP file from its start, past damaged chunks and up to where it is torn.

    The mcap library reads the records, but where each of them ends is found here: the library's own walk ends at the
    first damaged record, and takes one that is cut for a short one.

    Attributes (of what was walked through so far):
        schemas: types by number.
        channels: topics by number, those without messages included; all of them have their schema.
        counts: messages by topic.
        first_ns: smallest log time in ns; None before the first message.
        last_ns: largest log time in ns; None before the first message.
        compression: of the last chunk.
        bytes_lost: size of what could not be read.
        whole: whether nothing was lost, and the file says that it is of ROS 2 and ends with an index of all it holds.
    """

    def __init__(self, path: Path) -> None:
        self.schemas: dict[int, Schema] = {}
        self.channels: dict[int, Channel] = {}
        self.counts: dict[str, int] = {}
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self.compression: Compression = "none"
        self.bytes_lost = 0
        self.whole = False
        self._path = path

    def messages(self) -> Iterator[Message]:
        """All complete messages, in the order of the file; a chunk is complete when its checksum is right.

        Raises:
            OSError: when the file cannot be read.
        """
        with open(self._path, "rb") as file:
            summary = _summary(file)
            if summary is not None:  # it repeats what a damaged chunk may have said
                self._define(*summary.schemas.values(), *summary.channels.values())
            profile = ""
            for record in self._records(file):
                self._define(record)
                if isinstance(record, Header):
                    profile = record.profile
                if isinstance(record, Message):
                    if record.channel_id in self.channels:
                        self._count(record)
                        yield record
                    else:
                        self.bytes_lost += len(record.data)
        statistics = None if summary is None else summary.statistics
        self.whole = (
            not self.bytes_lost
            and profile == PROFILE
            and statistics is not None
            and statistics.message_count == sum(self.counts.values())
        )

    def _records(self, file: IO[bytes]) -> Iterator[McapRecord]:
        """What is complete, in chunks and outside."""
        size = os.fstat(file.fileno()).st_size
        file.seek(0)
        if file.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
            self.bytes_lost = size
            return
        needed = _CHUNKS | _UNCHUNKED
        while True:
            start = file.tell()
            head = file.read(_HEAD)
            opcode, end = int.from_bytes(head[:1], "little"), start + _HEAD + int.from_bytes(head[1:], "little")
            if len(head) < _HEAD or end > size or not _is_opcode(opcode):
                self.bytes_lost += size - start
                return
            if opcode == Opcode.FOOTER:
                self.bytes_lost += max(0, size - end - len(MCAP0_MAGIC))
                return
            # Only chunks have checksums: beside and behind them, a damaged index may look like something else.
            if opcode == Opcode.CHUNK:
                needed = needed & _CHUNKS
            elif opcode == Opcode.DATA_END:
                needed = frozenset()
            if opcode in needed:
                content = file.read(end - file.tell())
                try:
                    records = self._understand(head + content)
                except Exception:  # the library and its compressions raise many kinds
                    self.bytes_lost += end - start
                else:
                    yield from records
            file.seek(end)

    def _understand(self, data: bytes) -> list[McapRecord]:
        record = next(StreamReader(BytesIO(data), skip_magic=True, emit_chunks=True).records)
        if not isinstance(record, Chunk):
            return [record]
        compression = _COMPRESSIONS[record.compression]  # the library takes one that it does not know for none
        records = breakup_chunk(record, validate_crc=True)
        self.compression = compression
        return records

    def _define(self, *records: McapRecord) -> None:
        for record in records:
            if isinstance(record, Schema):
                self.schemas[record.id] = record
            elif isinstance(record, Channel) and record.schema_id in self.schemas:
                self.channels[record.id] = record
                self.counts.setdefault(record.topic, 0)

    def _count(self, message: Message) -> None:
        self.counts[self.channels[message.channel_id].topic] += 1
        self.first_ns = message.log_time if self.first_ns is None else min(self.first_ns, message.log_time)
        self.last_ns = message.log_time if self.last_ns is None else max(self.last_ns, message.log_time)


def _is_opcode(number: int) -> bool:
    return number in _OPCODES or number >= _FIRST_PRIVATE_OPCODE


def _summary(file: IO[bytes]) -> Summary | None:
    """The index at the end of a file; None where it is missing or damaged, of which the library checks nothing."""
    end = file.seek(0, os.SEEK_END) - len(MCAP0_MAGIC)
    file.seek(max(0, end - FOOTER_SIZE))
    tail = file.read()
    if not tail.endswith(MCAP0_MAGIC):
        return None
    try:
        footer = next(StreamReader(BytesIO(tail), skip_magic=True).records)
        if not isinstance(footer, Footer):
            return None
        file.seek(footer.summary_start)
        data = file.read(end - 4 - footer.summary_start)  # its own sum is what the footer ends with
        if footer.summary_crc not in (0, zlib.crc32(data)):
            return None
        file.seek(0)
        return make_reader(file).get_summary()
    except Exception:  # the library raises many kinds
        return None
