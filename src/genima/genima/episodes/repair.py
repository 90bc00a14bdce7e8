"""Make whole bags of what killed recordings and power cuts left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genima.episodes.bag import PARTIAL
from genima.episodes.folders import BagLock, refuse_live, sync_folder
from genima.episodes.metadata import (
    METADATA,
    Topic,
    bag_information,
    finish_file,
    metadata_text,
    read_information,
    start_file,
)
from genima.episodes.scan import Scan
from genima.errors import GenimaError
from genima.files import atomic_write


@dataclass(frozen=True)
class Repaired:
    """What a bag holds after its repair."""

    folder: Path  # where it lies now
    messages: Mapping[str, int]  # by topic
    seconds: float  # from the first to the last
    bytes_cut: int  # of the file as it was: what could not be read
    healthy: bool  # nothing had to be mended


def repair(folder: Path) -> Repaired:
    """Keep every complete message of a bag, and give it its name when it has none yet.

    A healthy bag is left as it is. Interrupted at any moment, a repair loses nothing and can be run again. Attachments
    and metadata inside a damaged file are not kept.

    Args:
        folder: of the bag, in ``PARTIAL`` or not; for one that is there, its later name does too.

    Raises:
        GenimaError: when there is no such bag, when it is being recorded, holds no complete message, and when there is
            no room or no right to write it.
    """
    folder = _find(folder)
    unnamed = folder.parent.name == PARTIAL
    named = folder.parent.parent / folder.name if unnamed else folder
    refuse_live(folder)
    if unnamed and named.exists():
        raise GenimaError(f"cannot repair {folder}: {named} exists already; rename one of them")
    try:
        file = _file_of(folder)
        if not unnamed:  # it may lie where nothing can be written, and is as a rule healthy
            scan = _scan(file)
            if scan.whole and _described(folder, file, scan):
                return _result(folder, scan, healthy=True)
        lock = BagLock(folder)
        try:
            result = _repair(folder, file)
            if unnamed:
                folder.rename(named)
                folder = named
                sync_folder(named.parent)
        finally:
            lock.release(folder)
    except OSError as error:
        raise GenimaError(f"cannot repair {folder}: {error.strerror}") from None
    return _result(folder, *result)


def _repair(folder: Path, file: Path) -> tuple[Scan, bool]:
    """Mend file and metadata; returns what the file held before, and whether it was healthy."""
    scan = _scan(file)
    if not scan.whole and not any(scan.counts.values()):
        raise GenimaError(f"cannot repair {folder}: it holds no complete message; remove it")
    if scan.whole and _described(folder, file, scan):
        return scan, True
    information = bag_information(file.name, _topics(scan), scan.counts, scan.first_ns, scan.last_ns)
    metadata = metadata_text(information).encode()
    if scan.whole:
        atomic_write(folder / METADATA, metadata)
        sync_folder(folder)
        return scan, False
    size, free = file.stat().st_size, shutil.disk_usage(folder).free
    if free < size:
        raise GenimaError(f"cannot repair {folder}: that takes {size / 1e9:.2f} GB, the disk has {free / 1e9:.2f} left")
    part = file.with_name(file.name + ".part")
    part.unlink(missing_ok=True)
    try:
        _copy(file, part, scan, information)
        atomic_write(folder / METADATA, metadata)
        os.replace(part, file)
        sync_folder(folder)
    finally:
        part.unlink(missing_ok=True)
    return scan, False


def _copy(file: Path, part: Path, scan: Scan, information: dict[str, Any]) -> None:
    """Write what was found in ``file`` as a whole file."""
    with open(part, "xb") as stream:
        writer = start_file(stream, scan.compression)
        schemas = {
            number: writer.register_schema(schema.name, schema.encoding, schema.data)
            for number, schema in scan.schemas.items()
        }
        channels = {
            number: writer.register_channel(
                channel.topic, channel.message_encoding, schemas[channel.schema_id], channel.metadata
            )
            for number, channel in scan.channels.items()
        }
        for message in Scan(file).messages():
            writer.add_message(channels[message.channel_id], message.log_time, message.data, message.publish_time)
        finish_file(writer, information)
        stream.flush()
        os.fsync(stream.fileno())


def _topics(scan: Scan) -> list[Topic]:
    return [
        Topic(channel.topic, scan.schemas[channel.schema_id].name, channel.message_encoding, channel.metadata)
        for channel in scan.channels.values()
    ]


def _find(folder: Path) -> Path:
    partial = folder.parent / PARTIAL / folder.name
    for place in (folder, partial):
        if place.is_dir():
            return place
    raise GenimaError(f"no bag {folder}, and none of this name in {partial.parent}")


def _file_of(folder: Path) -> Path:
    files = sorted(folder.glob("*.mcap"))
    if len(files) != 1:
        raise GenimaError(f"cannot repair {folder}: it holds {len(files) or 'no'} .mcap file{'s' * (len(files) > 1)}")
    if (read_information(folder) or {}).get("compression_mode"):
        raise GenimaError(f"cannot repair {folder}: its messages are compressed one by one")
    return files[0]


def _scan(file: Path) -> Scan:
    scan = Scan(file)
    for _ in scan.messages():
        pass
    return scan


def _described(folder: Path, file: Path, scan: Scan) -> bool:
    """Whether metadata.yaml is that of the file."""
    information = read_information(folder)
    return information is not None and (
        information.get("relative_file_paths") == [file.name]
        and information.get("message_count") == sum(scan.counts.values())
    )


def _result(folder: Path, scan: Scan, healthy: bool) -> Repaired:
    seconds = ((scan.last_ns or 0) - (scan.first_ns or 0)) / 1e9
    return Repaired(folder, scan.counts, seconds, scan.bytes_lost, healthy)
