"""Tests of faulty and hostile datasets: the description is compared with the data, and nothing is guessed."""

from __future__ import annotations

import copy
import json
import resource
import struct
import time
from collections.abc import Callable, Iterator, Mapping
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
from mutation import mutated_bytes, mutated_data, require_clean

from genima.cameras.calibration_file import load_cameras
from genima.data.episodes import Episode, find_episodes
from genima.data.episodes.bag import BagReader, calibration_topic, camera_info_topic
from genima.data.episodes.cameras import EpisodeCameras
from genima.data.episodes.robot import load_episode_robot
from genima.data.lerobot import DatasetReader
from genima.errors import GenimaError
from genima.inspection.datasets import inspect_lerobot
from genima.io.images import decode_colour, image_size
from genima.io.tables import read_columns, stream_column, texts
from genima.robot.model import RobotModel
from genima_cli.__main__ import main

FRAMES, FPS, SIZE = 4, 20, (32, 24)  # width and height in px
IMAGES = "observation.images.front"
ROBOT = RobotModel.load("panda")
JOINTS = [*ROBOT.joint_names, "gripper_open_fraction"]


def png(number: int, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    picture = np.full((size[1], size[0], 3), 40 + 10 * number, np.uint8)
    return {"bytes": cv2.imencode(".png", picture)[1].tobytes(), "path": None}


def write_video(path: Path, count: int, size: tuple[int, int] = SIZE, fps: int = FPS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(count):
            picture = np.full((size[1], size[0], 3), 40 + 10 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def description(kind: str = "image") -> dict[str, Any]:
    vector = {"dtype": "float32", "shape": [8], "names": JOINTS}
    return {
        "codebase_version": "v3.0",
        "robot_type": "panda",
        "total_episodes": 2,
        "total_frames": 2 * FRAMES,
        "total_tasks": 1,
        "fps": FPS,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {
            "observation.state": vector,
            "action": copy.deepcopy(vector),
            IMAGES: {"dtype": kind, "shape": [SIZE[1], SIZE[0], 3], "names": ["height", "width", "channels"]},
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        },
    }


def frames(kind: str = "image") -> dict[str, Any]:
    """Two episodes of a few frames."""
    count = 2 * FRAMES
    joints = np.tile(np.append(ROBOT.home, 0.5), (count, 1)).astype(np.float32)
    columns: dict[str, Any] = {
        "observation.state": joints.tolist(),
        "action": joints.tolist(),
        "timestamp": np.tile(np.arange(FRAMES) / FPS, 2).astype(np.float32),
        "frame_index": np.tile(np.arange(FRAMES), 2),
        "episode_index": np.repeat([0, 1], FRAMES),
        "index": np.arange(count),
        "task_index": np.zeros(count, int),
    }
    return columns | ({IMAGES: [png(i) for i in range(count)]} if kind == "image" else {})


def episodes(kind: str = "image") -> dict[str, Any]:
    rows = {
        "episode_index": [0, 1],
        "tasks": [["wave"], ["wave"]],
        "length": [FRAMES, FRAMES],
        "data/chunk_index": [0, 0],
        "data/file_index": [0, 0],
    }
    if kind == "video":
        times = {"from_timestamp": [0.0, FRAMES / FPS], "to_timestamp": [FRAMES / FPS, 2 * FRAMES / FPS]}
        rows |= {f"videos/{IMAGES}/{part}": [0, 0] for part in ("chunk_index", "file_index")}  # type: ignore[misc]
        rows |= {f"videos/{IMAGES}/{part}": value for part, value in times.items()}  # type: ignore[misc]
    return rows


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path)


def write_dataset(
    folder: Path, info: Any = None, data: Mapping[str, Any] | None = None, rows: Mapping[str, Any] | None = None,
    kind: str = "image",
) -> Path:  # fmt: skip
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    (folder / "meta/info.json").write_text(json.dumps(description(kind) if info is None else info))
    write_table(folder / "data/chunk-000/file-000.parquet", frames(kind) if data is None else data)
    write_table(folder / "meta/episodes/chunk-000/file-000.parquet", episodes(kind) if rows is None else rows)
    pd.DataFrame({"task_index": [0]}, index=pd.Index(["wave"], name="task")).to_parquet(folder / "meta/tasks.parquet")
    if kind == "video":
        write_video(folder / f"videos/{IMAGES}/chunk-000/file-000.mp4", 2 * FRAMES)
    return folder


def read_all(folder: Path, **options: Any) -> None:
    """Read a whole dataset without writing a demo."""
    reader = DatasetReader(folder, ROBOT, **options)
    for entry in reader._episodes:
        table = reader._read_frames(entry)
        stamps = np.array(table["timestamp"].to_pylist(), float)
        reader._check_stamps(stamps)
        reader._order_dimensions("observation.state", table)
        reader._instruction(table)
        for key in reader._views:
            for _ in reader._images(key, entry, stamps):
                pass


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Limit time and memory of every test in this file."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 1500, f"took {grown:.0f} MB"
    assert time.process_time() - start < 60


def test_demo_of_other_dataset_is_not_reused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    monday = write_dataset(tmp_path / "monday" / "set")
    assert run_episodes("import", monday, "--out", out) == 0
    assert run_episodes("import", monday, "--out", out) == 0
    assert "0 of them new" in capsys.readouterr().out
    before = {path: path.read_bytes() for path in out.rglob("*.mcap")}
    tuesday = write_dataset(tmp_path / "tuesday" / "set")
    pd.DataFrame({"task_index": [0]}, index=pd.Index(["nod"], name="task")).to_parquet(tuesday / "meta/tasks.parquet")
    assert "name another --out" in error_line(capsys, "import", tuesday, "--out", out)
    moved = {**frames(), "observation.state": [[each + 0.01 for each in row] for row in frames()["observation.state"]]}
    write_dataset(tuesday, data=moved)
    assert "name another --out" in error_line(capsys, "import", tuesday, "--out", out)
    assert {path: path.read_bytes() for path in out.rglob("*.mcap")} == before


def test_demos_are_not_written_into_dataset_nor_to_empty_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_dataset(tmp_path / "set")
    (tmp_path / "link").symlink_to(dataset)
    before = sorted(tmp_path.rglob("*"))
    for out in (dataset, dataset / "demos", tmp_path / "link", tmp_path / "link" / "demos"):
        assert "choose a folder outside" in error_line(capsys, "import", dataset, "--out", out)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run_episodes("import", dataset, "--out", "")
    assert "an empty path" in capsys.readouterr().err and sorted(tmp_path.rglob("*")) == before


# ---------------------------------------------------------------------------------------- unknown stays unknown


@pytest.mark.parametrize("kind", ["image", "video"])
def test_images_without_calibration_stay_uncalibrated(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, out = write_dataset(tmp_path / "theirs", kind=kind), tmp_path / "demos"
    assert run_episodes("import", dataset, "--out", out) == 0
    assert "calibration: unknown; give --cameras FOLDER" in capsys.readouterr().out
    demo = find_episodes(out)[0]
    with BagReader(demo) as bag:
        assert not {calibration_topic("front"), camera_info_topic("front")} & set(bag.types)
    assert EpisodeCameras.of(demo).calibrated == {} == EpisodeCameras.of(demo).lenses
    assert run_episodes("list", out) == 0
    assert "2 hold no calibration of their cameras (unknown)" in capsys.readouterr().out
    assert main(["inspect", str(out)]) == 0
    assert "calibration" in (output := capsys.readouterr().out) and "unknown (--cameras FOLDER" in output
    assert main(["render", "--demos", str(out), "--out", str(tmp_path / "targets")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "no camera calibration of view wrist, front" in line and "the demos hold none; give --cameras FOLDER" in line
    assert not (tmp_path / "targets").exists()
    assert run_episodes("show", demo, "--picture", tmp_path / "demo.png") == 0
    assert "unknown of front" in capsys.readouterr().out


def test_given_calibration_requires_equal_aspect_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = write_dataset(tmp_path / "theirs")
    line = error_line(capsys, "import", dataset, "--out", tmp_path / "demos", "--cameras", "sim")
    assert "camera front: images do not fit its calibration (32x24, 256x256)" in line, "never stretched"
    camera = load_cameras("sim")["front"].scale(64, 48)
    cameras = {"front": camera}
    DatasetReader(dataset, ROBOT, cameras).write_episode(0, tmp_path / "demo")
    (written,) = EpisodeCameras.of(tmp_path / "demo").calibrated.values()
    assert written.is_close(camera.scale(32, 24))


def test_unknown_gripper_range_must_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = description()
    for name in ("observation.state", "action"):
        info["features"][name]["names"] = [*ROBOT.joint_names, "gripper"]
    dataset, out = write_dataset(tmp_path / "theirs", info), tmp_path / "demos"
    stats = {name: {"min": [0.0] * 8, "max": [1.0] * 7 + [0.08]} for name in ("observation.state", "action")}
    (dataset / "meta/stats.json").write_text(json.dumps(stats))
    command = ("import", dataset, "--out", out, "--joints", "gripper=gripper_open_fraction")
    line = error_line(capsys, *command)
    assert "gripper (0 to 0.08 in its statistics)" in line and "--gripper-range CLOSED OPEN" in line
    for bad in (("nan", "1"), ("0", "inf"), ("1", "1")):
        assert "--gripper-range" in error_line(capsys, *command, "--gripper-range", *bad)
    assert run_episodes(*command, "--gripper-range", "0", "1") == 0


def test_robot_is_from_dataset_or_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = write_dataset(tmp_path / "hand", description() | {"robot_type": "panda_franka_hand"})
    command = ("import", dataset, "--out", tmp_path / "demos")
    assert "give --robot panda_franka_hand" in error_line(capsys, *command, "--robot", "panda")
    assert run_episodes(*command) == 0
    assert load_episode_robot(find_episodes(tmp_path / "demos")[0]).name == "panda_franka_hand"
    capsys.readouterr()
    dataset = write_dataset(tmp_path / "other", description() | {"robot_type": "so\x1b[31m100"})
    command = ("import", dataset, "--out", tmp_path / "others")
    assert "robot so\\x1b[31m100 is none of fr3," in error_line(capsys, *command)
    assert run_episodes(*command, "--robot", "panda") == 0
    assert "of robot so\\x1b[31m100; its joints are taken for those of panda" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ tasks, joints, images


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"task_index": [0]}, index=pd.Index(["wave"], name="task")),
        pd.DataFrame({"task_index": [0]}, index=["wave"]),
        pd.DataFrame({"task": ["wave"], "task_index": [0]}),
        pd.DataFrame({"task_index": [0], "task": ["wave"], "note": ["old"]}),
    ],
    ids=["index", "index without a name", "column", "column among others"],
)
def test_tasks_are_read_from_all_format_versions(tmp_path: Path, table: pd.DataFrame) -> None:
    dataset = write_dataset(tmp_path / "theirs")
    table.to_parquet(dataset / "meta/tasks.parquet")
    DatasetReader(dataset, ROBOT).write_episode(0, tmp_path / "demo")
    assert Episode.load(tmp_path / "demo", ROBOT).instruction == "wave"


@pytest.mark.parametrize(
    "table",
    [
        {"task_index": [0]},
        {"task_index": [0], "task": [7]},
        {"task_index": [0], "a": ["x"], "b": ["y"]},
        {"task_index": [0, 0], "task": ["x", "y"]},
        {"task_index": ["0"], "task": ["x"]},
        {"task_index": [0], "task": [None]},
        {"task_index": [0], "task": ["x" * 20_000]},
        {"task": ["x"]},
    ],
)
def test_invalid_task_tables_are_rejected(tmp_path: Path, table: dict[str, Any]) -> None:
    dataset = write_dataset(tmp_path / "theirs")
    write_table(dataset / "meta/tasks.parquet", table)
    with pytest.raises(GenimaError, match="tasks"):
        DatasetReader(dataset, ROBOT)


def test_remedy_for_duplicate_dimension_names_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info, data = description(), frames()
    for name in ("observation.state", "action"):
        info["features"][name] |= {"shape": [9], "names": [*ROBOT.joint_names, "gripper", "gripper"]}
        data[name] = [[*row, 0.25] for row in data[name]]
    command = ("import", write_dataset(tmp_path / "theirs", info, data), "--out", tmp_path / "demos")
    command += ("--gripper-range", "0", "1")
    line = error_line(capsys, *command)
    assert "does not have gripper_open_fraction" in line and "8: gripper" in line and "numbers" in line
    line = error_line(capsys, *command, "--joints", "gripper=gripper_open_fraction")
    assert "2 times, as numbers 7, 8" in line
    advised = line.partition("as --joints ")[2].split()
    assert advised == ["8=gripper_open_fraction"]
    assert run_episodes(*command, "--joints", *advised) == 0
    np.testing.assert_allclose(Episode.load(find_episodes(tmp_path / "demos")[0], ROBOT).gripper, 0.25)
    for bad, expected in (
        ("9=gripper_open_fraction", "no dimension '9'"),
        ("gripper=panda_joint9", "the robot has no panda_joint9"),
        ("0=gripper_open_fraction", "a dimension of observation.state to two joints"),
    ):
        assert expected in error_line(capsys, *command, "--joints", bad)


def test_remedy_for_invalid_view_name_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info, data = description(), frames()
    info["features"]["observation.images.cam-high"] = info["features"].pop(IMAGES)
    data["observation.images.cam-high"] = data.pop(IMAGES)
    command = ("import", write_dataset(tmp_path / "theirs", info, data), "--out", tmp_path / "demos")
    line = error_line(capsys, *command)
    assert "(cam-high)" in line and "--views THEIRS=OURS" in line and "for example cam_high" in line
    assert run_episodes(*command, "--views", "observation.images.cam-high=cam_high") == 0
    assert Episode.load(find_episodes(tmp_path / "demos")[0], ROBOT).views == ("cam_high",)


def change(name: str, value: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def act(columns: dict[str, Any]) -> None:
        columns[name] = value(columns[name])

    return act


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (change("observation.state", lambda rows: [row[:7] for row in rows]), "observation.state has 7 values"),
        (change("action", lambda rows: [row[: 8 - (i == 2)] for i, row in enumerate(rows)]), "action has 7 values"),
        (change("action", lambda rows: [None if i == 2 else row for i, row in enumerate(rows)]), "a missing value"),
        (change("action", lambda rows: [row[:7] + [None] for row in rows]), "action has missing values"),
        (change("action", lambda rows: [0.0] * len(rows)), "holds double, not lists of 8 numbers"),
        (change("action", lambda rows: [["x"] * 8] * len(rows)), "holds string, not numbers"),
        (change("action", lambda rows: [[[1.0]] * 8] * len(rows)), "not numbers"),
        (change("action", lambda rows: [[float("nan")] * 8] * len(rows)), "action is not finite"),
        (change("observation.state", lambda rows: np.degrees(rows).tolist()), "radians are needed"),
        (change("timestamp", lambda times: times * 2), "its timestamps are of 10 Hz, meta/info.json has 20 fps"),
        (change("timestamp", lambda times: times[::-1].copy()), "its timestamps do not increase"),
        (change("timestamp", lambda times: times * np.nan), "its timestamps do not increase"),
        (change("timestamp", lambda times: [[0.0]] * len(times)), "holds lists, not numbers"),
        (change("frame_index", lambda each: each[::-1].copy()), "out of order, or some are missing"),
        (change("frame_index", lambda each: each * 2), "out of order, or some are missing"),
        (change("task_index", lambda each: each + 5), "has no task 5"),
        (change("episode_index", lambda each: each + 7), "0 frames of 4 are there"),
        (change("episode_index", lambda each: [str(i) for i in each]), "not integers"),
        (change(IMAGES, lambda rows: [png(i, (48, 24)) for i in range(len(rows))]), "48x24 px, 32x24 are expected"),
        (change(IMAGES, lambda rows: [{"bytes": None, "path": "/etc/passwd"}] * len(rows)), "not in the table"),
        (change(IMAGES, lambda rows: ["x"] * len(rows)), "not in the table"),
        (change(IMAGES, lambda rows: [{"bytes": b"GIF89a", "path": None}] * len(rows)), "neither a PNG nor a JPEG"),
        (lambda columns: columns.pop(IMAGES), f"no column {IMAGES}"),
        (lambda columns: columns.pop("action"), "no column action"),
    ],
)  # fmt: skip
def test_data_that_differ_from_description_are_reported_in_one_line(
    tmp_path: Path, act: Callable[[dict[str, Any]], None], expected: str
) -> None:
    data = frames()
    act(data)
    reader = DatasetReader(write_dataset(tmp_path / "theirs", data=data), ROBOT)
    with pytest.raises(GenimaError, match="^dataset .*, episode 0: ") as error:
        reader.write_episode(0, tmp_path / "demo")
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "demo").exists()


def test_episodes_may_have_gaps_between_their_numbers(tmp_path: Path) -> None:
    data, rows = frames(), episodes()
    data["episode_index"] = np.repeat([3, 7], FRAMES)
    rows["episode_index"] = [3, 7]
    reader = DatasetReader(write_dataset(tmp_path / "theirs", None, data, rows), ROBOT)
    assert [reader.name(i) for i in range(2)] == ["theirs-000003", "theirs-000007"]
    reader.write_episode(1, tmp_path / "demo")
    assert len(Episode.load(tmp_path / "demo", ROBOT)) == FRAMES


def test_depth_images_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info, data = description(), frames()
    depth = cv2.imencode(".png", np.full((24, 32), 900, np.uint16))[1].tobytes()
    data["observation.images.depth"] = [{"bytes": depth, "path": None}] * (2 * FRAMES)
    info["features"]["observation.images.depth"] = {"dtype": "image", "shape": [24, 32, 1], "names": None}
    command = ("import", write_dataset(tmp_path / "theirs", info, data), "--out", tmp_path / "demos")
    assert run_episodes(*command) == 0
    assert "not in colour, left out: observation.images.depth" in capsys.readouterr().out
    assert Episode.load(find_episodes(tmp_path / "demos")[0], ROBOT).views == ("front",)
    line = error_line(capsys, *command, "--views", "observation.images.depth=depth")
    assert "is no colour image" in line
    info["features"]["observation.images.depth"]["shape"] = [24, 32, 3]  # a description that lies
    reader = DatasetReader(write_dataset(tmp_path / "lies", info, data), ROBOT)
    with pytest.raises(GenimaError, match="an image of type I;16"):
        reader.write_episode(0, tmp_path / "demo")


# ------------------------------------------------------------------------------------------------------- videos


def test_videos_that_differ_from_description_are_reported_in_one_line(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "theirs", kind="video")
    video = dataset / f"videos/{IMAGES}/chunk-000/file-000.mp4"
    reader = DatasetReader(dataset, ROBOT)

    def error_message(index: int = 1) -> str:
        with pytest.raises(GenimaError) as error:
            reader.write_episode(index, tmp_path / "demo")
        assert not (tmp_path / "demo").exists()
        return str(error.value)

    write_video(video, 2 * FRAMES - 2)
    assert "shows no frame at" in error_message()
    write_video(video, 2 * FRAMES, fps=10)
    assert "shows no frame at" in error_message(0)
    write_video(video, 2 * FRAMES, (64, 48))
    assert "is of 64x48 px, its description has 32x24" in error_message()
    video.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
    assert "cannot be read" in error_message(), "no playlist is followed"
    video.write_text("ffconcat version 1.0\nfile '/etc/passwd'\n")
    assert "cannot be read" in error_message()
    video.unlink()
    video.mkdir()
    assert "is missing" in error_message()


def test_huge_video_header_allocates_no_memory(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "theirs", kind="video")
    video = dataset / f"videos/{IMAGES}/chunk-000/file-000.mp4"
    whole = video.read_bytes()
    small, huge = struct.pack(">HH", *SIZE), struct.pack(">HH", 65535, 65535)
    assert small in whole
    video.write_bytes(whole.replace(small, huge))
    require_clean(lambda: read_all(dataset), "a huge container around small frames")
    write_video(video, FRAMES, (1024, 576))
    lying = video.read_bytes().replace(struct.pack(">HH", 1024, 576), small)
    video.write_bytes(lying)  # small according to the container, but with large frames
    with pytest.raises(GenimaError, match="video .* (px|cannot be read)"):
        DatasetReader(dataset, ROBOT).write_episode(0, tmp_path / "demo")


# ------------------------------------------------------------------------------------------------------ hostile


@pytest.mark.parametrize(
    "path",
    [
        5, "{", "}", "{}", "{0}", "", "/etc/passwd", "../{chunk_index}.parquet", "data/../../x", "a\x00b",
        "{chunk_index.real}", "{chunk_index!r}", "{chunk_index:999999999d}", "{chunk_index:{file_index}}",
        "{video_key}", "{episode_index}", "{chunk_index.__class__.__mro__}", "/", ".", "..",
    ],
)  # fmt: skip
def test_paths_stay_in_dataset(tmp_path: Path, path: Any) -> None:
    for key in ("data_path", "video_path"):
        dataset = write_dataset(tmp_path / key, description("video") | {key: path}, kind="video")
        try:
            read_all(dataset)
        except GenimaError as error:
            assert "\n" not in str(error)
        else:
            assert (key, path) == ("video_path", "{video_key}")


def test_feature_name_cannot_leave_dataset_folder(tmp_path: Path) -> None:
    info, rows = description("video"), episodes("video")
    key = "observation.images../../../../secret/x"
    info["features"][key] = info["features"].pop(IMAGES)
    rows = {name.replace(IMAGES, key): value for name, value in rows.items()}
    dataset = write_dataset(tmp_path / "theirs", info, rows=rows, kind="video")
    write_video(tmp_path / "secret/x/chunk-000/file-000.mp4", 2 * FRAMES)
    with pytest.raises(GenimaError, match="leaves the dataset"):
        DatasetReader(dataset, ROBOT, views={key: "front"})


def test_mutated_descriptions_are_read_or_rejected_in_one_line(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "theirs")
    accepted = []
    for info in mutated_data(description(), 900):
        (folder / "meta/info.json").write_text(json.dumps(info))
        accepted.append(require_clean(lambda: read_all(folder), info))
    assert 1 / 45 < sum(accepted) / len(accepted) < 0.975
    write_dataset(folder)
    for info in mutated_data(description(), 60, seed=1):
        (folder / "meta/info.json").write_text(json.dumps(info))
        require_clean(lambda: inspect_lerobot(folder), info)


def test_mutated_tables_are_read_or_rejected_in_one_line(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "theirs", kind="video")
    places = {
        folder / "meta/episodes/chunk-000/file-000.parquet": episodes("video"),
        folder / "meta/tasks.parquet": {"task": ["wave"], "task_index": [0]},
        folder / "data/chunk-000/file-000.parquet": {
            name: column if isinstance(column, list) else column.tolist() for name, column in frames("video").items()
        },
    }
    for seed, (path, valid) in enumerate(places.items()):
        whole = path.read_bytes()
        tried = []
        for columns in mutated_data(valid, 700, seed):
            tried.append(False)
            try:
                pq.write_table(pa.table(columns), path)
            except (pa.ArrowException, TypeError, ValueError, OverflowError):  # no such table can be written
                continue
            tried[-1] = True
            require_clean(lambda: read_all(folder), columns)
        path.write_bytes(whole)
        assert sum(tried) > 80 / 700 * len(tried)


def test_corrupt_files_are_read_or_rejected_in_one_line(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "theirs", kind="video")
    for seed, name in enumerate(
        ("meta/tasks.parquet", "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet",
         f"videos/{IMAGES}/chunk-000/file-000.mp4", "meta/info.json")
    ):  # fmt: skip
        whole = (folder / name).read_bytes()
        for data in mutated_bytes(whole, 100, seed):
            (folder / name).write_bytes(data)
            require_clean(lambda: read_all(folder), name)
        (folder / name).write_bytes(whole)


def test_large_tables_are_rejected_or_read_in_chunks(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    with pq.ParquetWriter(path, pa.schema([("x", pa.list_(pa.float64()))]), compression="zstd") as writer:
        for _ in range(4):
            writer.write_table(pa.table({"x": [np.zeros(10_000_000)]}, schema=writer.schema))
    assert path.stat().st_size < 5e6
    with pytest.raises(GenimaError, match="too large to read at once"):
        read_columns(path, ["x"], "table")
    with pq.ParquetWriter(path, pa.schema([("x", pa.string())]), store_schema=False) as writer:
        for _ in range(5):
            writer.write_table(pa.table({"x": ["a" * 1_000_000] * 300}))
    with pytest.raises(GenimaError, match="a text of 1000000 bytes"):
        texts(read_columns(path, None, "table"), "x", "table")
    rows = {"x": [{"bytes": b"x" * 20_000_000, "path": None}] * 15, "episode_index": [0] * 15}
    write_table(path, rows)
    assert path.stat().st_size < 3e6
    assert sum(1 for _ in stream_column(path, "x", "table", ("episode_index", 0))) == 15
    nested: Any = [1.0]
    for _ in range(200):
        nested = [nested]
    write_table(path, {"x": [nested]})
    with pytest.raises(GenimaError):
        read_columns(path, ["y"], "table")


def test_huge_images_are_rejected_by_header() -> None:
    small = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    for width, height in ((100_000, 100_000), (2**31 - 1, 2**31 - 1), (32_000, 32_000), (0, 0)):
        header = bytearray(small)
        header[16:24] = struct.pack(">II", width, height)
        with pytest.raises(GenimaError, match="^x: "):
            decode_colour(bytes(header), "x")
    assert image_size(small, "x") == (8, 8)
    for data in mutated_bytes(small, 200):
        require_clean(lambda: decode_colour(data, "x"), data)  # noqa: B023
