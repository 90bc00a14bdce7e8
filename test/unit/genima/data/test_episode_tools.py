"""Tests of checking and trimming demos."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from recorded_demos import (
    CLEAN,
    COMMANDS,
    DELAY,
    FRONT,
    FRONT_INFO,
    JOINTS,
    LATCHED,
    LEADER,
    RATES,
    STATES,
    TELEOP,
    TYPES,
    WRIST,
    WRIST_INFO,
    BagEntry,
    Demo,
    entry_at,
    image,
    logged,
    make_demo,
    picture,
    stamped,
    text,
)
from recorded_messages import START, header, message

from genima.data.episodes import Episode, trim
from genima.data.episodes.bag import PARTIAL
from genima.data.episodes.bag_recorder import BagRecorder
from genima.data.episodes.checks import check, compare
from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.idle import JointTrack, find_idle
from genima.data.episodes.metadata import METADATA, Qos
from genima.robot.model import RobotModel
from genima_cli.__main__ import main


def joint(name: str, value: float, added: bool = False) -> Callable[[BagEntry], BagEntry]:
    def change(entry: BagEntry) -> BagEntry:
        position = entry.message.position.copy()
        k = entry.message.name.index(name)
        position[k] = value + added * position[k]
        return replace(entry, message=replace(entry.message, position=position))

    return change


def cut(entry: BagEntry) -> BagEntry:
    return replace(entry, message=replace(entry.message, data=entry.message.data[:40]))


def nameless(entry: BagEntry) -> BagEntry:
    return replace(entry, message=replace(entry.message, name=entry.message.name[:-1], position=np.zeros(7)))


def jittered(topic: str) -> Demo:
    rng = np.random.default_rng(0)
    entries = [stamped(s.time + rng.uniform(0, 0.9 / RATES[topic]))(s) for s in CLEAN.entries[topic]]
    return CLEAN.with_entries(topic, entries)


def resting(begin: float, end: float, seconds: float) -> Demo:
    """No joint moves in between."""
    return make_demo(lambda times: np.minimum(times, begin) + np.maximum(times - end, 0), seconds)


def since_start(topic: str, i: int) -> float:
    return float(CLEAN.times(topic)[i])


_DARK = np.zeros((24, 32, 3), np.uint8)
_PARTLY_DARK = np.where(np.arange(32)[None, :, None] % 32 < 8, picture(7), 0).astype(np.uint8)
_BRIGHT = np.where(np.arange(32)[None, :, None] % 32 < 16, picture(7), 255).astype(np.uint8)
_MIDDLE = slice(60, 61)

FAULTS: dict[str, tuple[Demo, str, str | None, float | None, str]] = {
    # fault: demo, severity, topic, time, expected text
    "no joint states": (CLEAN.without(STATES), "error", STATES, None, "no messages"),
    "silent commands": (CLEAN.with_entries(COMMANDS, []), "error", COMMANDS, None, "no messages"),
    "no task": (CLEAN.without("/task"), "error", "/task", None, "no messages"),
    "empty task": (CLEAN.with_entries("/task", [BagEntry(text(" "), 0.0)]), "error", "/task", None, "empty"),
    "no camera_info": (CLEAN.without(WRIST_INFO), "warning", WRIST_INFO, None, "no messages"),
    "image lost": (
        CLEAN.drop(FRONT, _MIDDLE), "warning", FRONT, since_start(FRONT, 59), "the next is 0.067 s later: replaced",
    ),
    "image lost twice": (
        CLEAN.drop(WRIST, slice(40, 60, 19)), "warning", WRIST, since_start(WRIST, 39), "0.067 s later.*; 1 more",
    ),
    "images lost": (CLEAN.drop(FRONT, slice(60, 62)), "error", FRONT, since_start(FRONT, 59), "comes 0.100 s later"),
    "joint states lost": (CLEAN.drop(STATES, slice(99, 102)), "warning", STATES, 0.98, "comes 0.040 s later"),
    "many joint states lost": (CLEAN.drop(STATES, slice(99, 109)), "error", STATES, 0.98, "comes 0.110 s later"),
    "teleoperation lost": (
        CLEAN.drop(TELEOP, slice(50, 60)), "warning", TELEOP, since_start(TELEOP, 49), "comes 0.220 s later",
    ),
    "camera starts late": (CLEAN.drop(WRIST, slice(0, 60)), "error", WRIST, since_start(WRIST, 60), "starts 2.011 s"),
    "two commands": (
        CLEAN.drop(COMMANDS, slice(2, None)), "error", COMMANDS, since_start(COMMANDS, 0), "only 2 messages",
    ),
    "jitter": (jittered(LEADER), "warning", LEADER, None, "a tenth of the periods"),
    "same stamp": (
        CLEAN.changed(WRIST, _MIDDLE, stamped(since_start(WRIST, 59))), "error", WRIST, since_start(WRIST, 59), "same",
    ),
    "stamp goes back": (
        CLEAN.changed(STATES, slice(200, 201), stamped(1.8)), "error", STATES, 1.99, "goes back by 0.190 s",
    ),
    "camera_info goes back": (
        CLEAN.changed(FRONT_INFO, _MIDDLE, stamped(1.7)), "warning", FRONT_INFO, since_start(FRONT_INFO, 59),
        "goes back",
    ),
    "recorded late": (
        CLEAN.changed(COMMANDS, slice(None), logged(0.8)), "warning", COMMANDS, since_start(COMMANDS, 0),
        "0.805 s after its stamp",
    ),
    "recorded early": (
        CLEAN.changed(FRONT, slice(None), logged(-0.6)), "warning", FRONT, since_start(FRONT, 0),
        "0.595 s before its stamp",
    ),
    "black": (
        CLEAN.changed(FRONT, slice(50, 53), image(_DARK)), "warning", FRONT, since_start(FRONT, 50), "^black.*2 more",
    ),
    "underexposed": (
        CLEAN.changed(WRIST, _MIDDLE, image(_PARTLY_DARK)), "warning", WRIST, since_start(WRIST, 60), "^under",
    ),
    "overexposed": (
        CLEAN.changed(FRONT, _MIDDLE, image(_BRIGHT)), "warning", FRONT, since_start(FRONT, 60), "^overexposed",
    ),
    "frozen": (
        CLEAN.changed(WRIST, slice(30, 60), image(picture(1030))), "warning", WRIST, since_start(WRIST, 30),
        "same for 0.97 s while",
    ),
    "cut image": (CLEAN.changed(FRONT, _MIDDLE, cut), "error", FRONT, since_start(FRONT, 60), "cannot be decoded"),
    "cut raw image": (CLEAN.changed(WRIST, _MIDDLE, cut), "error", WRIST, since_start(WRIST, 60), "40 bytes"),
    "other size": (
        CLEAN.changed(WRIST, _MIDDLE, image(picture(5)[:20])), "error", WRIST, since_start(WRIST, 60), "32x20 pixels",
    ),
    "not a number": (
        CLEAN.changed(STATES, slice(70, 72), joint(JOINTS[3], np.nan)), "error", STATES, 0.70,
        r"not finite \(panda_joint4\); 1 more",
    ),
    "joint missing": (
        CLEAN.changed(COMMANDS, _MIDDLE, nameless), "error", COMMANDS, since_start(COMMANDS, 60),
        r"joints missing \(finger_joint\)",
    ),
    "gripper in other units": (
        CLEAN.changed(COMMANDS, _MIDDLE, joint("finger_joint", 40.0)), "error", COMMANDS, since_start(COMMANDS, 60),
        "finger_joint is 40",
    ),
    "gripper outside its travel": (
        CLEAN.changed(STATES, slice(70, 72), joint("finger_joint", 1e308)), "error", STATES, 0.70,
        "outside its travel.*1 more",
    ),
    "two tasks": (
        CLEAN.with_entries("/task", [BagEntry(text("wave"), 0.0), BagEntry(text("nod"), 1.0)]), "error", "/task", None,
        "different texts.*'wave', 'nod'",
    ),
    "calibration of nothing": (
        CLEAN.with_entries("/calibration/front", [BagEntry(text(""), 0.0)]), "warning", "/calibration/front", None,
        "calibration",
    ),
    "beyond the range": (
        CLEAN.changed(STATES, slice(70, 72), joint(JOINTS[3], -0.05)), "error", STATES, 0.70,
        "panda_joint4 is up to 0.020 rad beyond",
    ),
    "near the end of the range": (
        CLEAN.changed(STATES, slice(70, 72), joint(JOINTS[3], -0.08)), "warning", STATES, 0.70, "close as 0.010 rad",
    ),
    "not followed": (
        CLEAN.changed(COMMANDS, slice(60, 80), joint(JOINTS[0], 0.5, added=True)), "warning", COMMANDS,
        since_start(COMMANDS, 60), "panda_joint1 is still 0.[3-6].* rad from its command",
    ),
    "rest at the start": (resting(0.0, 2.0, 5.0), "warning", None, 0.0, "for 2.0. s at the start"),
    "rest in between": (resting(1.5, 3.5, 5.0), "warning", None, 1.5, "for 2.0. s in between"),
    "rest at the end": (resting(2.5, 9.9, 5.0), "warning", None, 2.5, "for 2.[45]. s at the end"),
    "nothing moves": (resting(0.0, 9.9, 4.0), "warning", None, 0.0, "nothing moves"),
    "a failure": (
        CLEAN.with_entries("/success", [BagEntry(message("std_msgs/Bool", data=False), 4.0)]), "warning", "/success",
        None, "failure",
    ),
    "not judged": (CLEAN.without("/success"), "warning", "/success", None, "^not judged$"),
}  # fmt: skip


def test_demo_without_faults_has_no_findings(tmp_path: Path, robot: RobotModel) -> None:
    assert check(CLEAN.write(tmp_path / "demo"), robot).findings == ()


def test_recorded_demos_have_no_findings(demos_folder: Path, robot: RobotModel) -> None:
    for task in ("push_button-1", "take_lid_off_saucepan-1"):
        assert check(demos_folder / task, robot).findings == ()


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_the_only_finding(name: str, tmp_path: Path, robot: RobotModel) -> None:
    demo, severity, topic, time, expected = FAULTS[name]
    folder = demo.write(tmp_path / "demo")
    (finding,) = check(folder, robot).findings
    assert (finding.severity, finding.topic) == (severity, topic)
    assert (finding.time is None) if time is None else finding.time == pytest.approx(time, abs=0.03)
    if topic is not None and time is not None:
        assert finding.time == pytest.approx(time, abs=1e-6)
    assert re.search(expected, finding.what)
    assert "\n" not in str(finding) and finding.what in str(finding)
    assert (severity == "error") == (name == "beyond the range" or not trainable(folder, robot))


def trainable(folder: Path, robot: RobotModel) -> bool:
    try:
        episode = Episode.load(folder, robot)
        for view in episode.views:
            for t in range(len(episode)):
                episode.image(view, t)
    except EpisodeError:
        return False
    return True


def test_unreadable_bag_is_one_finding(tmp_path: Path, robot: RobotModel) -> None:
    folder = tear(CLEAN.write(tmp_path / "demo"))
    (finding,) = check(folder, robot).findings
    assert finding.severity == "error" and "cannot be read" in str(finding) and "\n" not in str(finding)


def tear(folder: Path) -> Path:
    (file,) = folder.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-2000])
    return folder


def test_missing_common_view_is_reported(tmp_path: Path, robot: RobotModel) -> None:
    less = CLEAN.without(WRIST).without(WRIST_INFO)
    demos = [check(demo.write(tmp_path / name), robot) for name, demo in {"a": CLEAN, "b": less, "c": CLEAN}.items()]
    compared = compare(demos)
    assert [demo.errors for demo in compared] == [0, 1, 0]
    assert compared[1].findings[0].topic == WRIST
    assert [demo.errors for demo in compare(demos[:2])] == [0, 0]  # as many have it as have it not


def test_constant_image_of_resting_arm_is_not_frozen(tmp_path: Path, robot: RobotModel) -> None:
    demo = resting(1.0, 2.4, 4.0).changed(FRONT, slice(30, 72), image(picture(1)))
    assert check(demo.write(tmp_path / "demo"), robot).findings == ()


# ---------------------------------------------------------------------------------------------------------------- rest


@settings(max_examples=50)
@given(
    pieces=st.lists(st.floats(0.7, 2.0), min_size=2, max_size=7),
    rests_first=st.booleans(),
    noise=st.sampled_from([0.0, 0.002]),
    by_gripper=st.booleans(),
)
def test_rest_is_found_where_it_is(pieces: list[float], rests_first: bool, noise: float, by_gripper: bool) -> None:
    edges = np.cumsum([0.0, *pieces])
    rests = list(zip(edges[:-1], edges[1:], strict=True))[not rests_first :: 2]
    times = np.arange(0, edges[-1] + 0.005, 0.01)
    moved = times - sum((np.clip(times, begin, end) - begin for begin, end in rests), np.zeros_like(times))
    way = 0.3 * moved  # rad, or opening
    still = np.random.default_rng(0).uniform(-noise, noise, (len(times), 7))
    positions = still + (0 if by_gripper else way[:, None])
    track = JointTrack(STATES, times, positions, way % 1 if by_gripper else np.ones(len(times)))
    found = find_idle({STATES: track}).idle
    assert len(found) == len(rests)
    for interval, (begin, end) in zip(found, rests, strict=True):
        assert abs(interval.begin - begin) < 0.1 and abs(interval.end - end) < 0.1


def test_rest_requires_constant_commands_and_measurements() -> None:
    times = np.arange(0, 3, 0.02)
    still, moving = np.zeros((len(times), 7)), np.outer(times, np.ones(7))
    for tracks in ((still, moving), (moving, still)):
        both = zip((STATES, COMMANDS), tracks, strict=True)
        assert find_idle({t: JointTrack(t, times, each, np.ones(len(times))) for t, each in both}).idle == ()


# ------------------------------------------------------------------------------------------------------------ trimming


class Stored(NamedTuple):
    """A message in a file."""

    log_ns: int
    publish_ns: int
    data: bytes


def stored(folder: Path) -> dict[str, list[Stored]]:
    """All messages of a bag by topic, read by another library."""
    (file,) = folder.glob("*.mcap")
    found: dict[str, list[Stored]] = {}
    with open(file, "rb") as stream:
        for _, channel, each in make_reader(stream).iter_messages():
            found.setdefault(channel.topic, []).append(Stored(each.log_time, each.publish_time, each.data))
    return found


def topics(folder: Path) -> dict[str, dict[str, Any]]:
    listed = yaml.safe_load((folder / METADATA).read_text())["rosbag2_bagfile_information"]
    return {t["topic_metadata"]["name"]: t["topic_metadata"] for t in listed["topics_with_message_count"]}


BEGIN, END = 1.5, 3.5  # s, when it moves
RESTING = make_demo(lambda times: np.clip(times, BEGIN, END), 5.0)


def with_others(demo: Demo) -> Demo:
    """Other topics: with a header, of a custom type, latched by QoS, and without a header."""
    times = np.arange(0, 5, 0.1)
    force = TYPES.types["lab_msgs/msg/Force"]
    entries = {
        "/force": [replace(entry_at(t, force(header=header(t), force=t)), log=t + 0.4) for t in times],
        "/map": [entry_at(t, message("std_msgs/Int32", data=int(10 * t))) for t in (0.1, 0.2, 4.9)],
        "/light": [entry_at(t, message("std_msgs/Float64", data=t)) for t in times],
        "/sent_once": [entry_at(4.5, message("std_msgs/Float64", data=1.0))],
        "/silent": [],
    }
    qos = {"/map": LATCHED, "/force": Qos(depth=7, reliability="best_effort", deadline=100_000_000)}
    return Demo({**demo.entries, **entries}, {**demo.qos, **qos})


@pytest.mark.parametrize("keep", [0.0, 0.25, 1.0])
def test_trimming_keeps_motion_and_latched_topics(keep: float, tmp_path: Path, robot: RobotModel) -> None:
    folder = with_others(RESTING).write(tmp_path / "demo")
    before = stored(folder)
    cut_begin, cut_end, left = trim.trim(folder, tmp_path / "out" / "demo", robot, keep)
    after = stored(tmp_path / "out" / "demo")
    assert BEGIN - keep - 0.02 < cut_begin < BEGIN - keep + 0.1
    assert END + keep - 0.1 < cut_begin + left < END + keep + 0.02
    last = max(RESTING.times(topic)[-1] for topic in (FRONT, WRIST, STATES, COMMANDS))
    assert cut_begin + cut_end + left == pytest.approx(last)
    assert topics(tmp_path / "out" / "demo") == topics(folder)
    for topic, messages in before.items():
        if topic in ("/task", "/episode", "/robot_model", "/success", "/map", "/sent_once"):
            assert [m.data for m in after[topic]] == [m.data for m in messages]
            continue
        if topic == "/light":
            taken = [m.log_ns / 1e9 - START / 1e9 - DELAY for m in messages]
        else:
            taken = list(with_others(RESTING).times(topic) - (0.4 - DELAY) * (topic == "/force"))
        inside = [m for m, time in zip(messages, taken, strict=True) if cut_begin <= time <= cut_begin + left]
        assert after[topic] == inside and 0 < len(inside) < len(messages)
    logs = [m.log_ns / 1e9 - START / 1e9 for topic, each in after.items() if topic != "/force" for m in each]
    assert cut_begin <= min(logs) and max(logs) <= cut_begin + left + 2 * DELAY


def test_trimmed_demo_has_no_faults(tmp_path: Path, robot: RobotModel) -> None:
    folder = with_others(RESTING).write(tmp_path / "demo")
    trim.trim(folder, tmp_path / "out", robot, 0.25)
    assert check(tmp_path / "out", robot).findings == ()
    whole, left = (Episode.load(each, robot) for each in (folder, tmp_path / "out"))
    first = int(np.flatnonzero(whole.stamps == left.stamps[0])[0])
    np.testing.assert_allclose(left.positions, whole.positions[first : first + len(left)], atol=1e-12)
    np.testing.assert_array_equal(left.command_gripper, whole.command_gripper[first : first + len(left)])
    assert (left.image("wrist", 3) == whole.image("wrist", first + 3)).all()
    again = trim.trim(tmp_path / "out", tmp_path / "again", robot, 0.25)
    assert again.cut_begin < 0.05 and again.cut_end < 0.05


def test_trimming_resumes_after_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demos, out = tmp_path / "demos", tmp_path / "out"
    RESTING.write(demos / "a")
    RESTING.write(demos / "deep" / "b")
    resting(0.0, 9.9, 2.0).write(demos / "still")
    tear(CLEAN.write(demos / "torn"))
    originals = {file: file.read_bytes() for file in demos.rglob("*") if file.is_file()}
    arguments = ["episodes", "trim", str(demos), "--out", str(out)]

    written, write = [0], BagRecorder.write

    def interrupted(*given: Any, **named: Any) -> bool:
        written[0] += 1
        if written[0] == 1500:  # in the second demo
            raise KeyboardInterrupt
        return write(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(BagRecorder, "write", interrupted)
        assert main(arguments) == 130
    assert [file.parent for file in out.rglob("*.mcap")] == [out / "a"]
    assert not [*out.rglob(f"{PARTIAL}/*")]
    (out / "deep" / PARTIAL / "b").mkdir(parents=True)  # as a killed run leaves it
    first = (out / "a" / "a.mcap").stat().st_mtime_ns

    assert main(arguments) == 0
    output = capsys.readouterr()
    assert "still: nothing moves" in output.out and "torn: cannot be read" in output.out
    assert "2 demos in" in output.out and "1 of them new" in output.out and "2 skipped" in output.out
    assert (out / "a" / "a.mcap").stat().st_mtime_ns == first
    assert stored(out / "deep" / "b") == stored(out / "a")
    assert {file: file.read_bytes() for file in demos.rglob("*") if file.is_file()} == originals
    assert main(arguments) == 0
    assert "0 of them new" in capsys.readouterr().out


def test_copy_of_other_demo_is_not_reused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RESTING.write(tmp_path / "monday" / "a")
    resting(1.0, 3.0, 4.0).write(tmp_path / "tuesday" / "a")
    assert main(["episodes", "trim", str(tmp_path / "monday"), "--out", str(tmp_path / "out")]) == 0
    before = stored(tmp_path / "out" / "a")
    assert main(["episodes", "trim", str(tmp_path / "tuesday"), "--out", str(tmp_path / "out")]) == 2
    assert "name another --out" in capsys.readouterr().err and stored(tmp_path / "out" / "a") == before


@pytest.mark.parametrize(
    "out, keep, expected", [("demos/out", "0", "choose a folder outside"), ("out", "-1", "--keep")]
)
def test_invalid_trims_are_rejected(
    out: str, keep: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    CLEAN.write(tmp_path / "demos" / "a")
    arguments = ["trim", str(tmp_path / "demos"), "--out", str(tmp_path / out), f"--keep={keep}"]
    assert main(["episodes", *arguments]) == 2
    assert expected in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ the commands


def test_list_has_one_line_per_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CLEAN.write(tmp_path / "b")
    CLEAN.without("/episode").without("/success").drop(FRONT, slice(None, None, 2)).write(tmp_path / "a")
    CLEAN.write(tmp_path / PARTIAL / "under_way")
    assert main(["episodes", "list", str(tmp_path)]) == 0
    title, a, b, total, *hints = capsys.readouterr().out.splitlines()
    assert re.split(r"  +", title) == ["demo", "instruction", "s", "images", "MB", "operator", "success"]
    assert re.fullmatch(r"a +wave +3.99 +2 x 15.0 to 30.0 Hz 32x24 +\d.\d +- +-", a)
    assert re.fullmatch(r"b +wave +3.99 +2 x 30.0 Hz 32x24 +\d.\d +Ada +yes", b)
    assert total.startswith("2 demos, 8.0 s") and "1 successes, 0 failures, 1 not judged; 0 cannot" in total
    assert any("./genima episodes judge" in hint for hint in hints)

    tear(CLEAN.write(tmp_path / "c"))
    assert main(["episodes", "list", str(tmp_path), "--check"]) == 1
    title, a, b, c, total, *hints = capsys.readouterr().out.splitlines()
    assert title.endswith("problems") and a.endswith("1 warning") and b.endswith("-")
    assert re.match(r"c +cannot be read: ", c) and "1 cannot be read" in total
    assert any("./genima episodes repair" in hint for hint in hints)


def test_checking_prints_and_writes_all_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demos, out = tmp_path / "demos", tmp_path / "found.json"
    for name in ("a failure", "images lost"):
        FAULTS[name][0].write(demos / name)
    CLEAN.write(demos / "clean")
    assert main(["episodes", "check", str(demos), "--out", str(out)]) == 1
    output = capsys.readouterr().out
    assert f"images lost: 1 error\n  error   {FRONT} at 1.970 s: the next" in output
    assert "a failure: 1 warning" in output and "clean" not in output
    assert "3 demos: 1 cannot be trained on, 1 have warnings" in output
    found = json.loads(out.read_text())
    assert list(found) == ["a failure", "clean", "images lost"] and found["clean"] == []
    (lost,) = found["images lost"]
    assert (lost["severity"], lost["topic"], lost["time"]) == (
        "error",
        FRONT,
        pytest.approx(1.9697, abs=1e-4),
    )
    assert main(["episodes", "check", str(demos / "a failure")]) == 0


def test_parallel_check_has_same_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(2):
        CLEAN.drop(FRONT, slice(10 * k + 20, 10 * k + 22)).write(tmp_path / f"{k}")
    outputs = []
    for worth in (8, 1):
        monkeypatch.setattr("genima_cli.episodes.each._WORTH_A_PROCESS", worth)
        assert main(["episodes", "check", str(tmp_path)]) == 1
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] and "2 cannot be trained on" in outputs[0]


@pytest.mark.parametrize("name", ["no joint states", "cut image", "not a number"])
def test_faulty_demo_is_shown(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, picture = FAULTS[name][0].write(tmp_path / "demo"), tmp_path / "shown.png"
    assert main(["episodes", "show", str(folder), "--picture", str(picture)]) == 0
    output = capsys.readouterr().out
    assert (
        str(picture) in output and "wave" in output and "Ada" in output and f"{LEADER}: 200 messages, 50.0 Hz" in output
    )
    drawn = cv2.imread(str(picture))
    assert drawn.shape[0] > 1000 and 1400 < drawn.shape[1] < 1600 and drawn.std() > 10


def test_demo_without_images_or_joints_is_shown(tmp_path: Path) -> None:
    Demo({"/task": CLEAN.entries["/task"]}).write(tmp_path / "demo")
    assert main(["episodes", "show", str(tmp_path / "demo"), "--picture", str(tmp_path / "shown.png")]) == 0


@pytest.mark.parametrize("command", [["list"], ["check"], ["trim", "--out", "out"]])
def test_folder_without_demos_is_reported(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["episodes", command[0], str(tmp_path), *command[1:]]) == 2
    assert str(tmp_path) in capsys.readouterr().err
