"""Repair of bags after crashes, power cuts and writes of other programs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Attachment, Metadata
from mcap.writer import MCAP0_MAGIC, Writer

from genima.data.episodes.bag import span_fits, unpack_file
from genima.data.episodes.folders import (
    PARTIAL,
    BagLock,
    is_bag_file,
    is_recreatable,
    repair_name,
    require_not_recording,
    sync_folder,
)
from genima.data.episodes.mcap_file import RECORD_BYTES, McapScan
from genima.data.episodes.metadata import (
    METADATA,
    QOS,
    STORAGES,
    ZSTD,
    FileContent,
    Information,
    Topic,
    bag_information,
    finish_file,
    load_information,
    metadata_text,
    qos_profiles,
    start_file,
)
from genima.data.episodes.sqlite_file import JOURNALS, SqliteFile
from genima.errors import GenimaError
from genima.io.files import atomic_write

_TORN = ".torn"  # suffix of the original of a repaired file
_UNFINISHED_BYTES = 4 << 20  # size of the unfinished chunk of a killed recording
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # of a message that rosbag2 compressed; serialized ones begin with 0


@dataclass(frozen=True)
class RepairResult:
    """Content of a bag after its repair."""

    folder: Path  # current path
    messages: Mapping[str, int]  # by topic
    seconds: float  # from the first to the last
    bytes_cut: int  # unreadable bytes of the original files
    healthy: bool  # no repair was needed
    notes: tuple[str, ...] = ()  # notes for the user: missing files, and files set aside


class _Content(NamedTuple):
    """Content of a bag file, damaged or not."""

    file: Path
    topics: list[Topic]
    counts: Mapping[str, int]
    first_ns: int | None
    last_ns: int | None
    scan: McapScan | None  # None for SQLite and compressed files, which are read completely or not at all
    packed: bool  # with individually compressed messages

    @property
    def whole(self) -> bool:
        return self.scan is None or self.scan.whole

    @property
    def messages(self) -> int:
        return sum(self.counts.values())


def repair(folder: Path) -> RepairResult:
    """Repair a bag with all complete messages, and move an unfinished one to its final name.

    An intact bag is left unchanged. A repair may be interrupted at any time without loss and run again. Intact files of
    a split bag stay unchanged; metadata.yaml is rewritten when it does not match the files.

    Args:
        folder: of the bag, in ``PARTIAL`` or not; for an unfinished bag also its final name.

    Raises:
        GenimaError: for a missing bag, a running recording, a bag without complete messages, and without space or
            permission.
    """
    folder = _find(folder)
    unnamed = folder.parent.name == PARTIAL
    named = folder.parent.parent / folder.name if unnamed else folder
    require_not_recording(folder)
    if unnamed and is_recreatable(folder):
        raise GenimaError(f"cannot repair {folder}: unfinished work of a command; run the command again")
    if unnamed and named.exists():
        raise GenimaError(f"cannot repair {folder}: {named} exists already; rename one of them")
    try:
        information = _information(folder)
        files = _files_of(folder, information)
        if not unnamed and not any(_journals(file) for file in files):  # it may be on a read-only disk
            contents = [_content(folder, file) for file in files]
            if _is_healthy(contents, information):
                return _result(folder, contents, healthy=True)
        lock = BagLock(folder)
        try:
            result = _repair(folder, files, information)
            if unnamed:
                folder.rename(named)
                folder = named
                sync_folder(named.parent)
        finally:
            lock.release(folder)
    except OSError as error:
        raise GenimaError(f"cannot repair {folder}: {error.strerror or error}") from None
    contents, healthy, notes = result
    return _result(folder, contents, healthy, notes)


def _repair(
    folder: Path, files: Sequence[Path], information: Information | None
) -> tuple[list[_Content], bool, list[str]]:
    """Repair files and metadata; return the original content, its integrity, and notes."""
    for file in files:
        if _journals(file):
            _close_database(folder, file)
    contents = [_content(folder, file) for file in files]
    if not any(content.messages for content in contents) and not all(content.whole for content in contents):
        remedy = "remove it" if folder.parent.name == PARTIAL else "move it away with ./genima episodes delete"
        raise GenimaError(f"cannot repair {folder}: it holds no complete message; {remedy}")
    if _is_healthy(contents, information):
        return contents, True, []
    names = {file.name for file in files}
    listed = information.files if information else []
    notes = [f"{name} is missing" for name in listed if name.removesuffix(ZSTD) not in _unpacked_names(names)]
    usable = [content for content in contents if content.whole or content.messages]
    for content in contents:
        if content not in usable:
            backup = _backup_path(folder, content)
            content.file.rename(backup)
            notes.append(f"{content.file.name} had no complete message; renamed to {backup.name}")
    counts, topics = _merged(usable)
    described = [FileContent(each.file.name, each.messages, each.first_ns, each.last_ns) for each in usable]
    packed = "message" if _is_packed(folder, usable) else ""
    values = bag_information(described, topics, counts, packed, like=information)
    torn = [content for content in usable if not content.whole]
    size, free = max((each.file.stat().st_size for each in torn), default=0), shutil.disk_usage(folder).free
    if free < size:
        raise GenimaError(f"cannot repair {folder}: that takes {size / 1e9:.2f} GB, the disk has {free / 1e9:.2f} left")
    metadata = metadata_text(values).encode()
    backups = {content.file: _backup_path(folder, content) for content in torn if _is_damaged_inside(content)}
    for content in torn:
        part = content.file.with_name(repair_name(content.file.name))
        part.unlink(missing_ok=True)  # of a killed repair
        try:
            _copy(content, part, values)
            if content is torn[-1]:
                atomic_write(folder / METADATA, metadata)
            if content.file in backups:
                _link_backup(content.file, backups[content.file])
                notes.append(f"the original of {content.file.name} is {backups[content.file].name}")
            os.replace(part, content.file)
        finally:
            part.unlink(missing_ok=True)
    if not torn:
        atomic_write(folder / METADATA, metadata)
    sync_folder(folder)
    return contents, False, notes


def _backup_path(folder: Path, content: _Content) -> Path:
    backup = content.file.with_name(content.file.name + _TORN)
    if backup.exists() or backup.is_symlink():
        raise GenimaError(f"cannot repair {folder}: {backup} exists already; move it away")
    return backup


def _is_damaged_inside(content: _Content) -> bool:
    """Return whether a file is damaged before its end, not only in its last record."""
    if content.scan is None or not content.scan.bytes_lost:
        return False
    with open(content.file, "rb") as file:
        file.seek(-len(MCAP0_MAGIC), os.SEEK_END)
        return content.scan.bytes_lost > _UNFINISHED_BYTES or file.read() == MCAP0_MAGIC


def _link_backup(file: Path, backup: Path) -> None:
    """Keep a file that is about to be replaced, under a second name."""
    try:
        os.link(file, backup)
    except OSError:  # a file system without links
        file.rename(backup)


def _copy(content: _Content, part: Path, information: dict[str, object]) -> None:
    """Write the recovered content of a damaged file as an intact file."""
    scan = content.scan
    assert scan is not None
    with open(part, "xb") as stream:
        writer = start_file(stream, scan.compression)
        schemas = {0: 0}
        for number, schema in scan.schemas.items():
            schemas[number] = writer.register_schema(schema.name, schema.encoding, schema.data)
        channels = {
            number: writer.register_channel(
                channel.topic, channel.message_encoding, schemas[channel.schema_id], channel.metadata
            )
            for number, channel in scan.channels.items()
        }
        for message in McapScan(content.file).messages():
            writer.add_message(channels[message.channel], message.log_ns, bytes(message.data), message.publish_ns)
        _copy_extras(content.file, scan, writer)
        finish_file(writer, information)
        stream.flush()
        os.fsync(stream.fileno())


def _copy_extras(file: Path, scan: McapScan, writer: Writer) -> None:
    """Copy attachments and metadata except rosbag2's own, which is rewritten."""
    with open(file, "rb") as source:
        for opcode, start, end in scan.extras:
            if end - start > RECORD_BYTES:
                continue
            source.seek(start)
            stream = ReadDataStream(BytesIO(source.read(end - start)))
            try:
                if opcode == Opcode.ATTACHMENT:
                    attached = Attachment.read(stream)
                    writer.add_attachment(
                        attached.create_time, attached.log_time, attached.name, attached.media_type, attached.data
                    )
                elif (metadata := Metadata.read(stream)).name != "rosbag2":
                    writer.add_metadata(metadata.name, metadata.metadata)
            except Exception:  # the library raises many kinds for damaged records
                continue


# --------------------------------------------------------------------------------------------------------------- files


def _find(folder: Path) -> Path:
    partial = folder.parent / PARTIAL / folder.name
    for place in (folder, partial):
        if place.is_dir():
            return place
    raise GenimaError(f"no bag {folder}, and none of this name in {partial.parent}")


def _information(folder: Path) -> Information | None:
    """Return metadata.yaml; None where it is missing or damaged."""
    try:
        return load_information(folder)
    except GenimaError:
        return None


def _files_of(folder: Path, information: Information | None) -> list[Path]:
    """Return the files of a bag, in order; of a compressed file and its unpacked copy, the copy."""
    names = sorted(
        (path.name for path in folder.iterdir() if path.is_file() and is_bag_file(path.name)), key=_natural_key
    )
    names = [name for name in names if not (name.endswith(ZSTD) and name.removesuffix(ZSTD) in names)]
    if not names:
        raise GenimaError(f"cannot repair {folder}: it holds no .mcap or .db3 file")
    if len({Path(name.removesuffix(ZSTD)).suffix for name in names}) > 1 or len({n.endswith(ZSTD) for n in names}) > 1:
        raise GenimaError(f"cannot repair {folder}: its files are of several kinds: {', '.join(names)}")
    listed = [name.removesuffix(ZSTD) for name in information.files] if information else []
    stems = {_split_stem(name) for name in names if name.removesuffix(ZSTD) not in listed}
    stems |= {_split_stem(name) for name in listed if stems}
    if len(names) > 1 and (len(stems) > 1 or "" in stems):
        raise GenimaError(
            f"cannot repair {folder}: it holds {len(names)} files of several bags ({', '.join(names[:3])}); "
            "give each bag a folder of its own"
        )
    order = {name: i for i, name in enumerate(listed)}
    names.sort(key=lambda name: (order.get(name.removesuffix(ZSTD), len(order)), _natural_key(name)))
    return [folder / name for name in names]


def _natural_key(name: str) -> tuple[str, int, str]:
    match = re.search(r"_(\d{1,9})\.", name)
    return (name[: match.start()], int(match[1]), name) if match else (name, -1, name)


def _split_stem(name: str) -> str:
    """Return the common stem of a split bag's file names; empty for other names."""
    match = re.fullmatch(r"(.+)_\d{1,9}\.(mcap|db3)", name.removesuffix(ZSTD))
    return match[1] if match else ""


def _unpacked_names(names: set[str]) -> set[str]:
    return {name.removesuffix(ZSTD) for name in names}


def _journals(file: Path) -> bool:
    """Return whether a database was not closed."""
    journals = [file.with_name(file.name + journal) for journal in JOURNALS]
    return file.suffix == ".db3" and any(path.exists() and path.stat().st_size for path in journals)


def _close_database(folder: Path, file: Path) -> None:
    """Apply a pending journal of an SQLite file."""
    try:
        database = sqlite3.connect(file)
        try:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.execute("PRAGMA journal_mode = DELETE")
            database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        finally:
            database.close()
    except sqlite3.Error as error:
        raise GenimaError(f"cannot repair {folder}: {file.name}: {error}") from None


def _content(folder: Path, file: Path) -> _Content:
    """Read the content of a file."""
    if file.suffix == ZSTD:
        with tempfile.TemporaryDirectory(prefix="genima_bag_") as place:
            try:
                content = _content(folder, unpack_file(file, Path(place)))
            except GenimaError as error:
                raise GenimaError(f"cannot repair {folder}: {error}") from None
        if not content.whole:
            unpack = f"zstd -d {shlex.quote(str(file))}"
            raise GenimaError(f"cannot repair {folder}: {file.name} is damaged inside; unpack it first: {unpack}")
        return content._replace(file=file, scan=None)
    if file.suffix == ".db3":
        try:
            database = SqliteFile(file)
        except GenimaError as error:
            raise GenimaError(f"cannot repair {folder}: {error}") from None
        try:
            packed = any(data[:4] == _ZSTD_MAGIC for *_, data in islice(database.messages(database.counts), 1))
        finally:
            database.close()
        return _Content(file, database.topics, database.counts, database.first_ns, database.last_ns, None, packed)
    scan = McapScan(file)
    zstd = sum(message.data[:4] == _ZSTD_MAGIC for message in scan.messages())
    if scan.profile == "ros1":
        raise GenimaError(f"cannot repair {folder}: {file.name} is of ROS 1")
    total = sum(scan.counts.values())
    return _Content(file, scan.topics, scan.counts, scan.first_ns, scan.last_ns, scan, 0 < total == zstd)


def _is_packed(folder: Path, contents: Sequence[_Content]) -> bool:
    kinds = {content.packed for content in contents if content.messages}
    if len(kinds) > 1:
        raise GenimaError(f"cannot repair {folder}: only some of its files have compressed messages")
    return True in kinds


# ------------------------------------------------------------------------------------------------------------ metadata


def _merged(contents: Sequence[_Content]) -> tuple[dict[str, int], list[Topic]]:
    counts: dict[str, int] = {}
    for content in contents:
        for topic, count in content.counts.items():
            counts[topic] = counts.get(topic, 0) + count
    return counts, [topic for content in contents for topic in content.topics]


def _is_healthy(contents: Sequence[_Content], information: Information | None) -> bool:
    """Return whether all files are intact and match metadata.yaml."""
    if information is None or not all(content.whole for content in contents):
        return False
    counts, topics = _merged(contents)
    suffix = Path(contents[0].file.name.removesuffix(ZSTD)).suffix
    compression = "file" if contents[0].file.suffix == ZSTD else "message" if contents[0].packed else ""
    return (
        information.files == [content.file.name for content in contents]
        and information.storage_identifier == STORAGES[suffix]
        and (information.compression == compression or not any(content.messages for content in contents))
        and information.message_count == sum(counts.values())
        and _nonzero(information.counts) == _nonzero(counts)
        and span_fits(information, [(content.first_ns, content.last_ns) for content in contents])
        and _has_topics(information, topics)
    )


def _nonzero(counts: Mapping[str, int]) -> dict[str, int]:
    return {topic: count for topic, count in counts.items() if count}


def _has_topics(information: Information, topics: Sequence[Topic]) -> bool:
    """Return whether metadata.yaml has types and QoS of the files' topics; unknown values match."""
    listed = {each.topic_metadata.name: each.topic_metadata for each in information.topics_with_message_count}
    for topic in topics:
        if (each := listed.get(topic.name)) is None:
            continue
        if each.type != topic.msgtype or each.serialization_format != topic.encoding:
            return False
        if information.version >= 4:
            try:
                ours = qos_profiles(topic.notes.get(QOS, ""))
            except GenimaError:
                continue
            try:
                theirs = qos_profiles(each.offered_qos_profiles)
            except GenimaError:
                return False
            if ours and not theirs:
                return False
    return True


def _result(folder: Path, contents: Sequence[_Content], healthy: bool, notes: Sequence[str] = ()) -> RepairResult:
    counts, _ = _merged(contents)
    firsts = [content.first_ns for content in contents if content.first_ns is not None]
    lasts = [content.last_ns for content in contents if content.last_ns is not None]
    seconds = (max(lasts) - min(firsts)) / 1e9 if firsts and lasts else 0.0
    lost = sum(content.scan.bytes_lost for content in contents if content.scan)
    return RepairResult(folder, counts, seconds, lost, healthy, tuple(notes))
