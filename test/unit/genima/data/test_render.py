"""Tests of rendering demos to a target dataset, also with interruptions and faults."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets.distributed import split_dataset_by_node
from mutation import mutated_bytes, mutated_data, require_clean
from one_thread import render_in_a_thread

from genima.cameras.camera import VIRTUAL, Camera
from genima.cameras.tiling import crop_square, untile
from genima.data.datasets.diffusion_samples import DiffusionDataset, collate
from genima.data.datasets.render import MANIFEST, RenderPlan, render, sha256
from genima.data.datasets.sample_index import SampleIndex
from genima.data.datasets.target_dataset import TargetDataset, _read_samples, read_manifest, split
from genima.data.episodes import Episode, EpisodeWriter, find_episodes
from genima.errors import GenimaError
from genima.io.outputs import output_lock
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.targets import Appearance, draw_targets
from genima.targets.appearance import DEFAULT
from genima.types import Command, Joints
from genima_cli.render import Render, make_plan
from genima_cli.render import main as render_command
from genima_sim.tasks import BUNDLED_TASKS, TASKS

K, SIZE, MOMENTS = 20, 32, 6


def write_demo(
    folder: Path,
    robot: RobotModel,
    cameras: Mapping[str, Camera],
    success: bool | None = True,
    without: str = "",
    start: float = 10.0,
) -> None:
    """A few moments of random images and a moving arm, at 20 Hz."""
    rng = np.random.default_rng(int(folder.name.split("-")[1]))
    with EpisodeWriter(folder, robot, cameras, f"do {folder.name}") as episode:
        for t in range(MOMENTS):
            stamp, joints = start + 0.05 * t, robot.home + 0.02 * t
            images = {
                v: crop_square(rng.integers(0, 256, (4, 4, 3), np.uint8), 48) for v in PolicySpec.views if v != without
            }
            episode.observe(stamp, images, Joints(stamp, joints, 1.0))
            episode.command(Command(stamp, joints + 0.02, gripper=1.0 if t < 4 else 0.0))
        if success is not None:
            episode.judge(stamp, success)


@pytest.fixture(scope="module", autouse=True)
def rendering_in_a_thread() -> Iterator[None]:
    """Render in this process, as a new one takes seconds to start; the test of a killed run starts its own."""
    with pytest.MonkeyPatch.context() as patch:
        render_in_a_thread(patch)
        yield


@pytest.fixture(scope="module")
def short_demos(robot: RobotModel, cameras: Mapping[str, Camera], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("short")
    for i in range(5):
        write_demo(folder / f"demo-{i}", robot, cameras, success=i != 3)
    return folder


def plan_for(demos: Path, **changes: object) -> RenderPlan:
    options = replace(Render(view_size=SIZE, episodes_per_shard=2), **changes)  # type: ignore[arg-type]
    return make_plan(options, find_episodes(demos))


@pytest.fixture(scope="module")
def short_targets(short_demos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("targets") / "short"
    summary = render(plan_for(short_demos, virtual=True), out, processes=1)
    assert (summary.episodes, summary.moments, summary.missing) == (4, 4 * MOMENTS, 0)
    assert dict(summary.skipped) == {"demo-3": "not successful"}
    assert "skipped 1 unsuccessful, 0 unjudged and 0 faulty" in str(summary)
    return out


def shards(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in folder.glob("*.parquet")}


# What is in it


def test_samples_equal_demos(targets: TargetDataset, demos_folder: Path, robot: RobotModel) -> None:
    moments = targets.moments
    assert moments.instructions == sorted(TASKS[name].instruction for name in BUNDLED_TASKS)
    for name in ("push_button-1", "take_lid_off_saucepan-1"):
        episode = Episode.load(demos_folder / name, robot)
        mine = moments[moments.episode == name]
        last = len(episode) - 1
        assert len(mine) == len(episode)
        np.testing.assert_array_equal(mine.positions, episode.positions)
        np.testing.assert_array_equal(mine.gripper, episode.gripper)
        for t in (0, 5, last - K - 1, last - K, last - K + 1, last - 1, last):
            ahead = min(t + K, last)
            np.testing.assert_array_equal(mine.target[t], episode.positions[ahead])
            assert mine.target_open[t] == (mine.action_gripper[t, -1] > 0.5)  # as in the last action
            real = min(K, last + 1 - t)
            np.testing.assert_array_equal(mine.actions[t, :real], episode.command_positions[t : t + real])
            np.testing.assert_array_equal(mine.action_gripper[t, :real], episode.command_gripper[t : t + real])
            assert not mine.padding[t, :real].any() and mine.padding[t, real:].all()
    grips = moments.target_open[moments.episode == "take_lid_off_saucepan-1"].tolist()
    assert grips == sorted(grips, reverse=True) and True in grips and False in grips  # the lid's knob is grasped once


def test_observation_and_drawn_target_differ_only_in_spheres(
    targets: TargetDataset, demos_folder: Path, robot: RobotModel
) -> None:
    spec, moments = targets.spec, targets.moments
    cameras = {view: targets.cameras[view].crop_square(spec.view_size) for view in spec.views}
    episode = Episode.load(demos_folder / "take_lid_off_saucepan-1", robot)
    first = int((moments.episode == "push_button-1").sum())
    for t in (0, 30, len(episode) - 1):  # even at the end: there the arm is to stay
        observation, drawn = targets.images(first + t)
        for view, image in untile(observation, spec.views).items():
            recorded = crop_square(episode.image(view, t), spec.view_size)
            assert np.abs(image.astype(int) - recorded).mean() < 2.5  # JPEG
            expected = draw_targets(
                np.ascontiguousarray(image), cameras[view], robot, spec.appearance, moments.target[first + t],
                bool(moments.target_open[first + t]), moments.positions[first + t],
            )  # fmt: skip
            np.testing.assert_array_equal(untile(drawn, spec.views)[view], expected)
        assert 100 < (observation != drawn).any(-1).sum() < 0.5 * observation[..., 0].size


def test_tile_has_requested_views_in_order(short_targets: Path) -> None:
    whole = TargetDataset.load(short_targets)
    assert list(whole.cameras) == [*PolicySpec.views, VIRTUAL]
    order = ("front", VIRTUAL, "wrist", "left_shoulder")
    other = TargetDataset.load(short_targets, order)
    assert other.spec.views == order
    for layer in (False, True):
        a, b = (d.spheres(3) if layer else d.observation(3) for d in (whole, other))
        theirs, mine = untile(a, whole.spec.views), untile(b, order)
        for view in ("front", "wrist", "left_shoulder"):
            np.testing.assert_array_equal(theirs[view], mine[view])
    robot_alone = untile(other.observation(3), order)[VIRTUAL]
    corners = robot_alone[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int)
    assert np.abs(corners - 127).max() < 8 and np.abs(robot_alone.astype(int) - 127).max() > 60
    with pytest.raises(GenimaError, match="1 to 6 different views"):
        TargetDataset.load(short_targets, ("front", "front", "wrist", VIRTUAL))
    assert TargetDataset.load(short_targets, ("front", "wrist")).observation(0).shape[:2] == (SIZE, 2 * SIZE)
    with pytest.raises(GenimaError, match="no view ceiling; rendered are wrist"):
        TargetDataset.load(short_targets, ("ceiling", *PolicySpec.views[1:]))


def test_cameras_are_cropped_as_their_images() -> None:
    """A point projects to its pixel in the cropped and resized image."""
    camera = Camera("front", "base", np.eye(4), 640, 480, 600.0, 610.0, 330.0, 250.0)
    point = np.array([0.1, -0.05, 1.2])
    u, v = (camera.K @ point)[:2] / point[2]
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[int(v) - 2 : int(v) + 3, int(u) - 2 : int(u) + 3] = 255
    rows, columns = np.nonzero(crop_square(picture, 240)[..., 0] > 127)
    fitted = camera.crop_square(240)
    expected = (fitted.K @ point)[:2] / point[2]
    assert np.abs(np.array([columns.mean(), rows.mean()]) + 0.5 - expected).max() < 0.6
    assert (fitted.width, fitted.height) == (240, 240)


def test_diffusion_samples_are_image_pairs_with_instruction(targets: TargetDataset) -> None:
    training, validation = split(targets.moments)
    dataset = DiffusionDataset(targets, validation)
    batch = collate([dataset[SampleIndex(k, 99)] for k in (0, 7)])
    i = int(validation[7])
    np.testing.assert_array_equal(batch.condition[1].numpy(), targets.observation(i))
    np.testing.assert_array_equal(batch.target[1].numpy(), targets.images(i)[1])
    assert batch.instruction[1] == targets.moments.instruction[i]
    assert not set(targets.moments.episode[training]) & set(targets.moments.episode[validation])
    assert len(training) + len(validation) == len(targets)


def test_too_few_demos_for_validation_are_rejected(targets: TargetDataset) -> None:
    with pytest.raises(GenimaError, match="at least two demos, there are 1"):
        split(targets.moments[targets.moments.episode == "push_button-1"])


# Interruptions and several machines


def test_interrupted_rendering_resumes(
    short_demos: Path,
    short_targets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "genima_cli", "render", "--demos", str(short_demos), "--out", str(out)]
    command += ["--view-size", str(SIZE), "--episodes-per-shard", "2", "--virtual", "--processes", "1"]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(out.glob("*.parquet")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    made = shards(out)
    assert made and made.items() <= shards(short_targets).items()  # whole, every one of them
    (out / "shard-00002-of-00003.parquet.part").write_bytes(b"half")
    before = {name: (out / name).stat().st_mtime_ns for name in made}
    render_in_a_thread(monkeypatch)
    assert render_command(command[4:]) == 0
    assert "24 moments of 4 demos; skipped 1 unsuccessful, 0 unjudged and 0 faulty" in capsys.readouterr().out
    assert shards(out) == shards(short_targets)
    assert {name: (out / name).stat().st_mtime_ns for name in made} == before
    assert len(TargetDataset.load(out, verify=True)) == 24


def test_rendering_on_several_machines_is_identical(short_demos: Path, short_targets: Path, tmp_path: Path) -> None:
    plan = plan_for(short_demos, virtual=True)
    first = render(plan, tmp_path, 1, rank=0, machines=2)
    assert first.missing == 1 and not (tmp_path / MANIFEST).exists()
    with pytest.raises(GenimaError, match="no finished dataset"):
        TargetDataset.load(tmp_path)
    second = render(plan, tmp_path, 1, rank=1, machines=2)
    assert not second.missing and second.moments == 24
    assert shards(tmp_path) == shards(short_targets)


def test_shards_stream_and_split_over_nodes_with_dataset_library(short_targets: Path) -> None:
    files = sorted(map(str, short_targets.glob("*.parquet")))
    stream = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    rows = list(stream)
    assert len(rows) == 24 and rows[0]["observation.front"].size == (SIZE, SIZE)
    assert rows[0]["spheres.front"].mode == "RGBA"
    parts = [[(r["episode"], r["moment"]) for r in split_dataset_by_node(stream, rank, 3)] for rank in range(3)]
    assert sorted(sum(parts, [])) == sorted((r["episode"], r["moment"]) for r in rows)
    assert all(parts)


def test_damaged_dataset_is_reported(short_targets: Path, tmp_path: Path) -> None:
    def broken(name: str, data: bytes) -> Path:
        folder = tmp_path / f"{name}-{len(data)}"
        folder.mkdir()
        for path in filter(Path.is_file, short_targets.iterdir()):
            (folder / path.name).write_bytes(data if path.name == name else path.read_bytes())
        return folder

    shard = "shard-00001-of-00003.parquet"
    flipped = bytearray((short_targets / shard).read_bytes())
    flipped[len(flipped) // 3] ^= 255
    with pytest.raises(GenimaError, match=f"{shard} is missing or damaged"):
        TargetDataset.load(broken(shard, bytes(flipped)), verify=True)
    gone = broken(shard, b"")
    (gone / shard).unlink()
    with pytest.raises(GenimaError, match=f"{shard} is missing or damaged"):
        TargetDataset.load(gone)
    manifest = json.loads((short_targets / MANIFEST).read_text())
    for change in (b"", b"{", json.dumps({**manifest, "spec": {}}).encode(), json.dumps({"schema": 99}).encode()):
        with pytest.raises(GenimaError, match=MANIFEST) as caught:
            TargetDataset.load(broken(MANIFEST, change))
        assert "\n" not in str(caught.value)


def test_mutated_manifests_are_rejected_or_valid(short_targets: Path, tmp_path: Path) -> None:
    valid = json.loads((short_targets / MANIFEST).read_text(encoding="utf-8"))
    file, read = tmp_path / MANIFEST, 0

    def check() -> None:
        manifest = read_manifest(tmp_path)
        for shard in manifest["shards"]:
            assert (tmp_path / shard["file"]).parent == tmp_path  # nothing outside of the folder is ever opened
        assert 0 < PolicySpec.from_dict(manifest["spec"]).horizon <= 1000

    for data in mutated_data(valid, 400):
        file.write_text(json.dumps(data), encoding="utf-8")
        read += require_clean(check, data)
    for data in mutated_bytes(json.dumps(valid).encode(), 200):
        file.write_bytes(data)
        read += require_clean(check, data)
    assert 2 < read < 400


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"moments": 25}, "its shards hold 24 moments, not 25"),
        ({"fingerprint": 3}, "fingerprint: .* valid string"),
        ({"shards": []}, "shards: .* at least 1 item"),
        ({"shards.0.file": "../short/shard-00000-of-00003.parquet"}, "shards.0.file: .* pattern"),
        ({"shards.0.file": "/etc/passwd"}, "shards.0.file: .* pattern"),
        ({"shards.0.file": "shard-00001-of-00003.parquet"}, "a shard is named twice"),
        ({"shards.0.moments": 10**20}, "shards.0.moments: "),
        ({"spec.horizon": 100000}, "horizon"),
        ({"spec.action_rate": 1e300}, "action_rate"),
        ({"spec.robot": "../../../etc/passwd"}, "passwd"),
        ({"spec.view_size": -32}, "view_size"),
        ({"spec.appearance.dark": 2}, "dark: .* less than or equal to 1"),
        ({"cameras.front.width": 0}, "cameras.front.width: "),
        ({"cameras.front.rotation_xyzw": [0, 0, 0, 0]}, "rotation"),
        ({"cameras.front.translation": [900.0, 0.0, 1.0]}, "from the base .900 m."),
    ],
)
def test_manifest_errors_are_reported(short_targets: Path, tmp_path: Path, change: dict[str, Any], line: str) -> None:
    manifest = json.loads((short_targets / MANIFEST).read_text(encoding="utf-8"))
    for place, value in change.items():
        *path, last = (int(key) if key.isdigit() else key for key in place.split("."))
        inner = manifest
        for key in path:
            inner = inner[key]
        inner[last] = value
    (tmp_path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(GenimaError, match=line) as caught:
        TargetDataset.load(tmp_path)
    assert MANIFEST in str(caught.value) and "run ./genima render again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shards_that_differ_from_manifest_are_reported(short_targets: Path, tmp_path: Path) -> None:
    for path in filter(Path.is_file, short_targets.iterdir()):
        shutil.copy(path, tmp_path)
    shard = tmp_path / "shard-00001-of-00003.parquet"
    original, table = shard.read_bytes(), pq.read_table(shard)
    count = len(table)

    def other(name: str, values: Any) -> pa.Table:
        return table.set_column(table.schema.get_field_index(name), name, values)

    lists, numbers = table["positions"].to_pylist(), table["gripper"].to_pylist()
    kind = table.schema.field("positions").type
    long = pa.array(["x" * 5000] * count)
    changed = {
        "no column target": table.drop_columns(["target"]),
        f"holds {count - 1} moments, manifest.json lists {count}": table.slice(1),
        "positions has 3 values in a row": other("positions", pa.array([row[:3] for row in lists])),
        "positions has a missing value": other("positions", pa.array([None, *lists[1:]], kind)),
        "column gripper has missing values": other("gripper", pa.array([None, *numbers[1:]])),
        "column gripper has values that are not finite": other("gripper", pa.array([math.inf, *numbers[1:]])),
        "column gripper holds .*, not numbers": other("gripper", pa.array(["x"] * count)),
        "column episode holds int64, not text": other("episode", pa.array([1] * count)),
        "more than 1000 characters": other("instruction", long),
        "other columns than manifest.json lists .spheres.front": other("spheres.front", pa.array([1] * count)),
    }
    for line, changed_table in changed.items():
        pq.write_table(changed_table, shard)
        with pytest.raises(GenimaError, match=line) as caught:
            TargetDataset.load(tmp_path)
        assert shard.name in str(caught.value) and "\n" not in str(caught.value), line
    manifest = read_manifest(tmp_path)
    spec = PolicySpec.from_dict(manifest["spec"])
    files = [tmp_path / entry["file"] for entry in manifest["shards"]]
    read = 0
    for data in mutated_bytes(original, 100):
        shard.write_bytes(data)
        read += require_clean(lambda: _read_samples(files, manifest, spec), f"{len(data)} bytes")
    assert read < 100


def test_wrong_or_missing_image_in_shard_is_reported(short_targets: Path, tmp_path: Path) -> None:
    for path in filter(Path.is_file, short_targets.iterdir()):
        shutil.copy(path, tmp_path)
    shard = tmp_path / "shard-00000-of-00003.parquet"
    table = pq.read_table(shard)
    images = table["observation.front"].to_pylist()
    small = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    images[0] = {"bytes": small, "path": None}
    images[1] = {"bytes": b"no image", "path": None}
    images[2] = {"bytes": None, "path": "/etc/passwd"}
    at, field = table.schema.get_field_index("observation.front"), table.schema.field("observation.front")
    pq.write_table(table.set_column(at, field, pa.array(images, field.type)), shard)
    targets = TargetDataset.load(tmp_path)
    for i, line in enumerate(("an image of 8x8 px, 32x32 are expected", "neither a PNG nor", "neither a PNG nor")):
        with pytest.raises(GenimaError, match=f"moment {i}, observation of front: {line}"):
            targets.observation(i)
    assert targets.observation(3).shape == (64, 64, 3)


def test_partial_shard_or_other_dataset_is_rejected(short_demos: Path, short_targets: Path) -> None:
    with pytest.raises(GenimaError, match="other demos, cameras or appearance"):
        render(plan_for(short_demos, view_size=64), short_targets, 1)
    with pytest.raises(GenimaError, match="other demos, cameras or appearance"):
        render(plan_for(short_demos), short_targets, 1)  # without the virtual view


def test_folders_with_other_files_are_rejected(short_demos: Path, tmp_path: Path) -> None:
    plan = plan_for(short_demos)
    for name, content in (("thesis.txt", "mine"), (MANIFEST, '{"mine": 1}'), (MANIFEST, "[]"), (MANIFEST, "{")):
        out = tmp_path / f"{name}-{len(content)}"
        out.mkdir()
        (out / name).write_text(content)
        with pytest.raises(GenimaError, match="name another|not JSON"):
            render(plan, out, 1)
        assert [path.name for path in out.iterdir()] == [name] and (out / name).read_text() == content
    manifest = tmp_path / "other" / MANIFEST
    manifest.parent.mkdir()
    manifest.write_text('{"schema": 1, "fingerprint": "another", "shards": []}')
    with pytest.raises(GenimaError, match="other demos, cameras or appearance"):
        render(plan, manifest.parent, 1)
    assert manifest.exists()
    with pytest.raises(GenimaError, match="not a folder"):
        render(plan, tmp_path / "other" / MANIFEST, 1)


def test_concurrent_writers_are_rejected(short_demos: Path, tmp_path: Path) -> None:
    with output_lock(tmp_path / "rank-0", "dataset"), pytest.raises(GenimaError, match="another process is writing"):
        render(plan_for(short_demos), tmp_path, 1)
    assert not list(tmp_path.glob("*.parquet"))


def test_whole_dataset_is_found_without_the_lock(short_demos: Path, tmp_path: Path) -> None:
    plan = plan_for(short_demos)
    rendered = render(plan, tmp_path, 1)
    with output_lock(tmp_path / "rank-0", "dataset"):  # another training starts at the same time
        assert render(plan, tmp_path, 1) == rendered
    (tmp_path / plan.shard_name(0)).unlink()
    with output_lock(tmp_path / "rank-0", "dataset"), pytest.raises(GenimaError, match="another process is writing"):
        render(plan, tmp_path, 1)


def test_demos_without_calibration_are_rejected_or_skipped(
    robot: RobotModel, cameras: Mapping[str, Camera], tmp_path: Path
) -> None:
    write_demo(tmp_path / "demos" / "demo-0", robot, {})
    with pytest.raises(GenimaError, match="no camera calibration of view wrist, .*the demos hold none; give --cameras"):
        plan_for(tmp_path / "demos")
    write_demo(tmp_path / "demos" / "demo-1", robot, cameras)
    summary = render(plan_for(tmp_path / "demos"), tmp_path / "out", 1)
    assert "demo-0" in summary.skipped and "unknown calibration" in summary.skipped["demo-0"]
    assert summary.episodes == 1


def test_recorded_again_demo_is_another_demo(robot: RobotModel, cameras: Mapping[str, Camera], tmp_path: Path) -> None:
    write_demo(tmp_path / "demo-0", robot, cameras)
    before = plan_for(tmp_path).fingerprint()
    assert plan_for(tmp_path).fingerprint() == before
    shutil.rmtree(tmp_path / "demo-0")
    write_demo(tmp_path / "demo-0", robot, cameras, start=20.0)
    assert plan_for(tmp_path).fingerprint() != before


def test_truncated_shard_is_reported(short_demos: Path, short_targets: Path, tmp_path: Path) -> None:
    name = "shard-00000-of-00003.parquet"
    (tmp_path / name).write_bytes((short_targets / name).read_bytes()[:5000])
    with pytest.raises(GenimaError, match=f"{name}: damaged or of another dataset"):
        render(plan_for(short_demos, virtual=True), tmp_path, 1)


# Demos with faults


def test_faulty_demos_are_skipped_and_counted_or_rejected(
    robot: RobotModel, cameras: Mapping[str, Camera], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    demos = tmp_path / "demos"
    write_demo(demos / "demo-0", robot, cameras)
    write_demo(demos / "demo-1", robot, cameras, without="front")
    (demos / "demo-2").mkdir()
    (demos / "demo-2/metadata.yaml").write_text("rosbag2_bagfile_information: damaged")
    arguments = ["--demos", str(demos), "--view-size", str(SIZE), "--processes", "1"]
    assert render_command([*arguments, "--out", str(tmp_path / "out")]) == 0
    printed = capfd.readouterr()
    assert f"{MOMENTS} moments of 1 demos; skipped 0 unsuccessful, 0 unjudged and 2 faulty" in printed.out
    skipped = json.loads((tmp_path / "out" / MANIFEST).read_text())["skipped"]
    assert "front" in skipped["demo-1"] and set(skipped) == {"demo-1", "demo-2"}
    for out in ("refused", "out"):  # afresh, and where they have been skipped before
        with pytest.raises(GenimaError, match="demo-[12].*"):
            render_command([*arguments, "--out", str(tmp_path / out), "--on-fault", "refuse"])
    assert not (tmp_path / "refused" / MANIFEST).exists()


def test_unjudged_demos_are_rendered_on_request(
    robot: RobotModel, cameras: Mapping[str, Camera], tmp_path: Path
) -> None:
    for i, success in enumerate((True, None, False)):
        write_demo(tmp_path / f"demo-{i}", robot, cameras, success)
    summary = render(plan_for(tmp_path), tmp_path / "skip", 1)
    assert (summary.episodes, "1 unsuccessful, 1 unjudged and 0 faulty" in str(summary)) == (1, True)
    summary = render(plan_for(tmp_path, unjudged="keep"), tmp_path / "keep", 1)
    assert (summary.episodes, dict(summary.skipped)) == (2, {"demo-2": "not successful"})


def test_demos_of_another_rate_are_rejected(short_demos: Path, tmp_path: Path) -> None:
    with pytest.raises(GenimaError, match="no usable demo.*recorded at 20 Hz, the dataset has 30 Hz"):
        render(plan_for(short_demos, rate=30.0), tmp_path, 1)


def test_defaults_equal_those_of_lazy_modules() -> None:
    assert (Render().views, Render().appearance) == (PolicySpec.views, DEFAULT)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--demos", "nowhere"], "no episodes"),
        (["--views", "wrist", "front", "front", "left_shoulder"], "1 to 6 different views"),
        (["--views", "wrist", "front", "ceiling", "left_shoulder"], "no camera calibration of view ceiling"),
        (["--view-size", "0"], "--view-size 0: must be greater than or equal to 16"),
        (["--view-size", "90"], "multiple of 4"),
        (["--view-size", str(10**9)], "--view-size 1000000000: must be less than or equal to 2048"),
        (["--horizon", "100000"], "--horizon 100000: must be less than or equal to 1000"),
        (["--rate", "nan"], "--rate nan: must be a finite number"),
        (["--rate", "inf"], "--rate inf: must be a finite number"),
        (["--rate", "-1"], "--rate -1.0: must be greater than 0"),
        (["--processes", "0"], "--processes 0: must be"),
        (["--episodes-per-shard", "0"], "--episodes-per-shard 0: must be"),
        (["--rank", "2", "--machines", "2"], "--rank 2 is not one of 0 to 1"),
        (["--cell", "no_such"], "no_such"),
        (["--appearance", "no_such"], "unknown; use genima_release, no_stripes, wide_stripes, or a .yaml file"),
        (["--appearance", "no_such.yaml"], "no_such.yaml does not exist"),
    ],
)
def test_invalid_arguments_are_one_line_errors(
    short_demos: Path, tmp_path: Path, arguments: list[str], line: str
) -> None:
    where = ["--demos", str(short_demos)] if "--demos" not in arguments else []
    with pytest.raises(GenimaError, match=line) as caught:
        render_command([*where, *arguments, "--out", str(tmp_path)])
    assert "\n" not in str(caught.value)


def test_robot_is_of_demos(
    tmp_path: Path, robot: RobotModel, cameras: Mapping[str, Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    demos = tmp_path / "demos"
    arm = replace(robot, name="mine", home=robot.home + 0.01)
    models = {"demo-0": arm, "demo-1": replace(arm, flange_offset=0.2), "demo-2": RobotModel.load("fr3")}
    for name, model in models.items():
        write_demo(demos / name, model, cameras)
    command = ["--demos", str(demos), "--view-size", "64", "--processes", "1", "--out", str(tmp_path / "out")]
    with pytest.raises(GenimaError, match="robot mine of the demos: not in config/robots; put its file there"):
        render_command(command)
    file = tmp_path / "share" / "genima_bringup" / "config" / "robots" / "mine.yaml"
    file.parent.mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    file.write_text(yaml.safe_dump(arm.to_dict()))
    assert render_command(command) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["spec"]["robot"] == "mine" and manifest["episodes"] == 1
    assert "of another mine: its kinematics differ" in manifest["skipped"]["demo-1"]
    assert "of robot fr3, not mine" in manifest["skipped"]["demo-2"]
    file.write_text(yaml.safe_dump(replace(arm, flange_offset=0.3).to_dict()))
    with pytest.raises(GenimaError, match="the one in config/robots has other joints or kinematics"):
        render_command(command)


def test_appearance_is_stored_with_dataset(short_demos: Path, tmp_path: Path) -> None:
    out, demo = tmp_path / "targets", next(iter(sorted(short_demos.glob("demo-*"))))
    render_command(
        ["--demos", str(demo), "--view-size", "64", "--processes", "1", "--out", str(out)]
        + ["--appearance", "genima_release"]
    )
    targets = TargetDataset.load(out)
    assert targets.spec.appearance == Appearance.load("genima_release")
    layer = targets.spheres(0)
    black = (layer[..., :3] == 0).all(-1) & (layer[..., 3] > 0)
    assert 0.3 < np.count_nonzero(black) / np.count_nonzero(layer[..., 3]) < 0.7
    with pytest.raises(GenimaError, match="other demos, cameras or appearance than this run's"):
        render_command(["--demos", str(demo), "--view-size", "64", "--processes", "1", "--out", str(out)])


def test_observations_are_stored_losslessly_on_request(
    robot: RobotModel, cameras: Mapping[str, Camera], tmp_path: Path
) -> None:
    write_demo(tmp_path / "demos" / "demo-0", robot, cameras)
    demo = Episode.load(tmp_path / "demos" / "demo-0", robot)
    for images in ("png", "jpeg"):
        out = tmp_path / images
        render_command(
            ["--demos", str(tmp_path / "demos"), "--cameras", "sim", "--view-size", "48", "--processes", "1"]
            + ["--out", str(out), "--images", images]
        )
        seen = untile(TargetDataset.load(out).observation(1), PolicySpec.views)["front"]
        assert np.array_equal(seen, demo.image("front", 1)) == (images == "png")
    assert plan_for(tmp_path / "demos").fingerprint() != plan_for(tmp_path / "demos", images="png").fingerprint()


def test_sphere_at_unknown_frame_is_rejected_before_rendering(short_demos: Path, tmp_path: Path) -> None:
    file = tmp_path / "far.yaml"
    file.write_text("spheres: [{name: elbow, frame: 9}]")
    with pytest.raises(GenimaError, match="sphere elbow: unknown frame .9.; panda has frames 0 to 8"):
        render_command(["--demos", str(short_demos), "--appearance", str(file), "--out", str(tmp_path / "targets")])
    assert not (tmp_path / "targets").exists()


def test_two_demos_of_one_name_are_rejected(short_demos: Path) -> None:
    with pytest.raises(GenimaError, match="two are called demo-0"):
        make_plan(Render(), [short_demos / "demo-0", short_demos / "other" / "demo-0"])
