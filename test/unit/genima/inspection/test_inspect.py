"""Tests of ./genima inspect: detection of a folder's contents, and pictures."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mutation import require_clean
from numpy.typing import NDArray
from one_thread import render_in_a_thread
from torch import nn

from genima.cameras.camera import Camera
from genima.data.datasets.sample_index import SampleIndex
from genima.data.episodes import EpisodeWriter
from genima.errors import GenimaError
from genima.inspection.checkpoints import sphere_sheet
from genima.inspection.report import Report, Section, format_list
from genima.inspection.sheet import grid
from genima.policy.controller import Controller
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.training import loop
from genima.types import Command, Joints
from genima_cli.__main__ import main
from genima_cli.inspect import inspect

LENGTHS = {"push-0": 21, "push-1": 31, "lid-0": 25}
INSTRUCTIONS = {"push-0": "push it", "push-1": "push it", "lid-0": "lift the lid"}
COLOURS = {"push-0": (200, 40, 40), "push-1": (40, 200, 40), "lid-0": (40, 40, 200)}


def rows(report: Report, section: int = 0) -> Mapping[str, str]:
    return report.sections[section].rows


def share(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> float:
    """Fraction of the pixels with a colour, within the tolerance of JPEG and H.264."""
    return float((np.abs(picture.astype(int) - colour).max(-1) < 20).mean())


def write_demo(
    folder: Path, name: str, robot: RobotModel, cameras: Mapping[str, Camera], spec: PolicySpec, success: bool = True
) -> None:
    image = np.full((256, 256, 3), COLOURS[name], np.uint8)
    with EpisodeWriter(folder, robot, cameras, INSTRUCTIONS[name]) as episode:
        for t in range(LENGTHS[name]):
            q = robot.home + 0.01 * t
            episode.observe(t / 20, dict.fromkeys(spec.views, image), Joints(t / 20, q, 1.0))
            episode.command(Command(t / 20, q, gripper=float(t < 10)))
        episode.judge(LENGTHS[name] / 20, success)


@pytest.fixture(scope="module")
def demos(
    tmp_path_factory: pytest.TempPathFactory, robot: RobotModel, cameras: Mapping[str, Camera], spec: PolicySpec
) -> Path:
    """Three demos of two tasks, each with a different background colour."""
    folder = tmp_path_factory.mktemp("plain") / "demos"
    for name in LENGTHS:
        write_demo(folder / name, name, robot, cameras, spec)
    return folder


@pytest.fixture(scope="module")
def targets(demos: Path) -> Path:
    """Rendered demos in two shards, with a failed and a damaged demo."""
    every = demos.parent / "every"
    shutil.copytree(demos, every)
    (every / "broken").mkdir()
    (every / "broken" / "metadata.yaml").write_text("rosbag2_bagfile_information: damaged")
    out = demos.parent / "targets"
    options = ["--view-size", "64", "--virtual", "--episodes-per-shard", "2", "--processes", "1"]
    with pytest.MonkeyPatch.context() as patch:
        render_in_a_thread(patch)
        assert main(["render", "--demos", str(every), "--out", str(out), *options]) == 0
    return out


# Checkpoints


def test_parameter_counts_equal_loaded_networks(checkpoint_folder: Path) -> None:
    report = inspect(checkpoint_folder)
    agent = DiffusionAgent.from_pretrained(checkpoint_folder / "diffusion_agent")
    act = Controller.from_pretrained(checkpoint_folder / "controller").network
    backbone = {"backbone": act.backbone, "text_encoder": act.text_encoder, "all": act}
    for section, modules in ((1, agent.modules), (2, backbone)):
        values = dict(re.findall(r"^(\w+) +([\d.]+) M", rows(report, section)["parameters"], re.MULTILINE))
        for name, module in modules.items():
            count = sum(tensor.numel() for tensor in module.state_dict().values() if tensor.is_floating_point())
            assert values[name] == f"{count / 1e6:.2f}", name


def test_pair_report_has_common_and_own_rows(checkpoint_folder: Path, spec: PolicySpec) -> None:
    report = inspect(checkpoint_folder)
    assert "fit together" in report.sections[0].title and "not" not in report.sections[0].title
    shared = rows(report)
    assert shared["tile"] == "wrist, front / right_shoulder, left_shoulder"
    assert "20 steps ahead at 20 Hz: 1.00 s" in shared["targets"] and shared["prompt"] == spec.prompt_template
    assert all(name in shared["robot"] for name in spec.joint_names)
    assert "gripper at the tip rgb(5,206,235), closed rgb(255,255,0)" in shared["spheres"]
    assert "elbow at panda_joint4" in shared["spheres"] and "wrist 30 mm, front 80 mm" in shared["radii"]
    assert "1 diffusion step" in rows(report, 1)["draws"] and "DDIMScheduler, predicts sample" in str(report)
    assert "±" in rows(report, 2)["normalised"]
    assert not shared.keys() & rows(report, 1).keys()
    assert max(map(len, str(report).splitlines())) <= 120


def test_inconsistent_pair_names_fields(checkpoint_folder: Path, copy_folder: Callable[[Path], Path]) -> None:
    pair = copy_folder(checkpoint_folder)
    file = pair / "controller" / "genima.json"
    data = json.loads(file.read_text())
    data["views"][3] = "virtual"
    file.write_text(json.dumps(data))
    report = inspect(pair)
    assert "specifications differ (views" in report.sections[0].title
    assert rows(report, 1)["tile"].endswith("left_shoulder") and rows(report, 2)["tile"].endswith("virtual")


def test_half_pair_is_reported(checkpoint_folder: Path, copy_folder: Callable[[Path], Path]) -> None:
    pair = copy_folder(checkpoint_folder)
    (pair / "controller" / "genima.json").unlink()
    assert "other half has no checkpoint" in inspect(pair).sections[0].title
    (pair / "diffusion_agent" / "genima.json").unlink()
    with pytest.raises(GenimaError, match="neither .*diffusion_agent nor .*controller holds a checkpoint"):
        inspect(pair)


class Numbers(torch.utils.data.Dataset[float]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, visit: SampleIndex) -> float:
        return float(visit.moment)


class Squared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.line(batch[:, None]).square().mean()}


SHADES = {2: 60, 4: 120, 6: 180}  # grey level of each checkpoint's drawings


@pytest.fixture(scope="module")
def training(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a training; the second of three checkpoints is the best one."""
    folder = tmp_path_factory.mktemp("run") / "controller"
    errors = {2: 3.25, 4: 1.125, 6: 2.75}

    def save(checkpoint: Path) -> None:
        shutil.copytree(checkpoint_folder / "controller", checkpoint, dirs_exist_ok=True)

    def validate(step: int, checkpoint: Path) -> dict[str, float]:
        cv2.imwrite(str(checkpoint / "drawings.png"), np.full((50, 900, 3), SHADES[step], np.uint8))
        return {"deg": errors[step], "deg/elbow": 2 * errors[step], "mm": 10 * errors[step]}

    options = loop.LoopOptions(4, 1e-3, steps=6, save_every=2, workers=0, warmup_steps=1)
    loop.run(Squared(), Numbers(), torch.tensor, options, folder, save, validate, "deg")
    return folder


def test_training_report_has_best_and_last_step(training: Path) -> None:
    report = inspect(training)
    assert report.sections[0].title.endswith("controller/best: a controller")
    values = rows(report)
    assert values["best step"] == "4: deg 1.12, deg/elbow 2.25, mm 11.2"
    assert values["last step"] == "6: deg 2.75, deg/elbow 5.5, mm 27.5"
    assert "6 of 6 steps done, in batches of 4 from 8 moments" in values["training"] and "resumed" in values["training"]
    assert report.picture is not None
    shown = report.picture[20:60, :850]
    assert (shown == SHADES[4]).all()
    below = report.picture[100:]  # the curves: two diagrams, in matplotlib's first two colours
    assert all((np.abs(below.astype(int) - c).max(-1) < 8).sum() > 50 for c in ((31, 119, 180), (255, 127, 14)))


def test_training_without_its_state_cannot_be_resumed(training: Path, copy_folder: Callable[[Path], Path]) -> None:
    folder = copy_folder(training)  # links are copied as folders, too
    shutil.rmtree(folder / "last" / "training_state")
    values = rows(inspect(folder))
    assert "cannot be resumed" in values["training"] and values["best step"].startswith("unknown")


def test_sphere_sheet_matches_camera_projection(
    robot: RobotModel, cameras: Mapping[str, Camera], spec: PolicySpec
) -> None:
    sheet = sphere_sheet(spec)
    camera, tip = cameras["front"], robot.link_poses(robot.home)[-1, :3, 3]
    u, v, w = camera.K @ (np.linalg.inv(camera.T_parent_camera) @ [*tip, 1])[:3]
    for left, colour in ((256 + 6, (5, 206, 235)), (3 * 256 + 4 * 6, (255, 255, 0))):  # open, then closed
        at = sheet[36 + round(v / w), left + round(u / w)]  # below two captions
        cosine = at @ np.array(colour) / (np.linalg.norm(at) * np.linalg.norm(colour))
        assert cosine > 0.999, at  # on a stripe, coloured or dark
    half = sheet.shape[1] // 2
    assert share(sheet[:, :half], (255, 255, 0)) == 0 < share(sheet[:, half:], (255, 255, 0))


def test_checkpoint_of_unknown_cameras_has_no_picture(
    checkpoint_folder: Path, copy_folder: Callable[[Path], Path]
) -> None:
    folder = copy_folder(checkpoint_folder / "controller")
    file = folder / "genima.json"
    file.write_text(file.read_text().replace('"wrist"', '"upper_wrist"'))
    report = inspect(folder)
    assert report.picture is None and "no view upper_wrist" in report.sections[-1].title


# Datasets


def test_rendered_targets_are_counted_and_shown(targets: Path) -> None:
    report = inspect(targets, verify=True)
    values = rows(report)
    assert values["moments"].startswith("77 of 3 demos; 21 to 31 each")
    assert values["instructions"] == "push it: 2 of 3 demos\nlift the lid: 1 of 3 demos"
    assert values["skipped"].startswith("broken: ") and values["rendered"].endswith("virtual")
    assert values["joints"].startswith("0 to 17, ") and "1.00 open" in values["gripper"]
    assert values["shards"].startswith("2 of ") and values["shards"].endswith("checksums agree")
    assert "views 64x64 px" in values["sizes"]
    picture = report.picture
    assert picture is not None
    side = 160 + 1  # of a view, and its gap
    lid = picture[18 : 18 + 6 * side, : 2 * side]  # the first moment of the first demo, observation above drawn target
    seen, drawn = lid[: 3 * side], lid[3 * side + 6 :]
    assert share(seen[: 2 * side], COLOURS["lid-0"]) > 0.97 and share(seen[2 * side :], (127, 127, 127)) > 0.3
    for shown, least, most in ((seen, 0, 0.001), (drawn, 0.002, 0.2)):
        assert least <= share(shown[: 2 * side], (132, 104, 240)) <= most  # the wrist's sphere


def test_changed_shard_is_found_by_checksum(targets: Path, copy_folder: Callable[[Path], Path]) -> None:
    folder = copy_folder(targets)
    shard = sorted(folder.glob("*.parquet"))[1]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 255
    shard.write_bytes(data)
    with pytest.raises(GenimaError, match=shard.name):
        inspect(folder, verify=True)


def test_demos_report_has_faults(
    demos: Path, copy_folder: Callable[[Path], Path], robot: RobotModel, cameras: Mapping[str, Camera], spec: PolicySpec
) -> None:
    folder = copy_folder(demos)
    bag = next((folder / "push-0").glob("*.mcap"))
    bag.write_bytes(bag.read_bytes()[:-1000])
    write_demo(folder / "failed", "push-1", robot, cameras, spec, success=False)
    report = inspect(folder)
    values = rows(report)
    assert values["demos"] == "4, of which 1 faulty" and "push-0: cannot be read" in values["faults"]
    assert values["success"] == "2 of 3" and values["not successful"] == "failed"
    assert values["length"].startswith("25 to 31 moments, 1.2 to 1.5 s") and values["rate"] == "20.0 Hz"
    assert values["instructions"] == "push it: 2 of 3 demos\nlift the lid: 1 of 3 demos"
    assert "wrist 256x256 px" in values["views"]
    assert report.picture is not None and share(report.picture, COLOURS["push-1"]) > 0.4  # faults are not shown


def test_lerobot_dataset_shows_frames_of_each_episode(demos: Path, tmp_path: Path) -> None:
    assert main(["episodes", "export", str(demos), "--out", str(tmp_path / "lerobot")]) == 0
    report = inspect(tmp_path / "lerobot")
    values = rows(report)
    assert values["episodes"].startswith("3 of 21 to 31 frames, 77 in all") and values["rate"] == "20 Hz"
    assert set(values["tasks"].splitlines()) == set(INSTRUCTIONS.values())
    assert "observation.images.wrist: video (256, 256, 3)" in values["features"] and "v3.0" in values["format"]
    assert report.picture is not None
    strips = np.array_split(report.picture, 3)
    for strip, name in zip(strips, sorted(COLOURS), strict=True):
        assert [share(strip, colour) > 0.85 for colour in COLOURS.values()] == [other == name for other in COLOURS]


# The command


def test_command_prints_text_and_picture_path(
    checkpoint_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = tmp_path / f"{checkpoint_folder.name}.png"
    theirs.write_text("the user's own")
    assert main(["inspect", str(checkpoint_folder)]) == 0
    report = inspect(checkpoint_folder)
    assert capsys.readouterr().out == f"{report}\n\n--picture FILE.png draws a contact sheet of it\n"
    assert [path.name for path in tmp_path.iterdir()] == [theirs.name] and theirs.read_text() == "the user's own"
    command = ["inspect", str(checkpoint_folder), "--picture"]
    assert main([*command, "sheet.png"]) == 0
    assert capsys.readouterr().out.endswith("\n\ncontact sheet: sheet.png\n")
    assert report.picture is not None
    np.testing.assert_array_equal(cv2.imread("sheet.png")[..., ::-1], report.picture)
    for options, expected in (
        (["sheet.jpg"], "--picture sheet.jpg"),
        (["sheet.png"], "already exists; name another, or replace it with --overwrite"),
        ([theirs.name, "--overwrite"], "already exists and is not one"),
        (["."], "--picture ."),
    ):
        assert main([*command, *options]) == 2
        assert expected in capsys.readouterr().err
    assert theirs.read_text() == "the user's own"
    assert main([*command, "sheet.png", "--overwrite"]) == 0


def test_unknown_folders_are_reported(tmp_path: Path) -> None:
    """Circular and broken links, files in place of folders, huge files, arbitrary names."""
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "deep").mkdir()
    os.mkfifo(tmp_path / "deep" / "metadata.yaml")
    with pytest.raises(GenimaError, match="nothing to inspect|not a regular file|cannot read"):
        inspect(tmp_path)
    for name, content in (
        ("manifest.json", b""), ("manifest.json", b"[]"), ("manifest.json", b"{" * 100_000), ("genima.json", b"\xff"),
        ("genima.json", b"[]"), ("meta/info.json", b"{}"), ("shard-x.parquet", b"PAR1"), ("x.mcap", b"\x89MCAP"),
        ("x.db3", b"SQLite format 3\0"), ("metadata.yaml", b"rosbag2_bagfile_information: &a [*a]"),
        ("diffusion_agent/genima.json", b"{}"), ("controller", b""), ("metrics.jsonl", b"\0"),
    ):  # fmt: skip
        folder = tmp_path / f"of-{name.replace('/', '-')}-{len(content)}"
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(content)
        require_clean(lambda: inspect(folder), name)  # noqa: B023
    sparse = tmp_path / "sparse"
    for name in ("manifest.json", "genima.json", "meta/info.json", "shard-0.parquet", "x.mcap"):
        folder = sparse / name.replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        with (folder / name).open("wb") as file:
            file.truncate(10**11)
        require_clean(lambda: inspect(folder), name)  # noqa: B023
    for path in (tmp_path / "none", tmp_path / "sparse" / "x.mcap" / "x.mcap", Path("/dev/null")):
        with pytest.raises(GenimaError, match="is no folder"):
            inspect(path)


def test_escape_codes_of_texts_are_printable() -> None:
    report = Report([Section("a\x1b[31m", {"task\x07": "x\x1b]0;y\x07\nb\u202e"})], None)
    assert not set(str(report)) & set("\x1b\x07\u202e")


def damage(folder: Path, what: str) -> None:
    path = folder / what
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize(
    ("corrupt", "line"),
    [
        (lambda pair: damage(pair, "controller/genima.json"), "controller/genima.json is damaged"),
        (lambda pair: damage(pair, "controller/act.safetensors"), "controller/act.safetensors is damaged"),
        (lambda pair: damage(pair, "diffusion_agent/scheduler/scheduler_config.json"), "config.json: not JSON"),
        (lambda pair: shutil.rmtree(pair / "diffusion_agent" / "unet"), "has no weights of unet"),
        (lambda pair: (pair / "controller" / "metrics.jsonl").write_text('{"loss": 1}\n'), "is damaged (line 1: "),
        (lambda pair: (pair / "controller" / "drawings.png").write_text("none"), "drawings.png: neither"),
        (lambda pair: [shutil.rmtree(half) for half in pair.iterdir()], "nothing to inspect"),
        (lambda pair: shutil.rmtree(pair), "is no folder"),
    ],
)
def test_damaged_checkpoint_is_one_line(
    checkpoint_folder: Path, copy_folder: Callable[[Path], Path], corrupt: Callable[[Path], object], line: str
) -> None:
    pair = copy_folder(checkpoint_folder)
    corrupt(pair)
    with pytest.raises(GenimaError) as caught:
        inspect(pair)
    assert line in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("corrupt", "line"),
    [
        (lambda folder: damage(folder, "manifest.json"), "manifest.json is damaged"),
        (lambda folder: (folder / "manifest.json").unlink(), "no finished dataset"),
        (lambda folder: next(folder.glob("*.parquet")).unlink(), "parquet: missing"),
        (lambda folder: damage(folder, next(folder.glob("*.parquet")).name), "parquet: damaged"),
    ],
)
def test_damaged_dataset_is_one_line(
    targets: Path, copy_folder: Callable[[Path], Path], corrupt: Callable[[Path], object], line: str
) -> None:
    folder = copy_folder(targets)
    corrupt(folder)
    with pytest.raises(GenimaError) as caught:
        inspect(folder)
    assert line in str(caught.value) and "\n" not in str(caught.value)


# Text and sheets


def test_long_texts_are_wrapped_under_their_label_and_long_lists_cut() -> None:
    report = Report([Section("title", {"a": "word " * 60, "longer": "x\ny"})], None)
    lines = str(report).splitlines()
    assert lines[0] == "title" and lines[1].startswith("  a       word") and lines[2].startswith(" " * 12 + "word")
    assert lines[-2:] == ["  longer  x", "          y"] and max(map(len, lines)) <= 120
    assert format_list("abcd", 2) == "a\nb\nand 2 more" and format_list("ab", 2) == "a\nb"


def test_grid_keeps_all_pixels_of_different_sizes() -> None:
    images = [np.full((h, w, 3), shade, np.uint8) for h, w, shade in ((4, 7, 10), (6, 5, 20), (3, 30, 30))]
    sheet = grid(images, 2, gap=2)
    assert sheet.shape == (6 + 2 + 3 + 2, 32, 3)
    for image in images:
        assert (sheet == image[0, 0]).all(-1).sum() == image.shape[0] * image.shape[1]
    np.testing.assert_array_equal(sheet[8:11, :30], images[2])
