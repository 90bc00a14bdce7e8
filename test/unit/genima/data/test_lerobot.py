"""Tests of export to and import from LeRobotDataset v3.0."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import error_line, run_episodes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from genima.cameras.camera import Camera
from genima.data.episodes import Episode, EpisodeWriter, find_episodes
from genima.data.lerobot import DatasetReader, DatasetWriter, statistics, writer
from genima.data.lerobot.video import Schedule
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Command, Image, Joints

VIEWS = ("front", "left_shoulder", "right_shoulder", "wrist")
FPS = 30
LENGTHS = (24, 31, 20)
TASKS = ("wave, slowly", "push it", "wave, slowly")
SUCCESSES = (True, False, True)
JITTER = 0.22  # of a period


def picture(rng: np.random.Generator, height: int = 64, width: int = 96) -> Image:
    return cv2.resize(rng.integers(40, 216, (4, 6, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def jittered(rng: np.random.Generator, length: int, fps: float = FPS, jitter: float = JITTER) -> NDArray[np.float64]:
    return (np.arange(length) + rng.uniform(-jitter, jitter, length)) / fps


def write_demo(
    folder: Path,
    robot: RobotModel,
    cameras: Mapping[str, Camera],
    number: int = 0,
    fps: float = FPS,
    views: tuple[str, ...] = VIEWS,
    size: tuple[int, int] = (64, 96),
) -> Path:
    rng = np.random.default_rng(number)
    stamps = 1_700_000_000 + jittered(rng, LENGTHS[number], fps)
    with EpisodeWriter(folder, robot, cameras, TASKS[number]) as episode:
        for stamp in stamps:
            joints = rng.uniform(robot.position_min, robot.position_max)
            images = {view: picture(rng, *size) for view in views}
            episode.observe(stamp, images, Joints(stamp, joints, float(rng.uniform())))
            episode.command(Command(stamp, joints + rng.normal(0, 0.01, 7), gripper=float(rng.uniform())))
        episode.judge(stamps[-1], SUCCESSES[number])
    return folder


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory, robot: RobotModel, cameras: Mapping[str, Camera]) -> Path:
    """Three jittered demos of two tasks."""
    folder = tmp_path_factory.mktemp("demos")
    for number in range(len(LENGTHS)):
        write_demo(folder / f"demo-{number}", robot, cameras, number)
    return folder


@pytest.fixture(scope="module")
def episodes(demos: Path, robot: RobotModel) -> list[Episode]:
    return [Episode.load(folder, robot) for folder in find_episodes(demos)]


@pytest.fixture(scope="module")
def dataset(episodes: list[Episode], robot: RobotModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lerobot") / "ours"
    export(episodes, folder, robot)
    return folder


def export(episodes: list[Episode], folder: Path, robot: RobotModel) -> None:
    with DatasetWriter(folder, robot) as dataset:
        for episode in episodes:
            assert dataset.add(episode) == 0


def psnr(image: Image, truth: Image) -> float:
    return float(10 * np.log10(255**2 / np.square(image.astype(float) - truth).mean()))


def check_equal(back: Episode, truth: Episode, every: int = 1) -> None:
    for name in ("positions", "gripper", "command_positions", "command_gripper"):
        np.testing.assert_allclose(getattr(back, name), getattr(truth, name), rtol=2**-23, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(back.stamps - back.stamps[0], truth.stamps - truth.stamps[0], atol=1e-6)
    assert (back.instruction, back.success, back.views) == (truth.instruction, truth.success, truth.views)
    for view in truth.views:
        for t in range(0, len(truth), every):
            assert psnr(back.image(view, t), truth.image(view, t)) > 35


# ------------------------------------------------------------------------------------------------------- there and back


def test_lerobot_round_trip_keeps_stamps_joints_commands_and_images(
    episodes: list[Episode], dataset: Path, tmp_path: Path, robot: RobotModel
) -> None:
    reader = DatasetReader(dataset, robot)
    assert len(reader) == len(episodes)
    for index, truth in enumerate(episodes):
        assert np.ptp(np.diff(truth.stamps)) > 0.2 / FPS, "the demos are to be uneven"
        reader.write_episode(index, tmp_path / reader.name(index))
        check_equal(Episode.load(tmp_path / reader.name(index), robot), truth)
    assert sorted(path.name for path in find_episodes(tmp_path)) == ["ours-000000", "ours-000001", "ours-000002"]


def test_recorded_demo_round_trip_by_commands(
    demos_folder: Path, copy_folder: Callable[[Path], Path], tmp_path: Path, robot: RobotModel,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    demo = copy_folder(demos_folder / "push_button-1")
    assert run_episodes("export", demo.parent, "--out", tmp_path / "set") == 0
    command = ("import", tmp_path / "set", "--out", tmp_path / "back", "--on-fault", "refuse")
    assert run_episodes(*command) == 0
    assert "1 episodes in" in (output := capsys.readouterr()).out and "1/1" in output.err
    (back,) = find_episodes(tmp_path / "back")
    check_equal(Episode.load(back, robot), Episode.load(demo, robot), every=7)
    written = back.stat().st_mtime_ns
    assert run_episodes(*command) == 0
    assert back.stat().st_mtime_ns == written


# ----------------------------------------------------------------------------------------------------------- the format


def test_info_has_all_fields_of_loader(dataset: Path, robot: RobotModel) -> None:
    info = json.loads((dataset / "meta/info.json").read_text())
    features = info.pop("features")
    assert info == {
        "codebase_version": "v3.0",
        "robot_type": "panda",
        "total_episodes": 3,
        "total_frames": sum(LENGTHS),
        "total_tasks": 2,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": FPS,
        "splits": {"train": "0:3"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    joints = [*robot.joint_names, "gripper_open_fraction"]
    for name in ("observation.state", "action"):
        assert features.pop(name) == {"dtype": "float32", "shape": [8], "names": joints}
    for view in VIEWS:
        assert features.pop(f"observation.images.{view}") == {
            "dtype": "video",
            "shape": [64, 96, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": 64,
                "video.width": 96,
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": FPS,
                "video.channels": 3,
                "has_audio": False,
            },
        }
    assert features.pop("next.success") == {"dtype": "bool", "shape": [1], "names": None}
    assert features.pop("timestamp") == {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        assert features.pop(name) == {"dtype": "int64", "shape": [1], "names": None}
    assert not features


def test_tables_have_columns_and_types_of_format(dataset: Path, episodes: list[Episode]) -> None:
    frames = pq.read_table(dataset / "data/chunk-000/file-000.parquet")
    vector = pa.list_(pa.float32(), 8)
    assert {field.name: field.type for field in frames.schema} == {
        "observation.state": vector,
        "action": vector,
        "next.success": pa.bool_(),
        "timestamp": pa.float32(),
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), pa.int64()),
    }
    columns = {name: np.array(frames[name].to_pylist()) for name in frames.column_names}
    np.testing.assert_array_equal(columns["index"], np.arange(sum(LENGTHS)))
    np.testing.assert_array_equal(columns["episode_index"], np.repeat(range(3), LENGTHS))
    np.testing.assert_array_equal(columns["frame_index"], np.concatenate([np.arange(n) for n in LENGTHS]))
    np.testing.assert_array_equal(columns["task_index"], np.repeat([0, 1, 0], LENGTHS))
    ends = np.cumsum(LENGTHS)
    assert np.flatnonzero(columns["next.success"]).tolist() == [ends[0] - 1, ends[2] - 1]
    for end, episode in zip(ends, episodes, strict=True):
        rows = slice(end - len(episode), end)
        np.testing.assert_allclose(columns["timestamp"][rows], episode.stamps - episode.stamps[0], atol=1e-6)
        np.testing.assert_array_equal(columns["action"][rows, :-1], episode.command_positions.astype(np.float32))
        np.testing.assert_array_equal(columns["observation.state"][rows, -1], episode.gripper.astype(np.float32))

    tasks = pd.read_parquet(dataset / "meta/tasks.parquet")
    assert tasks.index.tolist() == ["wave, slowly", "push it"] and tasks["task_index"].tolist() == [0, 1]

    rows = pq.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["tasks"] for row in rows] == [[task] for task in TASKS]
    for number, (row, episode) in enumerate(zip(rows, episodes, strict=True)):
        assert (row["episode_index"], row["length"]) == (number, len(episode))
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (ends[number] - len(episode), ends[number])
        for part in ("data", "meta/episodes", *(f"videos/observation.images.{view}" for view in VIEWS)):
            assert (row[f"{part}/chunk_index"], row[f"{part}/file_index"]) == (0, 0)
        for view in VIEWS:
            begin, end = (row[f"videos/observation.images.{view}/{which}_timestamp"] for which in ("from", "to"))
            assert end - begin == pytest.approx(episode.stamps[-1] - episode.stamps[0] + 1 / FPS)
            assert number == 0 or begin > rows[number - 1][f"videos/observation.images.{view}/to_timestamp"] - 1 / FPS


def test_statistics_match_data_and_format(dataset: Path, episodes: list[Episode]) -> None:
    whole = json.loads((dataset / "meta/stats.json").read_text())
    row = pq.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[1]
    features = json.loads((dataset / "meta/info.json").read_text())["features"]
    assert whole.keys() == features.keys()
    kinds = ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")
    for name, feature in features.items():
        shape = (3, 1, 1) if feature["dtype"] == "video" else tuple(feature["shape"])
        for kind in kinds:
            for value in (whole[name][kind], row[f"stats/{name}/{kind}"]):
                assert np.shape(value) == ((1,) if kind == "count" else shape), f"{kind} of {name}"
        assert (whole[name]["count"], row[f"stats/{name}/count"]) == ([sum(LENGTHS)], [LENGTHS[1]])

    state = np.concatenate([np.column_stack([episode.positions, episode.gripper]) for episode in episodes])
    images = np.stack([episode.image("wrist", t) for episode in episodes for t in range(len(episode))]) / 255
    pixels = images.reshape(-1, 3)
    for name, rows in (("observation.state", state), ("observation.images.wrist", pixels)):
        for kind in ("min", "max", "mean", "std"):
            truth = getattr(np, kind)(rows, axis=0)
            np.testing.assert_allclose(np.ravel(whole[name][kind]), truth, atol=1e-6, err_msg=f"{kind} of {name}")
    one = images[LENGTHS[0] : LENGTHS[0] + LENGTHS[1]].reshape(-1, 3)
    for kind, quantile in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        truth = np.quantile(one, quantile, axis=0)
        np.testing.assert_allclose(np.ravel(row[f"stats/observation.images.wrist/{kind}"]), truth, atol=1 / 255)


def test_pooled_statistics_are_those_of_all_rows_together() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(rng.normal(size=3), 2, (50, 3))
    pooled = statistics.pool_statistics([statistics.row_statistics(part) for part in np.split(rows, [5, 20])])
    for kind in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(pooled[kind], statistics.row_statistics(rows)[kind])
    halves = statistics.pool_statistics([statistics.row_statistics(rows[:10]), statistics.row_statistics(rows[10:])])
    truth = (np.quantile(rows[:10], 0.9, axis=0) + 4 * np.quantile(rows[10:], 0.9, axis=0)) / 5
    np.testing.assert_allclose(halves["q90"], truth)


# --------------------------------------------------------------------------------------------------------------- videos


def test_video_frames_are_shown_when_they_were_taken(dataset: Path, episodes: list[Episode]) -> None:
    rows = pq.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    for view in VIEWS:
        key = f"observation.images.{view}"
        with av.open(str(dataset / f"videos/{key}/chunk-000/file-000.mp4")) as video:
            stream = video.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt, stream.start_time) == ("h264", "yuv420p", 0)
            assert stream.base_rate == FPS, "this is what readers take for the rate"
            frames = {frame.time: frame.to_ndarray(format="rgb24") for frame in video.decode(stream)}
        times = np.array(list(frames))
        for row, episode in zip(rows, episodes, strict=True):
            for t, stamp in enumerate(row[f"videos/{key}/from_timestamp"] + episode.stamps - episode.stamps[0]):
                nearest = times[np.abs(times - stamp).argmin()]
                assert abs(nearest - stamp) < 2e-6
                assert psnr(frames[nearest], episode.image(view, t)) > 35


def found_by_number(shown: NDArray[np.int64], wanted: float, fps: int) -> int:
    """Frame decoded for a time in s: lerobot rounds it to an index, torchcodec converts the index to a time."""
    number = round(wanted * fps)
    assert number < len(shown)
    return next(i for i, time in enumerate(shown) if time >= round(number / fps * 1e6))


@settings(max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    length=st.integers(3, 120),
    fps=st.sampled_from([10, 15, 20, 30, 60]),
    drift=st.floats(-2e-4, 2e-4),
    lost=st.sets(st.integers(1, 118), max_size=5),
    begin=st.sampled_from([0, 1, 777]),
)
def test_counting_readers_find_every_frame_of_jittered_video(
    seed: int, length: int, fps: int, drift: float, lost: set[int], begin: int
) -> None:
    times = jittered(np.random.default_rng(seed), length, fps) * (1 + drift)
    times = np.delete(times, [i for i in lost if i < length - 1])
    times -= times[0]
    schedule = Schedule.of(times, fps, begin)
    shown, decoded, images = schedule.shown, schedule.decoded, schedule.images
    assert (np.diff(shown) > 0).all() and (np.diff(decoded) > 0).all() and (np.diff(images) >= 0).all()
    assert (decoded <= shown).all() and (decoded[1:] > shown[:-1]).all()
    assert (shown[0] == 0) == (begin == 0) and decoded[0] >= (begin - 0.5) / fps * 1e6
    assert schedule.end == begin + len(shown) and schedule.missed == 0
    before = np.round((np.arange(begin) + 0.25) / fps * 1e6).astype(np.int64)
    file = np.concatenate([before, shown])
    for t, time in enumerate(schedule.start + times):
        found = found_by_number(file, float(time), fps)
        assert images[found - begin] == t and abs(file[found] / 1e6 - time) < 2e-6


def test_frames_with_large_jitter_are_counted() -> None:
    times = np.arange(60) / FPS
    times[[10, 30]] += 0.3 / FPS
    times[20] -= 0.3 / FPS
    assert Schedule.of(times, FPS, 0).missed == 1, "all but one lie within half a period"
    # A camera that runs slow strays further and further: half of its period in all is what a reader bears.
    assert Schedule.of(np.arange(400) / (FPS - 0.03), FPS, 0).missed == 0
    assert Schedule.of(np.arange(800) / (FPS - 0.03), FPS, 0).missed > 200


def test_episodes_spread_over_files_of_limited_size(
    episodes: list[Episode], tmp_path: Path, robot: RobotModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_VIDEO_MB", 0)
    monkeypatch.setattr(writer.layout, "CHUNK_SIZE", 2)
    export(episodes, tmp_path / "set", robot)
    places = ["chunk-000/file-000", "chunk-000/file-001", "chunk-001/file-000"]
    assert sorted(path.relative_to(tmp_path / "set/data").as_posix() for path in tmp_path.glob("set/data/*/*")) == [
        f"{place}.parquet" for place in places
    ]
    reader = DatasetReader(tmp_path / "set", robot)
    for index, truth in enumerate(episodes):
        reader.write_episode(index, tmp_path / str(index))
        check_equal(Episode.load(tmp_path / str(index), robot), truth)


# ------------------------------------------------------------------------------------------------------------ bad input


def damage(demo: Path) -> None:
    file = next(demo.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_damaged_demo_is_skipped_or_rejected(
    demos: Path,
    copy_folder: Callable[[Path], Path],
    tmp_path: Path,
    robot: RobotModel,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = copy_folder(demos)
    damage(folder / "demo-0")
    assert run_episodes("export", folder, "--out", tmp_path / "set") == 0
    output = capsys.readouterr().out
    assert f"skipped: episode {folder / 'demo-0'}" in output and "2 episodes in" in output and "1 skipped" in output
    assert len(DatasetReader(tmp_path / "set", robot)) == 2
    assert str(folder / "demo-0") in error_line(
        capsys, "export", folder, "--out", tmp_path / "other", "--on-fault", "refuse"
    )
    for name in ("demo-1", "demo-2"):
        damage(folder / name)
    assert "none of the 3 demos" in error_line(capsys, "export", folder, "--out", tmp_path / "other")
    assert {path.name for path in tmp_path.iterdir()} == {"copy", "set"}


@pytest.mark.parametrize("at_fault", [0, 1, 2])
def test_failed_episode_leaves_nothing(
    episodes: list[Episode], at_fault: int, tmp_path: Path, robot: RobotModel, cameras: Mapping[str, Camera],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    faulty = episodes[at_fault]
    if at_fault == 0:  # its size must not be that of the dataset either
        faulty = Episode.load(write_demo(tmp_path / "small", robot, cameras, size=(48, 64)), robot)
    decode = Episode.image

    def image(self: Episode, view: str, t: int) -> Image:
        if self is faulty and view == "wrist" and t == 15:
            raise GenimaError("image 15 cannot be decoded")
        return decode(self, view, t)

    monkeypatch.setattr(Episode, "image", image)
    with DatasetWriter(tmp_path / "set", robot) as dataset:
        for index, episode in enumerate(episodes):
            if index == at_fault:
                with pytest.raises(GenimaError, match="image 15"):
                    dataset.add(faulty)
            else:
                dataset.add(episode)
    monkeypatch.undo()
    reader = DatasetReader(tmp_path / "set", robot)
    assert len(reader) == 2
    for index, truth in enumerate(episode for i, episode in enumerate(episodes) if i != at_fault):
        reader.write_episode(index, tmp_path / str(index))
        check_equal(Episode.load(tmp_path / str(index), robot), truth)


def test_inconsistent_demos_are_errors(
    episodes: list[Episode], tmp_path: Path, robot: RobotModel, cameras: Mapping[str, Camera]
) -> None:
    others = {
        "slow": (dict(fps=20), "runs at 20.* Hz, the dataset at 30 Hz"),
        "blind": (dict(views=VIEWS[:3]), "observation.images.wrist is none"),
        "small": (dict(size=(48, 64)), r"\[48, 64, 3\], in the dataset \[64, 96, 3\]"),
    }
    with DatasetWriter(tmp_path / "set", robot) as dataset:
        dataset.add(episodes[0])
        for name, (options, fault) in others.items():
            other: Any = options
            with pytest.raises(GenimaError, match=f"{name}: .*{fault}"):
                dataset.add(Episode.load(write_demo(tmp_path / name, robot, cameras, **other), robot))
    uneven = Episode.load(write_demo(tmp_path / "uneven", robot, cameras, fps=2.4), robot)
    with pytest.raises(GenimaError, match="no episode was added"), DatasetWriter(tmp_path / "none", robot) as dataset:
        with pytest.raises(GenimaError, match="runs at 2.4 Hz, a LeRobot dataset has a whole number"):
            dataset.add(uneven)
    assert not (tmp_path / "none").exists()
    odd = Episode.load(write_demo(tmp_path / "odd", robot, cameras, size=(65, 96)), robot)
    with DatasetWriter(tmp_path / "odd-set", robot) as dataset:
        with pytest.raises(GenimaError, match="odd.*96x65 .*even"):
            dataset.add(odd)
        dataset.add(episodes[0])


def test_interrupted_export_can_be_repeated(
    episodes: list[Episode], demos: Path, tmp_path: Path, robot: RobotModel
) -> None:
    with pytest.raises(KeyboardInterrupt), DatasetWriter(tmp_path / "set", robot) as dataset:
        dataset.add(episodes[0])
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    killed = (
        "import os, sys; from pathlib import Path; from genima.data.episodes import Episode\n"
        "from genima.data.lerobot import DatasetWriter; from genima.robot.model import RobotModel\n"
        "robot = RobotModel.load('panda'); dataset = DatasetWriter(Path(sys.argv[1]), robot).__enter__()\n"
        "dataset.add(Episode.load(Path(sys.argv[2]), robot)); os._exit(9)"
    )
    command = [sys.executable, "-P", "-c", killed, tmp_path / "set", find_episodes(demos)[0]]
    assert subprocess.run(command, timeout=120).returncode == 9
    assert not (tmp_path / "set").exists() and not list(tmp_path.rglob("info.json"))
    (tmp_path / "set.partial").mkdir()  # the user's own
    (tmp_path / "set.partial/notes.txt").write_text("mine")
    export(episodes[:1], tmp_path / "set", robot)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set.partial"]
    assert (tmp_path / "set.partial/notes.txt").read_text() == "mine"


def test_concurrent_exports_are_rejected(episodes: list[Episode], tmp_path: Path, robot: RobotModel) -> None:
    with DatasetWriter(tmp_path / "set", robot) as dataset:
        dataset.add(episodes[0])
        with pytest.raises(GenimaError, match="another process is writing it"), DatasetWriter(tmp_path / "set", robot):
            pass
    assert len(DatasetReader(tmp_path / "set", robot)) == 1


def test_only_datasets_are_replaced(
    demos: Path, copy_folder: Callable[[Path], Path], dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_folder(dataset)
    before = (folder / "meta/info.json").read_bytes()
    (folder / "thesis.txt").write_text("mine")
    assert "already exists and is not one" in error_line(capsys, "export", demos, "--out", folder, "--overwrite")
    assert (folder / "thesis.txt").read_text() == "mine" and (folder / "meta/info.json").read_bytes() == before
    (folder / "thesis.txt").unlink()
    (folder / "meta/stats.json").unlink()
    assert run_episodes("export", demos, "--out", folder, "--overwrite") == 0
    assert (folder / "meta/stats.json").is_file()


def test_dataset_is_never_overwritten(demos: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"dataset {dataset}: already exists; name another, or replace it with --overwrite" in error_line(
        capsys, "export", demos, "--out", dataset
    )


def change_info(dataset: Path, **changes: Any) -> None:
    path = dataset / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("corrupt", "expected"),
    [
        (lambda folder: (folder / "meta/info.json").unlink(), "not a LeRobotDataset"),
        (lambda folder: (folder / "meta/info.json").write_text("{"), "info.json: not JSON"),
        (lambda folder: change_info(folder, features=3), "info.json: features: Input should be a valid dictionary (3)"),
        (lambda folder: change_info(folder, codebase_version="v2.1"), "is v2.1, v3.0 is needed"),
        (lambda folder: (folder / "meta/tasks.parquet").unlink(), "tasks.parquet: missing"),
        (lambda folder: shutil.rmtree(folder / "meta/episodes"), "it has no episodes"),
        (lambda folder: shutil.rmtree(folder / "videos"), "none of the 3 episodes"),
        (lambda folder: shutil.rmtree(folder / "data"), "none of the 3 episodes"),
    ],
)
def test_incomplete_dataset_is_reported_in_one_line(
    dataset: Path, copy_folder: Callable[[Path], Path], tmp_path: Path, corrupt: Callable[[Path], None], expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = copy_folder(dataset)
    corrupt(folder)
    line = error_line(capsys, "import", folder, "--out", tmp_path / "demos")
    assert str(folder) in line and expected in line
    assert not list(tmp_path.glob("demos/*/metadata.yaml"))


def test_unknown_joint_names_are_reported_and_can_be_mapped(
    dataset: Path, copy_folder: Callable[[Path], Path], tmp_path: Path, robot: RobotModel, episodes: list[Episode],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Dataset of another robot: other names, the gripper first and in percent closed, no success."""
    folder = copy_folder(dataset)
    info = json.loads((folder / "meta/info.json").read_text())
    features = info["features"]
    for name in ("observation.state", "action"):
        features[name]["names"] = {"motors": ["grip", *(f"j{i}" for i in range(7))]}
    features["observation.images.cam_high"] = features.pop("observation.images.front")
    for view in ("left_shoulder", "right_shoulder"):
        del features[f"observation.images.{view}"]
    del features["next.success"]
    change_info(folder, features=features)
    (folder / "videos/observation.images.front").rename(folder / "videos/observation.images.cam_high")
    path = folder / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path).drop_columns(["next.success"])
    for name in ("observation.state", "action"):
        values = np.array(table[name].to_pylist())
        values = np.column_stack([100 * (1 - values[:, -1]), values[:, :-1]])
        table = table.set_column(
            table.column_names.index(name), name, pa.array(values.tolist(), pa.list_(pa.float32()))
        )
    pq.write_table(table, path)
    path = folder / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.rename_columns([name.replace("front", "cam_high") for name in table.column_names]), path)

    command = ["import", folder, "--out", tmp_path / "demos"]
    assert "no camera is called cam_high" in error_line(capsys, *command, "--cameras", "sim")
    assert "has no images observation.images.top; it has" in error_line(
        capsys, *command, "--views", "observation.images.top=front"
    )
    command += ["--views", "observation.images.cam_high=front", "observation.images.wrist=wrist"]
    line = error_line(capsys, *command)
    assert "observation.state" in line and "panda_joint1" in line and "gripper_open_fraction" in line and "j6" in line
    joints = [f"j{i}={name}" for i, name in enumerate(robot.joint_names)]
    assert "--joints takes THEIRS=OURS, not 'grip'" in error_line(capsys, *command, "--joints", *joints, "grip")
    command += ["--joints", *joints, "grip=gripper_open_fraction"]
    assert "unknown range of the gripper (observation.state's grip" in (line := error_line(capsys, *command))
    assert "give --gripper-range CLOSED OPEN" in line
    command_of_fractions = [*command, "--gripper-range", "0", "1"]
    assert "none of the 3 episodes" in error_line(capsys, *command_of_fractions)
    assert "episode 0: observation.state: the gripper goes from" in error_line(
        capsys, *command_of_fractions, "--on-fault", "refuse"
    )
    assert run_episodes(*command, "--gripper-range", "100", "0") == 0
    for truth, demo in zip(episodes, find_episodes(tmp_path / "demos"), strict=True):
        back = Episode.load(demo, robot)
        assert back.views == ("front", "wrist") and back.success is None
        np.testing.assert_allclose(back.positions, truth.positions, atol=1e-6)
        np.testing.assert_allclose(back.command_gripper, truth.command_gripper, atol=1e-6)


def test_degrees_and_decreasing_stamps_are_reported(
    dataset: Path, copy_folder: Callable[[Path], Path], tmp_path: Path, robot: RobotModel
) -> None:
    path = copy_folder(dataset) / "data/chunk-000/file-000.parquet"
    reader = DatasetReader(path.parents[2], robot)
    table = pq.read_table(path)
    frames = table.to_pandas()
    corrupted = frames.assign(timestamp=frames["timestamp"].where(frames["index"] != 5, 0.0))
    pq.write_table(pa.Table.from_pandas(corrupted, table.schema), path)
    with pytest.raises(GenimaError, match="episode 0: its timestamps do not increase"):
        reader.write_episode(0, tmp_path / "one")
    degrees = frames["action"].map(lambda row: np.append(np.degrees(row[:-1]), row[-1]).astype(np.float32))
    pq.write_table(pa.Table.from_pandas(frames.assign(action=degrees), table.schema), path)
    with pytest.raises(GenimaError, match="episode 1: action: panda_joint. exceeds its limits .*radians"):
        reader.write_episode(1, tmp_path / "one")
    pq.write_table(table.slice(0, 40), path)
    with pytest.raises(GenimaError, match="episode 1: 16 frames of 31 are there"):
        reader.write_episode(1, tmp_path / "one")
    assert not (tmp_path / "one").exists()


def test_images_in_tables_are_read_as_well(
    dataset: Path, copy_folder: Callable[[Path], Path], tmp_path: Path, robot: RobotModel, episodes: list[Episode]
) -> None:
    folder = copy_folder(dataset)
    feature = {"dtype": "image", "shape": [3, 64, 96], "names": ["channels", "height", "width"]}
    features = json.loads((folder / "meta/info.json").read_text())["features"]
    change_info(folder, features={**features, "observation.images.front": feature})
    pngs = [
        {"bytes": cv2.imencode(".png", episode.image("front", t)[..., ::-1])[1].tobytes(), "path": None}
        for episode in episodes
        for t in range(len(episode))
    ]
    path = folder / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).append_column("observation.images.front", pa.array(pngs)), path)
    DatasetReader(folder, robot).write_episode(1, tmp_path / "one")
    check_equal(Episode.load(tmp_path / "one", robot), episodes[1])


# -------------------------------------------------------------------------------------------------- the lerobot library

LIBRARY = os.environ.get("LEROBOT_PYTHON", "")
with_library = pytest.mark.skipif(
    not LIBRARY,
    reason="LEROBOT_PYTHON names no Python with the lerobot library (0.4.4 or 0.6.1), torchcodec and FFmpeg",
)


def call_library(*arguments: str | Path) -> None:
    script = Path(__file__).resolve().parents[3] / "lerobot_library.py"
    called = subprocess.run(
        [LIBRARY, script, *arguments], env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert called.returncode == 0, called.stderr


@with_library
@pytest.mark.parametrize("backend", ["torchcodec", "pyav"])
def test_lerobot_library_reads_our_dataset(
    dataset: Path, episodes: list[Episode], tmp_path: Path, backend: str
) -> None:
    call_library("read", dataset, tmp_path / "read.npz", backend)
    with np.load(tmp_path / "read.npz") as read:
        items = dict(read)
    state = np.concatenate([np.column_stack([e.positions, e.gripper]) for e in episodes]).astype(np.float32)
    action = np.concatenate([np.column_stack([e.command_positions, e.command_gripper]) for e in episodes])
    np.testing.assert_array_equal(items["observation.state"], state)
    np.testing.assert_array_equal(items["action"], action.astype(np.float32))
    np.testing.assert_array_equal(items["chunk"], action[:20].astype(np.float32))
    np.testing.assert_allclose(
        items["timestamp"], np.concatenate([e.stamps - e.stamps[0] for e in episodes]), atol=1e-6
    )
    assert items["task"].tolist() == np.repeat(TASKS, LENGTHS).tolist() and items["fps"] == FPS
    assert items["stats/observation.state/q99"].shape == (8,)
    assert items["stats/observation.images.front/std"].shape == (3, 1, 1)
    for view in VIEWS:
        truth = [episode.image(view, t) for episode in episodes for t in range(len(episode))]
        for image, wanted in zip(items[f"observation.images.{view}"], truth, strict=True):
            assert psnr(255 * image.transpose(1, 2, 0), wanted) > 35


@with_library
def test_dataset_of_lerobot_library_is_imported(tmp_path: Path, robot: RobotModel) -> None:
    call_library("write", tmp_path / "theirs")
    joints = [f"joint_{i}.pos={name}" for i, name in enumerate(robot.joint_names)]
    assert 0 == run_episodes(
        "import", tmp_path / "theirs", "--out", tmp_path / "demos", "--robot", robot.name,
        "--gripper-range", "0", "100", "--views", "observation.images.cam_high=front",
        "--joints", *joints, "gripper.pos=gripper_open_fraction",
    )  # fmt: skip
    demos = find_episodes(tmp_path / "demos")
    assert [demo.name for demo in demos] == ["theirs-000000", "theirs-000001"]
    for number, demo in enumerate(demos):
        episode = Episode.load(demo, robot)
        np.testing.assert_allclose(episode.stamps, np.arange(12) / 20, atol=1e-6)
        np.testing.assert_allclose(episode.positions[:, 0], 0.1 * np.arange(12), atol=1e-6)
        np.testing.assert_allclose(episode.gripper, np.arange(12) % 2, atol=1e-6)
        assert episode.instruction == "wave" and episode.success is None
        for t in range(12):
            colour = episode.image("front", t).mean((0, 1))
            np.testing.assert_allclose(colour, (15 * t, 80 + 60 * number, 200), atol=6)
