"""Tests of recording: written messages are on the disk, lost ones are counted, and files of a crash are repaired."""

from __future__ import annotations

import math
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import SeekingReader, make_reader
from mcap.writer import Writer
from rosbags.highlevel import AnyReader
from rosbags.rosbag2.storage_mcap import McapReader

from genima.data.episodes import bag_recorder as recording
from genima.data.episodes import folders, repair
from genima.data.episodes.bag import PARTIAL, types
from genima.data.episodes.bag_recorder import BagRecorder
from genima.data.episodes.folders import remove_recording, repair_name
from genima.data.episodes.metadata import METADATA, Compression, Qos, start_file
from genima.data.episodes.repair import RepairResult
from genima.errors import GenimaError
from genima_cli.__main__ import main

KILLS = 4  # of a recording process; 100 by hand take some ten minutes
START = 1_700_000_000_000_000_000
STRING, JOINTS = "std_msgs/msg/String", "sensor_msgs/msg/JointState"

mend = repair.repair


class WrittenMessage(NamedTuple):
    topic: str
    log_ns: int
    data: bytes


def text(value: str) -> bytes:
    return bytes(types().serialize_cdr(types().types[STRING](data=value), STRING))


def messages(number: int = 60) -> list[WrittenMessage]:
    """Messages on two topics, in order, of different sizes, some with equal times."""
    return [
        WrittenMessage(("/a", "/b")[i % 3 == 0], START + i // 2 * 10_000_000, text(f"{i} " + "x" * (37 * i % 101)))
        for i in range(number)
    ]


def record(folder: Path, written: list[WrittenMessage], **options: object) -> Path:
    with BagRecorder(folder, **{"chunk_bytes": 500, "reserve_bytes": 0, **options}) as recorder:  # type: ignore[arg-type]
        recorder.add_topic("/a", STRING, Qos())
        recorder.add_topic("/b", STRING, Qos(depth=1, durability="transient_local"))
        recorder.add_topic("/silent", JOINTS)
        for message in written:
            assert recorder.write(message.topic, message.data, message.log_ns, message.log_ns - 5)
    return folder


def read(folder: Path) -> list[WrittenMessage]:
    with AnyReader([folder]) as bag:
        return [WrittenMessage(connection.topic, log_ns, bytes(raw)) for connection, log_ns, raw in bag.messages()]


def information(folder: Path) -> dict:
    return yaml.safe_load((folder / METADATA).read_text())["rosbag2_bagfile_information"]


def mcap_of(folder: Path) -> Path:
    (file,) = folder.glob("*.mcap")
    return file


@pytest.fixture
def write_unfinished(tmp_path: Path) -> Callable[[bytes], Path]:
    """Function that creates the folder of a killed recording from the bytes of its file."""

    def make(data: bytes) -> Path:
        folder = tmp_path / PARTIAL / "killed"
        folder.mkdir(parents=True)
        (folder / "killed.mcap").write_bytes(data)
        (folder / folders.LOCK).write_text("1")
        return folder

    return make


@pytest.fixture(scope="module")
def complete_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return mcap_of(record(tmp_path_factory.mktemp("whole") / "bag", messages())).read_bytes()


@pytest.fixture(scope="module")
def chunk_ends(complete_file: bytes, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, int]]:
    """End offset of each chunk of ``complete_file`` and the number of messages up to it, read by another library."""
    file = tmp_path_factory.mktemp("chunks") / "bag.mcap"
    file.write_bytes(complete_file)
    reader, total, ends = McapReader(file), 0, []
    reader.open()
    for chunk in reader.chunks:
        total += sum(chunk.channel_count.values())
        ends.append((chunk.chunk_start_offset + chunk.chunk_length, total))
    reader.close()
    assert total == len(messages()) and len(ends) > 5
    return ends


def test_recording_round_trip_is_exact(tmp_path: Path) -> None:
    folder = record(tmp_path / "bag", messages())
    assert read(folder) == messages()
    assert sorted(path.name for path in folder.iterdir()) == ["bag.mcap", METADATA]
    assert not list((tmp_path / PARTIAL).iterdir())


def test_mcap_library_reads_recording(tmp_path: Path) -> None:
    with open(mcap_of(record(tmp_path / "bag", messages())), "rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert isinstance(reader, SeekingReader) and reader.get_header().profile == "ros2"
        found = [(channel.topic, message.log_time, message.data) for _, channel, message in reader.iter_messages()]
        assert found == [tuple(message) for message in messages()]
        assert all(m.publish_time == m.log_time - 5 for _, _, m in reader.iter_messages(topics=["/b"]))
        summary = reader.get_summary()
        schemas = {schema.name: schema for schema in summary.schemas.values()}
        assert set(schemas) == {STRING, JOINTS} and all(schema.encoding == "ros2msg" for schema in schemas.values())
        definition = schemas[JOINTS].data.decode()
        assert "float64[] position" in definition
        assert "=" * 80 + "\nMSG: std_msgs/Header\n" in definition and "MSG: builtin_interfaces/Time" in definition
        assert summary.statistics.message_count == len(messages()) and summary.statistics.schema_count == 2
        assert summary.statistics.chunk_count == len(summary.chunk_indexes) > 1
        channels = {channel.topic: channel for channel in summary.channels.values()}
        assert channels["/a"].metadata["topic_type_hash"].startswith("RIHS01_")
        assert [entry.name for entry in reader.iter_metadata()] == ["rosbag2"]


def test_metadata_equals_rosbag2(tmp_path: Path) -> None:
    found, written = information(record(tmp_path / "bag", messages())), messages()
    assert found["version"] == 9 and found["storage_identifier"] == "mcap" and found["ros_distro"] == "jazzy"
    assert found["relative_file_paths"] == ["bag.mcap"] and found["message_count"] == len(written)
    assert found["starting_time"] == {"nanoseconds_since_epoch": START}
    assert found["duration"] == {"nanoseconds": written[-1].log_ns - START}
    assert found["compression_format"] == found["compression_mode"] == ""
    assert found["files"][0]["message_count"] == len(written) and found["files"][0]["path"] == "bag.mcap"
    topics = {topic["topic_metadata"]["name"]: topic for topic in found["topics_with_message_count"]}
    counts = {name: topic["message_count"] for name, topic in topics.items()}
    assert counts == {"/a": 40, "/b": 20, "/silent": 0}
    about = topics["/b"]["topic_metadata"]
    assert about["type"] == STRING and about["serialization_format"] == "cdr"
    assert about["type_description_hash"] == types().hash_rihs01(STRING)
    endless = {"sec": 9223372036, "nsec": 854775807}
    assert about["offered_qos_profiles"] == [
        {
            "history": "keep_last",
            "depth": 1,
            "reliability": "reliable",
            "durability": "transient_local",
            "deadline": endless,
            "lifespan": endless,
            "liveliness": "automatic",
            "liveliness_lease_duration": endless,
            "avoid_ros_namespace_conventions": False,
        }
    ]
    assert topics["/silent"]["topic_metadata"]["offered_qos_profiles"] == []


def test_qos_may_be_rosbag2_text(tmp_path: Path) -> None:
    qos = Qos(reliability="best_effort", deadline=100_000_000)
    with BagRecorder(tmp_path / "bag", reserve_bytes=0) as recorder:
        recorder.add_topic("/a", STRING, str(qos) + "\n" + str(Qos()))
        for bad in ("- history: keep_last", "{[", "reliable"):
            with pytest.raises(GenimaError, match="not the QoS"):
                recorder.add_topic("/b", STRING, bad)
        recorder.write("/a", text("one"), START)
    with AnyReader([tmp_path / "bag"]) as bag:
        first, second = bag.connections[0].ext.offered_qos_profiles  # type: ignore[union-attr]
        assert first.reliability.name == "BEST_EFFORT" and second.reliability.name == "RELIABLE"
        assert first.deadline == (0, 100_000_000)
        assert len(list(bag.messages())) == 1


def test_own_message_types_are_defined_by_files(tmp_path: Path) -> None:
    kind = "genima_interfaces/msg/Observed"
    source = Path(__file__).resolve().parents[4] / "src" / "genima_interfaces" / "msg" / "Observed.msg"
    with BagRecorder(tmp_path / "bag", reserve_bytes=0, definitions={kind: source.read_text()}) as recorder:
        recorder.add_topic("/observed", kind, Qos())
        time_type, header = types().types["builtin_interfaces/msg/Time"], types().types["std_msgs/msg/Header"]
        store = recorder._types
        message = store.types[kind](header=header(time_type(1, 2), "f"), problem="none")
        recorder.write("/observed", store.serialize_cdr(message, kind), START)
    assert kind not in types().fielddefs, "the shared types stay as they were"
    with AnyReader([tmp_path / "bag"]) as bag:
        ((connection, _, raw),) = bag.messages()
        assert bag.deserialize(raw, connection.msgtype).problem == "none"  # type: ignore[attr-defined]
    with BagRecorder(tmp_path / "other", reserve_bytes=0) as recorder:
        with pytest.raises(GenimaError, match="/observed: type genima_interfaces/msg/Observed has no definition"):
            recorder.add_topic("/observed", kind)
    with pytest.raises(GenimaError, match="definition of a/msg/B"):
        BagRecorder(tmp_path / "third", definitions={"a/msg/B": "float64[ x"})
    assert not (tmp_path / PARTIAL / "third").exists()


def test_misuse_is_one_line_and_ends_nothing(tmp_path: Path) -> None:
    with BagRecorder(tmp_path / "bag", reserve_bytes=0) as recorder:
        recorder.add_topic("/a", STRING)
        with pytest.raises(GenimaError, match="/a twice"):
            recorder.add_topic("/a", STRING)
        with pytest.raises(GenimaError, match="/b: it is no topic"):
            recorder.write("/b", b"", START)
        with pytest.raises(GenimaError, match="no time in ns"):
            recorder.write("/a", text("x"), -1)
        recorder.write("/a", text("x"), START)
    assert len(read(tmp_path / "bag")) == 1
    for call in (recorder.finish, lambda: recorder.write("/a", b"", START), lambda: recorder.add_topic("/b", STRING)):
        with pytest.raises(GenimaError, match=": over; start"):
            call()
    recorder.close()
    recorder.discard()
    assert len(read(tmp_path / "bag")) == 1, "a finished bag is never removed"


def test_empty_recording_is_complete(tmp_path: Path) -> None:
    with BagRecorder(tmp_path / "bag", reserve_bytes=0):
        pass
    assert read(tmp_path / "bag") == [] and information(tmp_path / "bag")["message_count"] == 0
    assert mend(tmp_path / "bag").healthy


def test_files_are_reproducible(tmp_path: Path) -> None:
    files = [mcap_of(record(tmp_path / place / "bag", messages(), flush_seconds=math.inf)) for place in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


class HeldWriter:
    """Writer thread, held at its next message."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self._go = threading.Event(), threading.Event()
        original = Writer.add_message

        def add_message(writer: Writer, *arguments: Any) -> None:
            self.reached.set()
            self._go.wait()
            original(writer, *arguments)

        monkeypatch.setattr(Writer, "add_message", add_message)

    def release(self) -> None:
        self._go.set()


def test_full_queue_drops_and_counts_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, data = HeldWriter(monkeypatch), text("x" * 100)
    with BagRecorder(tmp_path / "bag", reserve_bytes=0, queue_bytes=5 * len(data)) as recorder:
        recorder.add_topic("/a", STRING)
        recorder.add_topic("/b", STRING)
        assert recorder.write("/a", data, START)
        held.reached.wait()  # one is with the thread, five fit
        taken = [recorder.write("/b", data, START + i) for i in range(8)]
        assert taken == [True] * 5 + [False] * 3
        found = recorder.statistics
        assert found.topics["/a"].dropped == 0 and found.topics["/b"].dropped == found.dropped == 3
        assert found.topics["/b"].messages == 5 and found.topics["/b"].bytes == found.queue_bytes == 5 * len(data)
        assert found.messages == 6 and found.stopped is None and found.megabytes_per_second > 0
        waiting = threading.Thread(target=lambda: recorder.write("/b", data, START + 8, wait=True))
        waiting.start()
        held.release()
        waiting.join()
        assert recorder.statistics.topics["/b"].messages == 6
    assert [message.log_ns - START for message in read(tmp_path / "bag")] == [0, 0, 1, 2, 3, 4, 8]


def _write_until_it_stops(recorder: BagRecorder) -> str:
    recorder.add_topic("/a", STRING)
    for i in range(100_000):
        try:
            recorder.write("/a", text(f"{i} " + "x" * 1000), START + i, wait=True)
        except GenimaError as error:
            return str(error)
    raise AssertionError("the recording did not stop")


def _numbers(folder: Path) -> list[int]:
    return [int(message.data[8:].split()[0]) for message in read(folder)]


def test_recording_on_full_disk_can_be_repaired(small_disk: Path) -> None:
    recorder = BagRecorder(small_disk / "bag", reserve_bytes=0, chunk_bytes=10_000, queue_bytes=100_000)
    line = _write_until_it_stops(recorder)
    assert "No space left" in line and "\n" not in line and recorder.statistics.stopped == line
    with pytest.raises(GenimaError, match="No space left"):
        recorder.finish()
    assert not (small_disk / "bag").exists()
    found = recorder.statistics
    assert found.dropped > 0
    with pytest.raises(GenimaError, match="takes .* GB, the disk has"):
        mend(small_disk / "bag")
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert mend(small_disk / "bag").messages == {"/a": found.messages}
    assert _numbers(small_disk / "bag") == list(range(found.messages)) and found.messages > 500


def test_recording_after_write_error_can_be_repaired(tmp_path: Path) -> None:
    recorder = BagRecorder(
        tmp_path / "bag", reserve_bytes=0, chunk_bytes=3000, queue_bytes=20_000, flush_seconds=math.inf
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        line = _write_until_it_stops(recorder)
        assert "File too large" in line and "\n" not in line
        for call in (recorder.finish, lambda: recorder.write("/a", b"", START)):
            with pytest.raises(GenimaError, match="File too large"):
                call()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found, repaired = recorder.statistics, mend(tmp_path / PARTIAL / "bag")
    assert repaired.messages == {"/a": found.messages} and repaired.bytes_cut > 0 and found.dropped > 0
    assert _numbers(tmp_path / "bag") == list(range(found.messages))


def test_reserve_completes_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 10**9
    usage = type("Usage", (), {"free": property(lambda self: free)})()
    monkeypatch.setattr(recording.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(GenimaError, match="1.00 GB left, 2.00 GB are kept"):
        BagRecorder(tmp_path / "bag", reserve_bytes=2 * 10**9)
    assert not (tmp_path / PARTIAL / "bag").exists()
    recorder = BagRecorder(tmp_path / "bag", reserve_bytes=10**9, flush_seconds=0.01)
    recorder.add_topic("/a", STRING)
    recorder.write("/a", text("0 "), START)
    free -= 1
    recorder._thread.join()  # it stops without a signal
    with pytest.raises(GenimaError, match="stopped: the disk has 1.00 GB left"):
        recorder.write("/a", text("1 "), START)
    recorder.finish()
    assert _numbers(tmp_path / "bag") == [0] and recorder.statistics.messages == 1


def test_two_recorders_never_share_folder(tmp_path: Path) -> None:
    with BagRecorder(tmp_path / "bag", reserve_bytes=0) as recorder:
        recorder.add_topic("/a", STRING)
        for replace in (False, True):
            with pytest.raises(GenimaError, match=f"is being recorded by process {os.getpid()}$"):
                BagRecorder(tmp_path / "bag", reserve_bytes=0, replace=replace)
        for folder in (tmp_path / "bag", recorder.partial):
            with pytest.raises(GenimaError, match="is being recorded by process"):
                mend(folder)
        recorder.write("/a", text("0 "), START)
    assert _numbers(tmp_path / "bag") == [0]
    with pytest.raises(GenimaError, match="exists already"):
        BagRecorder(tmp_path / "bag", replace=True)


def test_unfinished_recording_is_not_overwritten(tmp_path: Path) -> None:
    left = BagRecorder(tmp_path / "bag", reserve_bytes=0)
    left.add_topic("/a", STRING)
    left.write("/a", text("0 "), START)
    left.close()
    before = mcap_of(left.partial).read_bytes()
    with pytest.raises(GenimaError, match=r"\./genima episodes repair") as caught:
        BagRecorder(tmp_path / "bag", reserve_bytes=0)
    assert "\n" not in str(caught.value) and mcap_of(left.partial).read_bytes() == before
    with pytest.raises(GenimaError, match=r"\./genima episodes repair"):  # it cannot be reproduced
        BagRecorder(tmp_path / "bag", reserve_bytes=0, replace=True)
    assert mcap_of(left.partial).read_bytes() == before


def test_unfinished_recording_is_replaced_only_by_its_kind_without_other_files(
    tmp_path: Path,
) -> None:
    for name in ("one", "two"):
        left = BagRecorder(tmp_path / name, reserve_bytes=0, replace=True)
        left.close()
    record(tmp_path / "one", messages(), replace=True)
    assert read(tmp_path / "one") == messages()
    mine = left.partial / "notes.txt"
    mine.write_text("mine")
    for replace in (False, True):
        with pytest.raises(GenimaError, match="notes.txt"):
            BagRecorder(tmp_path / "two", reserve_bytes=0, replace=replace)
    theirs = tmp_path / PARTIAL / "three"
    theirs.mkdir()
    (theirs / "three.mcap").write_bytes(b"mine")
    for replace in (False, True):
        with pytest.raises(GenimaError, match="repair"):
            BagRecorder(tmp_path / "three", reserve_bytes=0, replace=replace)
    assert mine.read_text() == "mine" and (theirs / "three.mcap").read_bytes() == b"mine"


def test_only_unfinished_recording_of_own_kind_is_removed(tmp_path: Path) -> None:
    left = BagRecorder(tmp_path / "new", reserve_bytes=0, replace=True)
    left.close()
    remove_recording(left.partial)
    remove_recording(left.partial)  # nothing is there any more
    assert not left.partial.exists()
    person = BagRecorder(tmp_path / "person", reserve_bytes=0)
    person.add_topic("/a", STRING)
    person.write("/a", text("0 "), START)
    with pytest.raises(GenimaError, match="is being recorded"):
        remove_recording(person.partial)
    person.close()
    before = mcap_of(person.partial).read_bytes()
    with pytest.raises(GenimaError, match="move it away"):
        remove_recording(person.partial)
    (link := tmp_path / PARTIAL / "link").symlink_to(tmp_path)
    with pytest.raises(GenimaError, match="not a folder of a recording"):
        remove_recording(link)
    assert mcap_of(person.partial).read_bytes() == before and link.is_symlink()


def test_discard_keeps_other_files(tmp_path: Path) -> None:
    recorder = BagRecorder(tmp_path / "bag", reserve_bytes=0)
    mine = recorder.partial / "notes.txt"
    mine.write_text("mine")
    recorder.discard()
    assert [path.name for path in recorder.partial.iterdir()] == ["notes.txt"] and mine.read_text() == "mine"


def test_exception_leaves_repairable_bag_and_discard_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), BagRecorder(tmp_path / "bag", reserve_bytes=0) as recorder:
        recorder.add_topic("/a", STRING)
        recorder.write("/a", text("0 "), START)
        raise KeyboardInterrupt
    assert not (tmp_path / "bag").exists() and recorder.partial.exists()
    assert mend(tmp_path / "bag").messages == {"/a": 1}
    for closed in (False, True):
        other = BagRecorder(tmp_path / "other", reserve_bytes=0)
        if closed:
            other.close()
        other.discard()
        assert not (tmp_path / "other").exists() and not other.partial.exists()


def test_single_killed_recording_can_be_repaired(tmp_path: Path) -> None:
    for name in ("one", "two"):
        recorder = BagRecorder(tmp_path / name, reserve_bytes=0)
        recorder.add_topic("/a", STRING)
        recorder.write("/a", text("0 "), START)
        recorder.close()
    assert main(["episodes", "repair", str(tmp_path / PARTIAL / "one")]) == 0
    assert (tmp_path / "one" / METADATA).exists() and not (tmp_path / "two").exists()


def _expected(chunk_ends: list[tuple[int, int]], size: int) -> int:
    return max((count for end, count in chunk_ends if end <= size), default=0)


def _mended(folder: Path, expected: int) -> RepairResult | None:
    """Repair and require exactly the messages of the complete chunks, in order."""
    if not expected:
        before = mcap_of(folder).read_bytes()
        with pytest.raises(GenimaError, match="no complete message"):
            mend(folder)
        assert mcap_of(folder).read_bytes() == before
        return None
    repaired = mend(folder)
    assert repaired.folder == folder.parent.parent / folder.name and not folder.exists()
    assert read(repaired.folder) == messages()[:expected]
    assert sum(repaired.messages.values()) == expected == information(repaired.folder)["message_count"]
    assert repaired.seconds == (messages()[expected - 1].log_ns - START) / 1e9
    assert sorted(path.name for path in repaired.folder.iterdir()) == ["killed.mcap", METADATA]
    again = mend(repaired.folder)
    assert again == RepairResult(repaired.folder, repaired.messages, repaired.seconds, 0, healthy=True)
    return repaired


@settings(max_examples=60)
@given(data=st.data())
def test_truncated_file_keeps_messages_of_complete_chunks(
    data: st.DataObject,
    complete_file: bytes,
    chunk_ends: list[tuple[int, int]],
    write_unfinished: Callable[[bytes], Path],
) -> None:
    boundaries = st.sampled_from([end for end, _ in chunk_ends]).map(lambda end: min(end, len(complete_file) - 1))
    size = data.draw(st.integers(0, len(complete_file) - 1) | boundaries)
    folder = write_unfinished(complete_file[:size])
    repaired = _mended(folder, _expected(chunk_ends, size))
    assert repaired is None or not repaired.healthy
    shutil.rmtree(folder.parent.parent)


@settings(max_examples=40)
@given(data=st.data(), garbage=st.binary(min_size=1, max_size=300) | st.just(bytes(5000)))
def test_trailing_garbage_is_removed(
    data: st.DataObject,
    garbage: bytes,
    complete_file: bytes,
    chunk_ends: list[tuple[int, int]],
    write_unfinished: Callable[[bytes], Path],
) -> None:
    size = data.draw(st.just(len(complete_file)) | st.sampled_from([end for end, _ in chunk_ends]))
    folder = write_unfinished(complete_file[:size] + garbage)
    repaired = _mended(folder, _expected(chunk_ends, size))
    assert repaired is not None and not repaired.healthy
    shutil.rmtree(folder.parent.parent)


@pytest.mark.parametrize(
    ("number", "place"),
    [(3, -20), (3, 9 + 28), (3, 9 + 33), (0, -20)],
    ids=["messages", "size of a word", "size of the data", "what the topics are"],
)
def test_damaged_chunk_loses_only_its_messages(
    complete_file: bytes,
    chunk_ends: list[tuple[int, int]],
    write_unfinished: Callable[[bytes], Path],
    number: int,
    place: int,
) -> None:
    summary = make_reader(BytesIO(complete_file)).get_summary()
    assert summary is not None
    start = summary.chunk_indexes[number].chunk_start_offset
    end = start + summary.chunk_indexes[number].chunk_length
    damaged = bytearray(complete_file)
    damaged[(end if place < 0 else start) + place] ^= 1
    repaired = mend(write_unfinished(bytes(damaged)))
    before = chunk_ends[number - 1][1] if number else 0
    assert read(repaired.folder) == messages()[:before] + messages()[chunk_ends[number][1] :]
    assert repaired.bytes_cut == end - start and mend(repaired.folder).healthy
    assert mcap_of(repaired.folder).with_suffix(".mcap.torn").read_bytes() == damaged, "the original stays"


def test_data_after_complete_file_is_kept(complete_file: bytes, write_unfinished: Callable[[bytes], Path]) -> None:
    repaired = mend(write_unfinished(complete_file + complete_file))
    assert repaired.bytes_cut == len(complete_file) and len(repaired.notes) == 1 and read(repaired.folder) == messages()
    aside = mcap_of(repaired.folder).with_suffix(".mcap.torn")
    assert aside.read_bytes() == complete_file + complete_file and mend(repaired.folder).healthy
    mcap_of(repaired.folder).write_bytes(complete_file + complete_file)
    with pytest.raises(GenimaError, match="move it away"):
        mend(repaired.folder)
    assert aside.read_bytes() == mcap_of(repaired.folder).read_bytes() == complete_file + complete_file


@pytest.mark.parametrize("field", [b"history", b"topic_type_hash", b"JointState", b"/silent", b"ros2msg"])
def test_damaged_index_is_rebuilt(
    complete_file: bytes, write_unfinished: Callable[[bytes], Path], field: bytes
) -> None:
    damaged = bytearray(complete_file)
    damaged[complete_file.rindex(field)] ^= 1
    repaired = mend(write_unfinished(bytes(damaged)))
    assert set(repaired.messages) == {"/a", "/b", "/silent"}
    assert not repaired.healthy and repaired.bytes_cut == 0
    assert read(repaired.folder) == messages() and mend(repaired.folder).healthy


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_chunks_are_repaired_and_stay_compressed(
    tmp_path: Path, write_unfinished: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch, compression: Compression
) -> None:
    """File variants of other recorders."""
    with monkeypatch.context() as patch:
        patch.setattr(recording, "start_file", lambda stream, _, size: start_file(stream, compression, size))
        data = mcap_of(record(tmp_path / "bag", messages())).read_bytes()
    repaired = mend(write_unfinished(data[: len(data) // 2]))
    kept = read(repaired.folder)
    assert kept == messages()[: len(kept)] and len(kept) > 10
    assert compression.encode() in mcap_of(repaired.folder).read_bytes()


def test_damaged_header_is_rebuilt(complete_file: bytes, write_unfinished: Callable[[bytes], Path]) -> None:
    damaged = bytearray(complete_file)
    damaged[complete_file.index(b"ros2")] ^= 1
    repaired = mend(write_unfinished(bytes(damaged)))
    assert not repaired.healthy and read(repaired.folder) == messages()


def test_messages_outside_chunks_are_kept(tmp_path: Path, write_unfinished: Callable[[bytes], Path]) -> None:
    file = mcap_of(record(tmp_path / "bag", messages(), chunk_bytes=1 << 20, flush_seconds=math.inf))
    reader = McapReader(file)
    reader.open()
    (chunk,) = reader.chunks
    start = chunk.chunk_start_offset + 9 + 40
    reader.close()
    data = file.read_bytes()
    plain = data[: chunk.chunk_start_offset] + data[start : start + chunk.uncompressed_size]
    kept = read(mend(write_unfinished(plain[:-1])).folder)
    assert kept == messages()[:-1]


def test_invalid_metadata_is_rewritten(tmp_path: Path) -> None:
    folder = record(tmp_path / "bag", messages())
    healthy, file = information(folder), mcap_of(folder)
    before = file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino
    for damage in (
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"\xff{["),
        lambda path: path.write_text("rosbag2_bagfile_information: {message_count: 3}"),
    ):
        damage(folder / METADATA)
        repaired = mend(folder)
        assert not repaired.healthy and repaired.bytes_cut == 0 and information(folder) == healthy
        assert (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) == before
        assert read(folder) == messages()


def test_healthy_bag_is_unchanged(tmp_path: Path) -> None:
    folder = record(tmp_path / "bag", messages())
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    stamp = folder.stat().st_mtime_ns
    assert mend(folder) == RepairResult(folder, {"/a": 40, "/b": 20, "/silent": 0}, 0.29, 0, healthy=True)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before
    assert folder.stat().st_mtime_ns == stamp
    unnamed = tmp_path / PARTIAL / "bag"
    folder.rename(unnamed)
    repaired = mend(unnamed)
    assert repaired.healthy and repaired.folder == folder and read(folder) == messages()


@pytest.mark.parametrize("step", range(5))
def test_interrupted_repair_can_be_repeated(
    complete_file: bytes,
    chunk_ends: list[tuple[int, int]],
    write_unfinished: Callable[[bytes], Path],
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    """Interruption before, during and after the copy, before the replacement and before the rename."""
    size = chunk_ends[-1][0]
    folder = write_unfinished(complete_file[:size])

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    target, name = (
        (repair, "_copy"),
        (Writer, "finish"),
        (repair, "atomic_write"),
        (repair.os, "replace"),
        (Path, "rename"),
    )[step]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(target, name, interrupted)
        mend(folder)
    (folder / repair_name("killed.mcap")).write_bytes(b"what a killed repair leaves")
    (folder / "killed.mcap.part").write_bytes(b"of the user")
    repaired = mend(folder)
    assert read(repaired.folder) == messages()[: chunk_ends[-1][1]]


def test_failed_repair_is_one_line_error(
    tmp_path: Path, write_unfinished: Callable[[bytes], Path], complete_file: bytes
) -> None:
    with pytest.raises(GenimaError, match="no bag .*none"):
        mend(tmp_path / "none")
    folder = write_unfinished(b"")
    with pytest.raises(GenimaError, match="no complete message"):
        mend(folder)
    mcap_of(folder).unlink()
    with pytest.raises(GenimaError, match="no .mcap or .db3 file$"):
        mend(folder)
    for name in "ab":
        (folder / f"{name}.mcap").write_bytes(complete_file)
    with pytest.raises(GenimaError, match="2 files of several bags"):
        mend(folder)
    (folder / "a.mcap").unlink()
    record(tmp_path / "other", messages()).rename(tmp_path / "killed")
    with pytest.raises(GenimaError, match="exists already"):
        mend(folder)
    assert mcap_of(folder).read_bytes() == complete_file


_RECORD = """
import mmap, sys, time
from pathlib import Path
from genima.data.episodes.bag import types
from genima.data.episodes.bag_recorder import BagRecorder

KIND, folder, handed_over = "std_msgs/msg/String", Path(sys.argv[1]), sys.argv[2]
with open(handed_over, "r+b") as file:
    times = mmap.mmap(file.fileno(), 0)  # outlives this process
recorder = BagRecorder(folder)
recorder.add_topic("/numbers", KIND)
start = time.monotonic()
for i in range(len(times) // 8):
    data = types().serialize_cdr(types().types[KIND](data=f"{i} " + "x" * 200), KIND)
    now = time.time_ns()
    recorder.write("/numbers", data, now)
    times[8 * i : 8 * i + 8] = now.to_bytes(8, "little")
    time.sleep(max(0.0, start + (i + 1) / 1000 - time.monotonic()))
"""


@pytest.mark.timeout(120 + 15 * KILLS)
def test_killed_recording_loses_at_most_one_second(tmp_path: Path) -> None:
    rng = random.Random(7)
    for kill in range(KILLS):
        folder, handed_over = tmp_path / f"{kill}", tmp_path / f"{kill}.times"
        handed_over.write_bytes(bytes(8 * 60_000))
        process = subprocess.Popen([sys.executable, "-c", _RECORD, str(folder), str(handed_over)])
        try:
            while handed_over.read_bytes()[:8] == bytes(8):
                assert process.poll() is None
                time.sleep(0.05)
            time.sleep(rng.uniform(1.2, 4.0))
        finally:
            process.kill()
            process.wait()
        times = [stamp for (stamp,) in struct.iter_unpack("<Q", handed_over.read_bytes()) if stamp]
        mend(folder)
        kept = read(folder)
        assert _numbers(folder) == list(range(len(kept)))
        assert [message.log_ns for message in kept][: len(times)] == times[: len(kept)]
        lost = times[len(kept) :]
        assert not lost or times[-1] - lost[0] <= 1_000_000_000


def test_repair_command_repairs_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        recorder = BagRecorder(tmp_path / name, reserve_bytes=0)
        recorder.add_topic("/task", "std_msgs/msg/String")
        text = types().types["std_msgs/msg/String"](name)
        recorder.write("/task", types().serialize_cdr(text, "std_msgs/msg/String"), 1)
        if name == "a":
            recorder.finish()
        else:
            recorder.close()
    assert main(["episodes", "repair", str(tmp_path)]) == 0
    output = capsys.readouterr()
    assert "2 demos" in output.out and f"{tmp_path / 'b'}: 1 messages" in output.out + output.err
    assert (tmp_path / "b" / "metadata.yaml").exists()
    assert main(["episodes", "repair", str(tmp_path / "no")]) == 2
    assert "there is no folder" in capsys.readouterr().err
