"""Tests of bags of other programs and versions, and damaged ones: read, repaired, or rejected with a remedy."""

from __future__ import annotations

import contextlib
import copy
import io
import resource
import shutil
import sqlite3
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
import zstandard
from mcap.writer import CompressionType, Writer
from mutation import mutated_bytes, mutated_data, require_clean
from recorded_demos import CLEAN, FRONT, SHORT, STATES, TYPES, BagEntry, Demo, image, logged, stamped, text
from recorded_messages import compressed

from genima.data.episodes import Episode, find_episodes
from genima.data.episodes.bag import BagReader
from genima.data.episodes.checks import check
from genima.data.episodes.episode_index import EpisodeIndex
from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.frames import decode
from genima.data.episodes.metadata import METADATA, QOS, Topic
from genima.data.episodes.repair import repair
from genima.data.episodes.summary import Summary
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima_cli.__main__ import main

HUMBLE_QOS = (
    "- history: 1\n  depth: 1\n  reliability: 1\n  durability: 1\n"
    "  deadline:\n    sec: 9223372036\n    nsec: 854775807\n"
    "  lifespan:\n    sec: 9223372036\n    nsec: 854775807\n  liveliness: 1\n  liveliness_lease_duration:\n"
    "    sec: 9223372036\n    nsec: 854775807\n  avoid_ros_namespace_conventions: false"
)


class Content:
    """Topics and messages of a bag, to be written in other formats."""

    def __init__(self, folder: Path) -> None:
        with BagReader(folder) as bag:
            self.topics = dict(bag.topics)
            self.messages = list(bag.messages(bag.types))

    def mcap(self, chunk: int = 20_000, compression: str = "NONE", part: slice = slice(None), **options: Any) -> bytes:
        """Return an MCAP file of some messages."""
        out = io.BytesIO()
        writer = Writer(out, chunk_size=chunk, compression=CompressionType[compression], **options)
        writer.start("ros2", "another")
        channels = {}
        for topic in self.topics.values():
            schema = writer.register_schema(topic.msgtype, topic.schema, topic.definition)
            channels[topic.name] = writer.register_channel(topic.name, topic.encoding, schema, dict(topic.notes))
        for message in self.messages[part]:
            writer.add_message(channels[message.topic], message.log_ns, message.cdr, message.log_ns)
        writer.finish()
        return out.getvalue()

    def information(self, files: list[str], **changed: Any) -> dict[str, Any]:
        counts = dict.fromkeys(self.topics, 0)
        for message in self.messages:
            counts[message.topic] += 1
        first, last = self.messages[0].log_ns, self.messages[-1].log_ns
        listed = [
            {
                "topic_metadata": {
                    "name": topic.name, "type": topic.msgtype, "serialization_format": topic.encoding,
                    QOS: topic.notes.get(QOS, ""),
                },
                "message_count": counts[topic.name],
            }
            for topic in self.topics.values()
        ]  # fmt: skip
        return {
            "version": 5, "storage_identifier": "mcap", "duration": {"nanoseconds": last - first},
            "starting_time": {"nanoseconds_since_epoch": first}, "message_count": len(self.messages),
            "topics_with_message_count": listed, "compression_format": "", "compression_mode": "",
            "relative_file_paths": files, **changed,
        }  # fmt: skip

    def write(self, folder: Path, files: dict[str, bytes], **changed: Any) -> Path:
        folder.mkdir(parents=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        write_metadata(folder, self.information(list(files), **changed))
        return folder

    def sqlite(self, folder: Path, qos: str = HUMBLE_QOS, definitions: bool = False) -> Path:
        """Write the format of Humble, or with definitions that of Jazzy."""
        folder.mkdir(parents=True)
        name = f"{folder.name}_0.db3"
        database = sqlite3.connect(folder / name)
        hashed = ", type_description_hash TEXT NOT NULL" if definitions else ""
        database.executescript(f"""
            CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
                serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL{hashed});
            CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,
                data BLOB NOT NULL);
            CREATE INDEX timestamp_idx ON messages (timestamp ASC);
            CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL, encoding TEXT NOT NULL,
                encoded_message_definition TEXT NOT NULL, type_description_hash TEXT NOT NULL);
        """)
        numbers = {topic: number for number, topic in enumerate(self.topics, 1)}
        for topic in self.topics.values():
            row: list[Any] = [numbers[topic.name], topic.name, topic.msgtype, "cdr", qos]
            row += [topic.notes.get("topic_type_hash", "")] if definitions else []
            database.execute(f"INSERT INTO topics VALUES({','.join('?' * len(row))})", row)
            if definitions and topic.definition:
                row = [topic.msgtype, topic.schema, topic.definition.decode(), ""]
                database.execute("INSERT INTO message_definitions VALUES(NULL, ?, ?, ?, ?)", row)
        for message in self.messages:
            row = [numbers[message.topic], message.log_ns, message.cdr]
            database.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES(?, ?, ?)", row)
        database.commit()
        database.close()
        write_metadata(folder, self.information([name], storage_identifier="sqlite3"))
        return folder

    def with_topic(self, topic: Topic, data: bytes = b"\0\1\0\0abcd") -> Content:
        other = object.__new__(Content)
        other.topics = {**self.topics, topic.name: topic}
        place = len(self.messages) // 2
        added = self.messages[place]._replace(topic=topic.name, cdr=data)
        other.messages = [*self.messages[:place], added, *self.messages[place:]]
        return other


def write_metadata(folder: Path, information: dict[str, Any]) -> None:
    (folder / METADATA).write_text(yaml.safe_dump({"rosbag2_bagfile_information": information}))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = yaml.safe_load((folder / METADATA).read_text())
    change(data["rosbag2_bagfile_information"])
    (folder / METADATA).write_text(yaml.safe_dump(data))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SHORT.write(tmp_path_factory.mktemp("plain") / "demo")


@pytest.fixture(scope="module")
def content(plain: Path) -> Content:
    return Content(plain)


@pytest.fixture
def demo(plain: Path, tmp_path: Path) -> Path:
    shutil.copytree(plain, tmp_path / "demo")
    return tmp_path / "demo"


def require_whole(folder: Path, content: Content) -> None:
    """Require all messages unchanged and a valid demo."""
    with BagReader(folder) as bag:
        assert [(m.topic, m.log_ns, m.cdr) for m in bag.messages(bag.types)] == [
            (m.topic, m.log_ns, m.cdr) for m in content.messages
        ]
    assert len(Episode.load(folder, RobotModel.load("panda"))) > 10
    assert Summary.of(EpisodeIndex.of(folder)).instruction == "wave"


# ------------------------------------------------------------------------------------------------ topics of no interest

ODD = {
    "no definition": Topic("/odd", "lab_msgs/msg/Odd", "cdr", {}),
    "no type": Topic("/odd", "", "cdr", {}),
    "IDL": Topic("/odd", "lab_msgs/msg/Odd", "cdr", {}, "ros2idl", b"module lab_msgs { module msg {"),
    "no ROS": Topic("/odd", "lab.Odd", "protobuf", {}, "protobuf", b"\x0a\x05"),
    "not parsed": Topic("/odd", "lab_msgs/msg/Odd", "cdr", {}, "ros2msg", b"float64[ x\x1b"),
    "not text": Topic("/odd", "lab_msgs/msg/Odd", "cdr", {}, "ros2msg", b"\xff\xfe"),
    "known otherwise": Topic("/odd", "std_msgs/msg/String", "cdr", {}, "ros2msg", b"float64 data"),
    "within itself": Topic("/odd", "lab_msgs/msg/Odd", "cdr", {}, "ros2msg", b"lab_msgs/Odd odd"),
    "code": Topic("/odd", "os", "cdr", {}, "ros2msg", b'int8 x\n"""; import os; os.abort()  # """'),
    "escape": Topic("/odd\x1b[31m", "lab_msgs/msg/Odd\x1b[0m", "cdr", {}),
}


@pytest.mark.parametrize("name", ODD)
def test_unused_unreadable_topic_is_copied(
    name: str, content: Content, tmp_path: Path, robot: RobotModel, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = content.with_topic(ODD[name])
    folder = odd.write(tmp_path / "demos" / "odd", {"odd.mcap": odd.mcap()})
    assert main(["episodes", "list", str(folder)]) == 0
    assert main(["episodes", "check", str(folder)]) == 0
    output = capfd.readouterr()
    assert name == "within itself" or "not read: " in output.out
    assert "\x1b[31m" not in output.out and "\x1b[0m" not in output.out
    assert len(Episode.load(folder, robot)) > 10
    assert main(["episodes", "trim", str(folder), "--out", str(tmp_path / "out")]) == 0
    with BagReader(tmp_path / "out" / "odd") as bag:
        (message,) = bag.messages({ODD[name].name})
        assert message.cdr == b"\0\1\0\0abcd"
        kept = bag.topics[ODD[name].name]
        assert (kept.msgtype, kept.schema, kept.definition) == (
            ODD[name].msgtype, ODD[name].schema if ODD[name].msgtype else "", ODD[name].definition,
        )  # fmt: skip
    assert repair(folder).healthy
    (folder / "odd.mcap").write_bytes((folder / "odd.mcap").read_bytes()[:-100])
    assert repair(folder).messages[ODD[name].name] == 1 and repair(folder).healthy


def test_required_unreadable_topic_is_error(content: Content, tmp_path: Path, robot: RobotModel) -> None:
    states = content.topics[STATES]
    for definition in (b"float64[] position", b"string[] name\n"):
        other = Content.with_topic(content, states._replace(definition=definition))
        folder = other.write(tmp_path / str(len(definition)), {"a.mcap": other.mcap()})
        with pytest.raises(EpisodeError, match="not ROS 2's") as caught:
            Episode.load(folder, robot)
        assert caught.value.topic == STATES


def test_bad_demo_does_not_stop_commands_for_others(
    content: Content, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demos = tmp_path / "demos"
    shutil.copytree(plain, demos / "good")
    for name, data in {"empty": b"", "text": b"hello", "cut": content.mcap()[:-3000]}.items():
        content.write(demos / name, {f"{name}.mcap": data})
    (demos / "killed").mkdir()
    (demos / "killed" / "killed_0.mcap").write_bytes(content.mcap()[:-3000])  # no metadata.yaml
    (demos / "notes").mkdir()
    (demos / "notes" / METADATA).write_text("something: else\n")
    names = ["cut", "empty", "good", "killed", "text"]
    assert [path.name for path in find_episodes(demos)] == names
    assert main(["episodes", "list", str(demos)]) == 1
    output = capsys.readouterr().out
    assert "5 demos" in output and "4 cannot be read" in output and "good" in output
    assert main(["episodes", "check", str(demos)]) == 1
    assert "5 demos: 4 cannot be trained on" in capsys.readouterr().out
    for command in (["export", "--out", "set"], ["trim", "--out", "cut"]):
        arguments = ["episodes", command[0], str(demos), "--out", str(tmp_path / command[2])]
        assert main([*arguments, "--on-fault", "refuse"]) == 2
        assert "episodes repair" in capsys.readouterr().err
        assert main(arguments) == 0
        assert "4 skipped" in capsys.readouterr().out
    assert main(["inspect", str(demos), "--picture", str(tmp_path / "a.png")]) == 0
    assert "5, of which 4 faulty" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------- formats and versions


@pytest.mark.parametrize("qos", ["", HUMBLE_QOS, "nonsense: ["])
@pytest.mark.parametrize("definitions", [False, True])
def test_sqlite_bags_are_read_and_repaired(qos: str, definitions: bool, content: Content, tmp_path: Path) -> None:
    folder = content.sqlite(tmp_path / "humble", qos, definitions)
    require_whole(folder, content)
    assert not any(path.name.endswith(("-wal", "-shm")) for path in folder.iterdir())
    (folder / METADATA).unlink()
    with pytest.raises(EpisodeError, match="episodes repair"):
        EpisodeIndex.of(folder)
    assert not repair(folder).healthy and repair(folder).healthy
    require_whole(folder, content)


def test_database_without_column_is_reported_in_one_line(content: Content, tmp_path: Path) -> None:
    folder = content.sqlite(tmp_path / "bag")
    with contextlib.closing(sqlite3.connect(folder / "bag_0.db3")) as database:
        database.executescript("CREATE TABLE t AS SELECT id, name FROM topics; DROP TABLE topics; "
                               "ALTER TABLE t RENAME TO topics")  # fmt: skip
    with pytest.raises(EpisodeError, match="its topics have no type"):
        EpisodeIndex.of(folder)
    with pytest.raises(GenimaError, match="its topics have no type"):
        repair(folder)


def test_definitions_with_windows_line_ends_are_read(content: Content, tmp_path: Path) -> None:
    changed = copy.copy(content)
    changed.topics = {
        name: topic._replace(definition=topic.definition.replace(b"\n", b"\r\n"))
        for name, topic in content.topics.items()
    }
    assert EpisodeIndex.of(changed.write(tmp_path / "demo", {"a.mcap": changed.mcap()})).unread == {}


def test_unclosed_database_is_repaired(content: Content, tmp_path: Path) -> None:
    source = content.sqlite(tmp_path / "source")
    database = sqlite3.connect(source / "source_0.db3")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("DELETE FROM messages WHERE id = 1")
    database.commit()
    shutil.copytree(source, tmp_path / "killed")
    database.close()
    with pytest.raises(EpisodeError, match="was not closed.*episodes repair"):
        EpisodeIndex.of(tmp_path / "killed")
    repaired = repair(tmp_path / "killed")
    assert sum(repaired.messages.values()) == len(content.messages) - 1
    assert repair(tmp_path / "killed").healthy


QOS_LIST = yaml.safe_load(HUMBLE_QOS)
VARIANTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "storage empty": lambda i: i.update(storage_identifier=""),
    "qos list empty": lambda i: [t["topic_metadata"].update({QOS: []}) for t in i["topics_with_message_count"]],
    "qos text empty": lambda i: [t["topic_metadata"].update({QOS: ""}) for t in i["topics_with_message_count"]],
    "qos of Humble": lambda i: [t["topic_metadata"].update({QOS: HUMBLE_QOS}) for t in i["topics_with_message_count"]],
    "qos list": lambda i: [t["topic_metadata"].update({QOS: QOS_LIST}) for t in i["topics_with_message_count"]],
    "version 4": lambda i: [i.update(version=4), i.pop("files"), i.pop("custom_data"), i.pop("ros_distro")],
    "version 1": lambda i: [i.update(version=1, relative_file_paths=["demo/demo.mcap"]), i.pop("compression_mode")],
    "version 6": lambda i: i.update(version=6, custom_data={"lab": "1"}),
    "compression none": lambda i: i.update(compression_mode="NONE"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_metadata_of_other_versions_is_readable_after_repair(name: str, demo: Path, content: Content) -> None:
    edit(demo, VARIANTS[name])
    require_whole(demo, content)
    repair(demo)
    assert repair(demo).healthy
    require_whole(demo, content)
    information = yaml.safe_load((demo / METADATA).read_text())["rosbag2_bagfile_information"]
    assert information["storage_identifier"] == "mcap"
    assert all(t["topic_metadata"][QOS] for t in information["topics_with_message_count"] if t["message_count"])
    assert name != "version 6" or information["custom_data"] == {"lab": "1"}


PROMISES: dict[str, Callable[[dict[str, Any]], object]] = {
    "too many": lambda i: i["topics_with_message_count"][0].update(message_count=999),
    "too few": lambda i: i["topics_with_message_count"][0].update(message_count=1),
    "a topic more": lambda i: i["topics_with_message_count"][0]["topic_metadata"].update(name="/other"),
    "a topic less": lambda i: i["topics_with_message_count"].pop(0),
    "a sum": lambda i: i.update(message_count=3),
    "another type": lambda i: i["topics_with_message_count"][0]["topic_metadata"].update(type="std_msgs/msg/Int8"),
    "another start": lambda i: i["starting_time"].update(nanoseconds_since_epoch=7),
    "another end": lambda i: i["duration"].update(nanoseconds=10**12),
    "another storage": lambda i: i.update(storage_identifier="sqlite3"),
    "another file": lambda i: i.update(relative_file_paths=["demo_0.mcap"]),
    "compressed messages": lambda i: i.update(compression_mode="message", compression_format="zstd"),
    "no version": lambda i: i.pop("version"),
    "no topics": lambda i: i.update(topics_with_message_count=[], message_count=0),
}


@pytest.mark.parametrize("name", PROMISES)
def test_bag_must_match_metadata_and_repair_fixes_it(name: str, demo: Path, content: Content) -> None:
    edit(demo, PROMISES[name])
    before = (demo / "demo.mcap").read_bytes()
    for read in (EpisodeIndex.of, lambda folder: Episode.load(folder, RobotModel.load("panda"))):
        with pytest.raises(EpisodeError, match="cannot be read.*" if name == "compressed messages" else "repair"):
            read(demo)
    assert not repair(demo).healthy and repair(demo).healthy
    require_whole(demo, content)
    assert (demo / "demo.mcap").read_bytes() == before


@pytest.mark.parametrize("options", [{}, {"use_chunking": False}, {"use_summary_offsets": False}, {"chunk": 10**7}])
@pytest.mark.parametrize("compression", ["NONE", "LZ4", "ZSTD"])
def test_files_of_other_writers_are_read(
    compression: str, options: dict[str, Any], content: Content, tmp_path: Path
) -> None:
    data = content.mcap(compression=compression, **options)
    require_whole(content.write(tmp_path / "demo", {"a.mcap": data}), content)
    without = data[: data.index(b"\x0f\x04\0\0\0\0\0\0\0") + 13] + b"\x02\x14" + bytes(7 + 20) + data[-8:]  # no index
    folder = content.write(tmp_path / "plain", {"a.mcap": without})
    require_whole(folder, content)


def test_compressed_files_are_read_and_repaired(content: Content, tmp_path: Path) -> None:
    packed = zstandard.compress(content.mcap())
    compression = {"compression_format": "zstd", "compression_mode": "FILE"}
    folder = content.write(tmp_path / "demo", {"demo_0.mcap.zstd": packed}, **compression)
    require_whole(folder, content)
    assert repair(folder).healthy
    (folder / METADATA).unlink()
    assert not repair(folder).healthy and repair(folder).healthy
    require_whole(folder, content)
    (folder / "demo_0.mcap").write_bytes(zstandard.decompress(packed))  # by hand: zstd -d
    assert not repair(folder).healthy and repair(folder).healthy
    require_whole(folder, content)
    torn = content.write(tmp_path / "torn", {"torn_0.mcap.zstd": packed[:-1000]}, **compression)
    with pytest.raises(GenimaError, match="torn_0.mcap"):
        EpisodeIndex.of(torn)
    bomb = zstandard.compress(bytes(200_000_000))
    assert len(bomb) < 46_000
    folder = content.write(tmp_path / "bomb", {"bomb_0.mcap.zstd": bomb}, **compression)
    with pytest.raises(EpisodeError, match="unpacks to more than"):
        EpisodeIndex.of(folder)


def test_compressed_messages_are_read_trimmed_and_repaired(content: Content, tmp_path: Path) -> None:
    packed = object.__new__(Content)
    packed.topics = content.topics
    packed.messages = [m._replace(cdr=zstandard.compress(m.cdr)) for m in content.messages]
    data = packed.mcap()
    compression = {"compression_format": "zstd", "compression_mode": "MESSAGE"}
    folder = packed.write(tmp_path / "demo", {"demo_0.mcap": data}, **compression)
    require_whole(folder, content)
    assert repair(folder).healthy
    (folder / "demo_0.mcap").write_bytes(data[:-500])
    (folder / METADATA).unlink()
    assert not repair(folder).healthy and repair(folder).healthy
    require_whole(folder, content)
    assert main(["episodes", "trim", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert main(["episodes", "check", str(tmp_path / "out")]) == 0


def test_split_bags_are_read_and_damaged_ones_keep_valid_files(content: Content, tmp_path: Path) -> None:
    parts = [slice(0, 100), slice(100, 200), slice(200, None)]
    files = {f"demo_{k}.mcap": content.mcap(part=part, chunk=3000) for k, part in enumerate(parts)}
    folder = content.write(tmp_path / "demo", files)
    require_whole(folder, content)
    assert repair(folder).healthy
    (folder / METADATA).unlink()
    repaired = repair(folder)
    assert not repaired.healthy and repaired.notes == ()
    require_whole(folder, content)

    (folder / "demo_1.mcap").write_bytes(files["demo_1.mcap"][:-8000])
    with pytest.raises(EpisodeError, match="episodes repair"):
        EpisodeIndex.of(folder)
    repaired = repair(folder)
    assert 100 < sum(repaired.messages.values()) and repaired.bytes_cut >= 0 and repair(folder).healthy
    assert (folder / "demo_0.mcap").read_bytes() == files["demo_0.mcap"]
    EpisodeIndex.of(folder)

    (folder / "demo_2.mcap").write_bytes(b"\x89MCAP0")
    repaired = repair(folder)
    assert "demo_2.mcap.torn" in repaired.notes[0] and (folder / "demo_2.mcap.torn").read_bytes() == b"\x89MCAP0"
    assert repair(folder).healthy
    (folder / "demo_0.mcap").rename(tmp_path / "elsewhere")
    with pytest.raises(EpisodeError, match="demo_0.mcap is missing"):
        EpisodeIndex.of(folder)
    assert repair(folder).notes == ("demo_0.mcap is missing",) and repair(folder).healthy


def test_files_of_several_bags_in_one_folder_are_not_joined(content: Content, tmp_path: Path) -> None:
    folder = content.write(tmp_path / "demo", {"demo.mcap": content.mcap()})
    (folder / "other.mcap").write_bytes(content.mcap())
    with pytest.raises(EpisodeError, match="does not list other.mcap"):
        EpisodeIndex.of(folder)
    with pytest.raises(GenimaError, match="folder of its own"):
        repair(folder)


def test_bag_being_written_is_rejected(content: Content, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    with open(folder / "demo_0.mcap", "wb") as file:
        file.write(content.mcap()[:-3000])
        file.flush()
        with pytest.raises(GenimaError, match="is being recorded"):
            repair(folder)
    assert not repair(folder).healthy


# --------------------------------------------------------------------------------------------------------------- images


def test_trailing_image_bytes_are_ignored_and_missing_ones_rejected() -> None:
    pixels = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8), (0, 0), 3)
    for kind in ("jpg", "png"):
        message = compressed(0, pixels, kind)
        expected = decode(message)
        for tail in (bytes(1), bytes(5000), b"\xff" * 70, b"padding"):
            longer = replace(message, data=np.append(message.data, np.frombuffer(tail, np.uint8)))
            np.testing.assert_array_equal(decode(longer), expected)
        for kept in (0, 1, 20, 300, len(message.data) // 2, len(message.data) - 30, len(message.data) - 5):
            for tail in (b"", bytes(200)):
                cut = replace(message, data=np.append(message.data[:kept], np.frombuffer(tail, np.uint8)))
                with pytest.raises(GenimaError, match="cannot be decoded"):
                    decode(cut)


def test_image_exceeding_memory_is_rejected() -> None:
    size = struct.pack(">4sIIBBBBB", b"IHDR", 30_000, 30_000, 8, 2, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + size + struct.pack(">I", zlib.crc32(size))
    message = compressed(0, np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(GenimaError, match="pixels"):
        decode(replace(message, data=np.frombuffer(head + b"\0\0\0\x64IDAT" + bytes(200), np.uint8)))
    for fields in ({"width": 2**31}, {"height": 2**32 - 1}, {"step": 2**31}, {"step": 0}, {"width": 0}):
        raw_image = TYPES.types["sensor_msgs/msg/Image"](
            header=message.header,
            height=4,
            width=4,
            encoding="rgb8",
            is_bigendian=0,
            step=12,
            data=np.zeros(48, np.uint8),
        )
        with pytest.raises(GenimaError, match="bytes in rows of"):
            decode(replace(raw_image, **fields))


# -------------------------------------------------------------------------------------------------------- hostile files


def everything(folder: Path, robot: RobotModel) -> Iterator[Callable[[], object]]:
    """Every reader of demos."""
    yield lambda: Summary.of(EpisodeIndex.of(folder))
    yield lambda: check(folder, robot)
    yield lambda: [Episode.load(folder, robot).image("front", 0)]
    yield lambda: repair(folder)


@pytest.mark.parametrize("what", ["chunk", "count", "length", "sequence", "time", "stamp"])
def test_wrong_sizes_and_times_are_one_line_errors(
    what: str, content: Content, tmp_path: Path, robot: RobotModel
) -> None:
    data = bytearray(content.mcap(chunk=10**7, compression="ZSTD" if what == "chunk" else "NONE", enable_crcs=False))
    if what == "chunk":
        place = data.index(b"zstd") - 4 - 12
        data[place : place + 8] = struct.pack("<Q", 1_500_000_000)
    elif what == "count":  # of messages in the index
        place = data.index(b"\x0b\x42\x00" if b"\x0b\x42\x00" in data else b"\x0b", len(data) // 2)
        data[place + 9 : place + 17] = struct.pack("<Q", 2**40)
    elif what == "length":
        place = data.rindex(b"\x05", 0, len(data) // 2)
        data[place + 1 : place + 9] = struct.pack("<Q", 2**31)
    elif what in ("sequence", "stamp"):
        cdr = next(m.cdr for m in content.messages if m.topic == STATES)
        place = data.index(cdr)
        new = struct.pack("<iI", -(2**31), 2**32 - 1) if what == "stamp" else struct.pack("<III", 0, 0, 10**9)
        offset = 4 if what == "stamp" else 12
        data[place + offset : place + offset + len(new)] = new
    else:
        place = data.index(struct.pack("<Q", content.messages[5].log_ns), 3000)
        data[place : place + 8] = struct.pack("<Q", 2**63 + 5)
    folder = content.write(tmp_path / "demo", {"a.mcap": bytes(data)})
    start, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in everything(folder, robot):
        require_clean(read, what)
    assert time.process_time() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 500_000  # kB


def test_decompression_bomb_is_rejected(content: Content, tmp_path: Path) -> None:
    out = io.BytesIO()
    writer = Writer(out, chunk_size=1 << 30, compression=CompressionType.ZSTD)
    writer.start("ros2", "x")
    schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data\n")
    channel = writer.register_channel("/task", "cdr", schema)
    for _ in range(3):
        writer.add_message(channel, 1, bytes(120_000_000), 1)
    writer.finish()
    assert len(out.getvalue()) < 46_000
    folder = content.write(tmp_path / "bomb", {"a.mcap": out.getvalue()})
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    edit(folder, lambda i: i.update(message_count=3, topics_with_message_count=[{
        "topic_metadata": {"name": "/task", "type": "std_msgs/msg/String", "serialization_format": "cdr"},
        "message_count": 3}], starting_time={"nanoseconds_since_epoch": 1}, duration={"nanoseconds": 0}))  # fmt: skip
    with pytest.raises(EpisodeError, match="would unpack to"):
        EpisodeIndex.of(folder)
    with pytest.raises(GenimaError, match="no complete message"):
        repair(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 500_000


def test_stamps_one_day_apart_are_rejected(tmp_path: Path, robot: RobotModel) -> None:
    folder = SHORT.changed(STATES, slice(3, 4), stamped(-1.7e9)).write(tmp_path / "demo")
    with pytest.raises(EpisodeError, match="more than a day apart") as caught:
        EpisodeIndex.of(folder)
    assert caught.value.topic == STATES
    (finding,) = check(folder, robot).findings
    assert "more than a day" in finding.what


def small(tmp_path: Path) -> tuple[Path, Content]:
    """A demo of a few messages on the required topics."""
    entries = {
        topic: each[:3] for topic, each in SHORT.entries.items() if topic in (FRONT, STATES, "/joint_command", "/task")
    }
    folder = Demo(entries).write(tmp_path / "source")
    return folder, Content(folder)


@pytest.mark.parametrize("compression, crc", [("NONE", False), ("NONE", True), ("ZSTD", False)])
def test_mutated_files_end_in_one_line(compression: str, crc: bool, tmp_path: Path, robot: RobotModel) -> None:
    _, content = small(tmp_path)
    folder = content.write(tmp_path / "demo", {"a.mcap": b""})
    readers = list(everything(folder, robot))
    metadata = (folder / METADATA).read_bytes()
    for k, data in enumerate(mutated_bytes(content.mcap(1000, compression, enable_crcs=crc), 400, len(compression))):
        (folder / METADATA).write_bytes(metadata)
        (folder / "a.mcap").write_bytes(data)
        require_clean(readers[k % 4], f"mutation {k}")
        if k % 20 == 0:
            for read in readers:
                require_clean(read, f"mutation {k}")


def test_mutated_databases_end_in_one_line(tmp_path: Path, robot: RobotModel) -> None:
    _, content = small(tmp_path)
    folder = content.sqlite(tmp_path / "demo")
    readers = list(everything(folder, robot))
    file, metadata = folder / "demo_0.db3", (folder / METADATA).read_bytes()
    for k, data in enumerate(mutated_bytes(file.read_bytes(), 200)):
        (folder / METADATA).write_bytes(metadata)
        file.write_bytes(data)
        require_clean(readers[k % 4], f"mutation {k}")


def test_mutated_metadata_end_in_one_line(tmp_path: Path) -> None:
    folder, content = small(tmp_path)
    information = content.information(["source.mcap"])
    for k, data in enumerate(mutated_data({"rosbag2_bagfile_information": information}, 700)):
        (folder / METADATA).write_text(yaml.dump(data, Dumper=yaml.CSafeDumper))
        readers = (lambda: EpisodeIndex.of(folder), lambda: repair(folder))
        require_clean(readers[k % 2], data)
    (folder / METADATA).write_text("")
    assert not repair(folder).healthy


def test_database_views_are_not_read(content: Content, tmp_path: Path) -> None:
    folder = content.sqlite(tmp_path / "demo")
    database = sqlite3.connect(folder / "demo_0.db3")
    database.executescript("""
        ALTER TABLE messages RENAME TO other;
        CREATE VIEW messages AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n)
            SELECT id, 1 AS topic_id, id AS timestamp, x'00' AS data FROM n;
    """)
    database.close()
    with pytest.raises(EpisodeError, match="no table messages"):
        EpisodeIndex.of(folder)


def test_escape_codes_of_demo_are_printable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    red = "\x1b[31mred\x07\x9b2J"
    entries = {
        **CLEAN.entries,
        "/task": [BagEntry(text(red), 0.0)],
        "/episode": [BagEntry(text(f"operator: {red!r}\n"), 0.0)],
    }
    entries[f"/{red}"] = [BagEntry(text("x"), 0.1)]
    demo = replace(CLEAN, entries=entries)
    folder = demo.changed(FRONT, slice(0, 1), image(np.zeros((3, 4, 3), np.uint8))).write(tmp_path / f"d{red[:5]}")
    torn = CLEAN.changed(STATES, slice(0, 1), logged(0.0)).write(tmp_path / f"t{red[:5]}")
    (torn / METADATA).unlink()
    picture = str(tmp_path / "a.png")
    for command in (
        ["list", str(tmp_path)], ["check", str(tmp_path)], ["show", str(folder), "--picture", picture],
        ["trim", str(tmp_path), "--out", str(tmp_path.with_name("out"))], ["repair", str(tmp_path)],
        ["judge", str(folder), "--success"], ["export", str(tmp_path), "--out", str(tmp_path.with_name("set"))],
    ):  # fmt: skip
        main(["episodes", *command])
        output = capsys.readouterr()
        assert not {"\x1b", "\x07", "\x9b"} & set(output.out + output.err.replace("\x1b[A", "")), command
    assert main(["inspect", str(tmp_path), "--picture", str(tmp_path / "b.png")]) == 0
    assert "\x1b" not in capsys.readouterr().out
