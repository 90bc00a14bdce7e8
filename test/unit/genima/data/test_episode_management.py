"""Tests of judging, deleting, renaming and merging demos."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from command import run_episodes
from recorded_demos import CLEAN, SHORT, BagEntry, text

from genima.data.episodes import Episode, find_episodes
from genima.data.episodes.bag import PARTIAL
from genima.data.episodes.bag_recorder import BagRecorder
from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.folders import DELETED
from genima.data.episodes.robot import load_episode_robot, require_episode_robot
from genima.robot.model import RobotModel
from genima_cli.__main__ import main


@pytest.fixture(scope="module")
def unjudged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SHORT.without("/success").write(tmp_path_factory.mktemp("unjudged") / "demo")


@pytest.fixture
def demos(unjudged: Path, tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        shutil.copytree(unjudged, tmp_path / "demos" / name)
    return tmp_path / "demos"


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in find_episodes(folder))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_rejected(capsys: pytest.CaptureFixture[str], expected: str, *arguments: object) -> None:
    capsys.readouterr()
    assert run_episodes(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert expected in error and "\n" not in error, error


def test_judge_and_undo(demos: Path, tmp_path: Path, robot: RobotModel, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(demos / "b")
    assert run_episodes("list", demos) == 0 and "3 not judged" in capsys.readouterr().out
    assert run_episodes("judge", demos / "a", demos / "b", "--success") == 0
    assert run_episodes("judge", demos / "b", "--failure") == 0
    assert Episode.load(demos / "a", robot).success is True and Episode.load(demos / "b", robot).success is False
    capsys.readouterr()
    assert run_episodes("list", demos) == 0
    assert "1 successes, 1 failures, 1 not judged" in capsys.readouterr().out
    assert run_episodes("trim", demos / "a", "--out", tmp_path / "out") == 0
    assert Episode.load(tmp_path / "out" / "a", robot).success is True  # by the copy's own bag
    assert not (tmp_path / "out" / "a" / "judgement.yaml").exists()
    assert run_episodes("judge", demos, "--undo") == 0
    assert Episode.load(demos / "b", robot).success is None and contents(demos / "b") == before
    failed = CLEAN.write(demos / "judged")
    run_episodes("judge", failed, "--failure")
    assert Episode.load(failed, robot).success is False
    run_episodes("judge", failed, "--undo")
    assert Episode.load(failed, robot).success is True
    (demos / "a" / "judgement.yaml").write_text("success: maybe\n")
    assert_rejected(capsys, "judge it again", "replay", demos / "a", "--sim")
    for options in ([], ["--success", "--failure"], ["--undo", "--success"]):
        assert_rejected(capsys, "give one of", "judge", demos / "a", *options)
    assert_rejected(capsys, "there is no folder", "judge", demos / "none", "--success")


def test_missing_robot_model_is_reported_with_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = SHORT.with_entries("/robot_model", [BagEntry(text("name: panda"), 0.0)]).write(tmp_path / "damaged")
    assert_rejected(capsys, "gripper missing", "replay", damaged, "--sim")
    old = SHORT.without("/robot_model")
    assert load_episode_robot(old.write(tmp_path / "old")).name == "panda"

    def rename(entry: BagEntry) -> BagEntry:
        return replace(entry, message=replace(entry.message, name=[f"arm_{i}" for i in range(8)]))

    other = old.changed("/joint_states", slice(None), rename).write(tmp_path / "other")
    assert_rejected(capsys, "in config/robots: none; name its cell with --cell", "replay", other, "--sim")


def test_robot_of_demo(tmp_path: Path, robot: RobotModel, capsys: pytest.CaptureFixture[str]) -> None:
    mine = replace(robot, name="mine", arm="panda", velocity_max=robot.velocity_max / 2)
    model = text(yaml.safe_dump(mine.to_dict()))
    held = SHORT.with_entries("/robot_model", [BagEntry(model, 0.0)]).write(tmp_path / "demos" / "held")
    assert load_episode_robot(held, robot).to_dict() == mine.to_dict()
    assert run_episodes("show", held, "--picture", tmp_path / "held.png") == 0
    assert "mine" in capsys.readouterr().out
    old = SHORT.without("/robot_model").write(tmp_path / "demos" / "old")
    assert load_episode_robot(old, mine).name == "mine"
    assert_rejected(capsys, "sim_fr3: its robot is fr3, that of", "replay", held, "--sim", "--cell", "sim_fr3")
    assert_rejected(capsys, "none_such", "check", old, "--cell", "none_such")
    with pytest.raises(EpisodeError, match="of robot mine, not fr3"):
        require_episode_robot(held, RobotModel.load("fr3"))


def test_deleted_demos_are_restored(demos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(demos)
    assert_rejected(capsys, "--yes", "delete", demos / "a")
    assert names(demos) == ["a", "b", "c"]
    assert run_episodes("delete", demos / "a", demos / "b", "--yes") == 0
    assert names(demos) == ["c"] and len(list((demos / DELETED).glob("*/a"))) == 1
    assert names(demos / DELETED)[0].endswith("/a")  # they can be looked at there
    shutil.copytree(demos / "c", demos / "a")
    assert_rejected(capsys, "exists already", "delete", "--undo", demos / "a")
    assert run_episodes("delete", demos / "a", "--yes") == 0 and len(list((demos / DELETED).glob("*/a"))) == 2
    assert run_episodes("delete", "--undo", demos / "a") == 0 and run_episodes("delete", "--undo", demos / "b") == 0
    assert run_episodes("delete", demos / "a", "--yes") == 0
    assert run_episodes("delete", "--undo", demos / "a") == 0
    assert_rejected(capsys, "no demo none", "delete", "--undo", demos / "none")
    assert {name: data for name, data in contents(demos).items() if not name.startswith(DELETED)} == before


def test_only_demos_are_deleted(demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (demos / "a" / "notes.txt").write_text("mine")
    (demos / "b" / "plots").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "metadata.yaml").write_text("mine: 1\n")
    (tmp_path / "link").symlink_to(demos / "c")
    before = contents(tmp_path)
    for path, expected in {
        demos / "a": "notes.txt", demos / "b": "plots", demos: "no demo", tmp_path / "photos": "no demo",
        tmp_path / "none": "no demo", tmp_path / "link": "is a link",
    }.items():  # fmt: skip
        assert_rejected(capsys, expected, "delete", path, "--yes")
    assert contents(tmp_path) == before


def test_demos_are_renamed_by_scheme_and_nothing_is_replaced(demos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_episodes("rename", demos / "a", "--to", "lid one") == 0
    assert names(demos) == ["b", "c", "lid one"]
    assert run_episodes("rename", demos, "--to", "{task}-{number}") == 0
    assert names(demos) == ["wave-001", "wave-002", "wave-003"]
    assert run_episodes("rename", demos, "--to", "wave-{number}", "--first", "2") == 0  # each takes the next one's name
    assert names(demos) == ["wave-002", "wave-003", "wave-004"]
    assert run_episodes("rename", demos / "wave-002", demos / "wave-003", "--to", "{date}_{name}") == 0
    assert names(demos)[0] == "2023-11-14_22-13-20_wave-002" or "_wave-002" in names(demos)[0]
    before = contents(demos)
    other = demos / "wave-004"
    for scheme, expected in {
        names(demos)[0]: "exists already", "x/y": "no name", "..": "no name", "": "no name", ".x": "no name",
        "{number:9999999999}": "knows", "{x}": "knows", "{0.__class__}": "knows", "a\x1b": "no name",
        "x" * 300: "no name",
    }.items():  # fmt: skip
        assert_rejected(capsys, expected, "rename", other, "--to", scheme)
    assert_rejected(capsys, "several demos", "rename", demos, "--to", "same")
    assert contents(demos) == before


def test_cyclic_renames(demos: Path) -> None:
    from genima.data.episodes import management as manage

    (demos / "a" / "judgement.yaml").write_text("success: true\n")
    manage.rename({demos / "a": demos / "b", demos / "b": demos / "a"})
    assert (demos / "b" / "judgement.yaml").exists() and names(demos) == ["a", "b", "c"]


def test_folders_are_merged_and_nothing_is_replaced(
    demos: Path, unjudged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(unjudged, tmp_path / "more" / "deep" / "d")
    out = tmp_path / "all"
    assert run_episodes("merge", demos, tmp_path / "more", "--out", out) == 0
    assert names(out) == ["a", "b", "c", "d"] and names(demos) == ["a", "b", "c"]
    assert run_episodes("merge", demos, tmp_path / "more", "--out", out) == 0
    assert "0 demos copied" in capsys.readouterr().out.splitlines()[-1]
    before = contents(tmp_path)
    CLEAN.write(tmp_path / "others" / "a")
    before |= contents(tmp_path)
    assert_rejected(capsys, "another demo", "merge", tmp_path / "others", "--out", out)
    assert_rejected(capsys, "same name", "merge", demos, tmp_path / "others", "--out", tmp_path / "new")
    assert contents(tmp_path) == before and not (tmp_path / "new").exists()
    assert run_episodes("merge", tmp_path / "others", "--out", tmp_path / "moved", "--move") == 0
    assert names(tmp_path / "moved") == ["a"] and not (tmp_path / "others" / "a").exists()


def test_demos_being_recorded_are_skipped(demos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with BagRecorder(demos / "live", reserve_bytes=0) as recorder:
        recorder.add_topic("/task", "std_msgs/msg/String")
        assert names(demos) == ["a", "b", "c"]
        for arguments in (["judge", "--success"], ["delete", "--yes"], ["rename", "--to", "x"]):
            assert run_episodes(arguments[0], demos / PARTIAL / "live", *arguments[1:]) == 2
        assert_rejected(capsys, "is being recorded", "rename", demos / "a", "--to", "live")
        with open(demos / "b" / "demo.mcap", "ab"):  # by another recorder
            assert_rejected(capsys, "is being recorded", "delete", demos / "b", "--yes")
            assert_rejected(capsys, "is being recorded", "judge", demos / "b", "--success")
        assert run_episodes("judge", demos / "a", "--success") == 0
        assert run_episodes("rename", demos / "a", "--to", "renamed") == 0
        assert run_episodes("delete", demos / "c", "--yes") == 0
    assert names(demos) == ["b", "live", "renamed"]


def test_reports_and_pictures_replace_only_their_kind(
    demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    readme, report, picture = tmp_path / "README.md", tmp_path / "found.json", tmp_path / "a.png"
    readme.write_text("mine")
    report.write_text('{"mine": 1}')
    picture.write_bytes(b"\x89PNG mine")
    before = contents(tmp_path)
    for options in ([], ["--overwrite"]):
        assert_rejected(capsys, "already exists", "check", demos, "--out", readme, *options)
        assert_rejected(capsys, "already exists", "check", demos, "--out", report, *options)
        assert_rejected(capsys, "already exists", "show", demos / "a", "--picture", picture, *options)
    assert contents(tmp_path) == before
    for command in (["check", demos, "--out", tmp_path / "new.json"], ["show", demos / "a"]):
        monkeypatch.chdir(tmp_path / "demos")
        assert run_episodes(*command) == 0
        assert_rejected(capsys, "--overwrite", *command)
        assert run_episodes(*command, "--overwrite") == 0


@pytest.mark.parametrize("command", ["list", "show", "check", "trim", "repair", "judge", "delete", "rename", "merge"])
def test_every_command_has_help_with_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["episodes", command, "--help"])
    assert ended.value.code == 0
    assert f"Example: ./genima episodes {command} data/" in capsys.readouterr().out


def test_help_imports_nothing_slow() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from genima_cli.__main__ import main\n"
        "try: main(['episodes', 'judge', '--help'])\nexcept SystemExit: pass\n"
        "slow = {'numpy', 'cv2', 'torch', 'rosbags', 'pyarrow', 'matplotlib', 'rclpy', 'mcap'} & sys.modules.keys()\n"
        "assert not slow, slow"
    )
    for command in ("judge", "list", "trim"):
        subprocess.run([sys.executable, "-c", code.replace("judge", command)], check=True, capture_output=True)
