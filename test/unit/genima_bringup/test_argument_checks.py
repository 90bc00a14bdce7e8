"""Checks of launch arguments, which reject invalid values before anything is started; without `launch`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cells import write_cell
from untrained import save_checkpoints

from genima.cell import load_cell
from genima.errors import GenimaError
from genima.io import paths
from genima_bringup import argument_checks as checks

ROOT = Path(__file__).resolve().parents[3]
FILE = str(ROOT / "README.md")
GENIMA = {"policy": "genima", "checkpoint": "", "episode": ""}
REAL = {
    "cell": "fr3_crisp", "namespace": "", "hardware": "true", "policy": "false", "record": "false", "checkpoint": "",
    "episode": "", "folder": "data/demos",
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
        (checks.host, "fe80::1"),
        (checks.host, "fr3.here"),
        (checks.device, "cuda:1"),
        (checks.dds, "two_machines"),
        (checks.cell, "sim_fr3"),
        (checks.policy, "replay"),
        (checks.optional_policy, "false"),
        (checks.board, ""),
        (checks.cell, "fr3_crisp"),
        (checks.optional_host, ""),
        (checks.checkpoint, ""),
        (checks.episode, ""),
        (checks.output_folder, "data/new/demos"),
    ],
)
def test_valid_values_are_accepted(check: checks.Check, text: str) -> None:
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
        (checks.host, ["", "a b", "a;b", "x" * 300]),
        (checks.device, ["tpu", "", "cuda:x"]),
        (checks.dds, ["nope", "", "../dds/shared_memory"]),
        (checks.cell, ["r2d2", "", "nowhere.yaml", "\0.yaml"]),
        (checks.policy, ["r2d2", "", "false", "nowhere.module", "\0"]),
        (checks.board, ["nowhere.yaml", FILE]),
        (checks.cell, ["nowhere", "nowhere.yaml", "", FILE]),
        (checks.optional_host, ["a b"]),
        (checks.checkpoint, ["nowhere", FILE]),
        (checks.episode, ["nowhere", FILE]),
        (checks.existing_file, ["nowhere", "/tmp"]),
        (checks.output_folder, ["", f"{FILE}/x", "a\n"]),
        (checks.filled, ["", " ", "a\x1b[31m"]),
    ],
)
def test_invalid_values_are_rejected(check: checks.Check, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(GenimaError) as error:
            checks.require("x", {"x": text}, check)
        assert str(error.value).isprintable() and str(error.value).startswith("x:=")


def write_panda_with_franka_ros2(folder: Path) -> str:
    return write_cell(folder, "fr3_crisp", robot="panda")


def write_panda_with_fr3_hand(folder: Path) -> str:
    return write_cell(folder, "panda_multipanda", robot="panda_franka_hand", driver={"gripper": "franka_hand"})


def write_uncalibrated_cell(folder: Path) -> str:
    return write_cell(folder, "fr3_crisp", calibration="nowhere")


def write_calibrated_cell(folder: Path) -> str:
    return write_cell(folder, "fr3_crisp", calibration="sim")


@pytest.mark.parametrize(
    ("cell", "changes", "expected"),
    [
        ("sim_panda", {}, "cell sim_panda: simulated by mujoco; name the cell of a real robot"),
        (write_panda_with_franka_ros2, {}, "robot panda takes kind: external"),
        (write_panda_with_fr3_hand, {}, "is the hand of an FR3"),
        ("fr3_gello", {"namespace": "left"}, "does not go with the controller gello"),
        (write_uncalibrated_cell, {"policy": "genima"}, r"no calibration \(nowhere\)"),
        (write_calibrated_cell, {"policy": "genima"}, "was trained for joints"),
        ("fr3_crisp", {"record": "true", "folder": f"{FILE}/x"}, "is not a folder"),
    ],
)
def test_conflicting_real_robot_arguments_are_rejected(
    cell: Any, changes: dict[str, str], expected: str, tmp_path: Path
) -> None:
    name = cell if isinstance(cell, str) else cell(tmp_path)
    with pytest.raises(GenimaError, match=expected):
        checks.require_real_robot(REAL | {"cell": name} | changes)


@pytest.mark.parametrize(
    ("cell", "changes"),
    [
        ("fr3_crisp", {}),
        ("fr3_crisp_franka_hand", {"namespace": "left"}),
        ("panda_multipanda", {}),
        ("fr3_own_driver", {}),
        (write_uncalibrated_cell, {}),
        (write_panda_with_franka_ros2, {"hardware": "false"}),
    ],
)
def test_compatible_real_robot_arguments_are_accepted(cell: Any, changes: dict[str, str], tmp_path: Path) -> None:
    checks.require_real_robot(REAL | {"cell": cell if isinstance(cell, str) else cell(tmp_path)} | changes)


def test_checkpoint_must_match_robot_and_cameras(tmp_path: Path) -> None:
    folder = str(save_checkpoints(tmp_path / "checkpoint", 256, "fr3"))
    with pytest.raises(GenimaError, match="image size differs from the checkpoint"):
        checks.require_policy(load_cell(write_calibrated_cell(tmp_path)), folder)
    rig = tmp_path / "mine.yaml"
    rig.write_text(paths.shared("config", "cameras", "four_d415.yaml").read_text("utf-8").replace("640x480", "256x256"))
    checks.require_policy(load_cell(write_cell(tmp_path, "fr3_crisp", calibration="sim", cameras="mine.yaml")), folder)
    few = write_cell(tmp_path, "fr3_crisp", calibration="sim", cameras="mine.yaml", views=["front", "wrist"])
    with pytest.raises(GenimaError, match="takes the view right_shoulder, left_shoulder; cell .* has front, wrist"):
        checks.require_policy(load_cell(few), folder)


@pytest.mark.parametrize(
    ("check", "values"),
    [
        (checks.require_teleop, {"cell": "sim_panda", "leader": "nowhere", "sim": "false"}),
        (checks.require_teleop, {"cell": "fr3_crisp", "leader": "same", "sim": "true"}),
        (checks.require_simulation, {"cell": "sim_fr3", **GENIMA}),
        (checks.require_simulation, {"cell": "fr3_crisp", **GENIMA}),
        (checks.require_simulation, {"cell": "sim_rlbench", **GENIMA}),
        (checks.require_driver, {"cell": "sim_panda"}),
        (checks.require_robotiq, {"cell": "fr3_own_driver"}),
        (checks.require_robotiq, {"cell": "sim_panda"}),
        (checks.require_view, {"cell": "fr3_crisp", "description": "nowhere.xacro"}),
        (checks.require_view, {"cell": "panda_multipanda", "description": "/x/robots/panda/panda.urdf.xacro"}),
        (
            checks.require_calibration,
            {"cell": "sim_panda", "sim": "true", "view": "ceiling", "calibration": "a", "samples": ""},
        ),
        (
            checks.require_calibration,
            {"cell": "fr3_crisp", "sim": "false", "view": "front", "calibration": f"{FILE}/x", "samples": ""},
        ),
    ],
)
def test_conflicting_arguments_of_other_launch_files_are_rejected(check: Any, values: dict[str, str]) -> None:
    with pytest.raises(GenimaError):
        check(values)
