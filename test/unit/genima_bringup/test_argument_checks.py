"""Arguments of launch files: what makes no sense is refused before anything is started. Without `launch`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from untrained import save_checkpoints

from genima.errors import GenimaError
from genima.io import paths
from genima_bringup import argument_checks as checks

ROOT = Path(__file__).resolve().parents[3]
FILE = str(ROOT / "README.md")
REAL = {
    "robot": "fr3", "gripper": "robotiq_2f140", "backend": "crisp", "namespace": "", "hardware": "true",
    "policy": "false", "record": "false", "calibration": "sim", "checkpoint": "", "cameras": "four_d415",
    "folder": "data/demos",
}  # fmt: skip


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (checks.number(0, 1), "0.5"),
        (checks.integer(0, 2**62), "4611686018427387904"),
        (checks.flag, "True"),
        (checks.namespace, ""),
        (checks.namespace, "/cell/left"),
        (checks.topic, "~/image"),
        (checks.frame, "left/fr3_link0"),
        (checks.view, "left_shoulder"),
        (checks.views, "[front, wrist]"),
        (checks.host, "fe80::1"),
        (checks.host, "fr3.here"),
        (checks.device, "cuda:1"),
        (checks.dds, "two_machines"),
        (checks.robot, "fr3"),
        (checks.board, ""),
        (checks.cameras, "four_d415"),
        (checks.calibration, "sim"),
        (checks.checkpoint, ""),
        (checks.episode, ""),
        (checks.output_folder, "data/new/demos"),
    ],
)
def test_what_makes_sense(check: checks.Check, text: str) -> None:
    check(text)


@pytest.mark.parametrize(
    ("check", "texts"),
    [
        (checks.number(0, 1), ["nan", "inf", "", "a", "1.1", "-1", "0,5"]),
        (checks.integer(0, 10), ["2.5", "1e1", "", "-1", "9" * 5000, "\u0663"]),
        (checks.flag, ["yes", "", "2"]),
        (checks.namespace, ["left-arm", "a//b", "1"]),
        (checks.topic, ["", "a-b", "a b"]),
        (checks.frame, ["", "/", "fr3-link0"]),
        (checks.view, ["", "left-shoulder", "a/b"]),
        (checks.views, ["front", "[]", "[1]", "[a-b]", "[front, front]", "{", "2020-01-01"]),
        (checks.host, ["", "a b", "a;b", "x" * 300]),
        (checks.device, ["tpu", "", "cuda:x"]),
        (checks.dds, ["nope", "", "../dds/shared_memory"]),
        (checks.robot, ["r2d2", "", "nowhere.yaml", "\0.yaml"]),
        (checks.board, ["nowhere.yaml", FILE]),
        (checks.cameras, ["nowhere", "nowhere.yaml", ""]),
        (checks.calibration, ["nowhere", FILE]),
        (checks.checkpoint, ["nowhere", FILE]),
        (checks.episode, ["nowhere", FILE]),
        (checks.existing_file, ["nowhere", "/tmp"]),
        (checks.output_folder, ["", f"{FILE}/x", "a\n"]),
        (checks.filled, ["", " ", "a\x1b[31m"]),
    ],
)
def test_what_makes_no_sense(check: checks.Check, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(GenimaError) as error:
            checks.require("x", {"x": text}, check)
        assert str(error.value).isprintable() and str(error.value).startswith("x:=")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"robot": "panda"}, "robot:=panda takes backend:=multipanda"),
        ({"robot": "panda", "backend": "multipanda", "gripper": "franka_hand"}, "gripper:=franka_hand is an FR3's"),
        ({"namespace": "left", "backend": "gello"}, "does not go with backend:=gello"),
        ({"calibration": "none", "policy": "true"}, "policy:=false only"),
        ({"calibration": "nowhere"}, "calibration:=nowhere: "),
        ({"policy": "true"}, "was trained for joints"),
        ({"record": "true", "folder": f"{FILE}/x"}, "is not a folder"),
    ],
)
def test_arguments_of_a_real_robot_that_do_not_go_together(changes: dict[str, str], words: str) -> None:
    with pytest.raises(GenimaError, match=words):
        checks.require_real_robot(REAL | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"namespace": "left"},
        {"calibration": "none"},
        {"robot": "panda", "backend": "multipanda"},
        {"robot": "panda", "hardware": "false", "calibration": "nowhere"},
        {"backend": "franka_arm", "gripper": "franka_hand"},
    ],
)
def test_arguments_of_a_real_robot_that_go_together(changes: dict[str, str]) -> None:
    checks.require_real_robot(REAL | changes)


def test_a_checkpoint_of_this_robot_and_its_cameras(tmp_path: Path) -> None:
    folder = str(save_checkpoints(tmp_path / "checkpoint", 256, "fr3"))
    with pytest.raises(GenimaError, match="its images are 640x480"):
        checks.require_policy("fr3", "four_d415", "sim", folder)
    rig = tmp_path / "mine.yaml"
    text = paths.shared("config", "cameras", "four_d415.yaml").read_text("utf-8")
    rig.write_text(text.replace("640x480x30", "256x256x30"))
    checks.require_policy("fr3", str(rig), "sim", folder)
    rig.write_text(text.replace("640x480x30", "256x256x30").replace("front:", "ceiling:"))
    with pytest.raises(GenimaError):
        checks.require_policy("fr3", str(rig), "sim", folder)


@pytest.mark.parametrize(
    ("check", "values"),
    [
        (checks.require_teleop, {"robot": "panda", "leader": "nowhere"}),
        (checks.require_simulation, {"robot": "fr3", "checkpoint": "", "backend": "mujoco", "scene": ""}),
        (checks.require_simulation, {"robot": "panda", "checkpoint": "", "backend": "coppeliasim", "scene": "nowhere"}),
        (checks.require_view, {"robot": "fr3", "description": "nowhere.xacro"}),
        (checks.require_view, {"robot": "panda", "description": "/x/robots/panda/panda.urdf.xacro"}),
        (checks.require_calibration, {"sim": "true", "view": "ceiling", "calibration": "a", "samples": ""}),
        (checks.require_calibration, {"sim": "false", "view": "front", "calibration": f"{FILE}/x", "samples": ""}),
    ],
)
def test_arguments_of_other_launch_files_that_do_not_go_together(check: Any, values: dict[str, str]) -> None:
    with pytest.raises(GenimaError):
        check(values)
