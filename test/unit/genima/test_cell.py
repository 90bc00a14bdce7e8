"""Robot cells: the files that come with the project, users' own, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cells import write_cell
from mutation import mutated_data, require_clean

from genima.cell import load_cell
from genima.errors import GenimaError
from genima.io import paths
from genima.io.files import parse_yaml
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel

CELLS = sorted(file.stem for file in paths.shared("config", "cells").glob("*.yaml"))
EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
RIG = paths.shared("config", "cameras", "four_d415.yaml")


@pytest.mark.parametrize("name", CELLS)
def test_project_cells_load(name: str) -> None:
    cell = load_cell(name)
    assert (cell.name, cell.reference) == (name, name)
    assert bool(cell.simulator) == name.startswith("sim_") == (cell.driver is None)
    if cell.driver is not None:
        assert cell.driver.gripper in (None, cell.robot.gripper)
        assert set(cell.views) <= set(cell.camera_devices)


def test_real_cells_of_each_driver_exist() -> None:
    driven = {(cell.driver.kind, cell.driver.arm, cell.robot.gripper) for cell in map(load_cell, CELLS) if cell.driver}
    grippers = ("robotiq_2f140", "franka_hand")
    expected = {("franka_ros2", arm, gripper) for arm in ("crisp", "gello", "jtc") for gripper in grippers}
    expected |= {("franka_arm", None, gripper) for gripper in grippers}
    assert driven == expected | {("external", "multipanda", "robotiq_2f140")}


def test_user_cell_references_files_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rig.yaml").write_text(RIG.read_text("utf-8").replace("640x480", "256x256"))
    (tmp_path / "poses").mkdir()
    for file in paths.shared("calibration", "sim").glob("*.yaml"):
        (tmp_path / "poses" / file.name).write_text(file.read_text("utf-8"))
    (tmp_path / "arm.yaml").write_text(paths.shared("config", "robots", "fr3.yaml").read_text("utf-8"))
    file = write_cell(tmp_path, "fr3_crisp", robot="arm.yaml", cameras="rig.yaml", calibration="poses")
    monkeypatch.chdir(tmp_path.parent)
    cell = load_cell(file)
    assert cell.camera_devices["front"].width == 256 and cell.calibrated and cell.robot.name == "fr3"
    assert list(cell.load_cameras()) == list(cell.views)
    assert load_cell(cell.reference).robot_reference == str(tmp_path / "arm.yaml")
    moved = load_cell(file).with_robot_ip("robot.here")
    assert moved.driver is not None and moved.driver.robot_ip == "robot.here"


@pytest.mark.parametrize(
    ("of", "changes", "expected"),
    [
        ("sim_panda", {"robot": "r2d2"}, "r2d2"),
        ("sim_panda", {"views": []}, "views: "),
        ("sim_panda", {"views": list("abcdefg")}, "views: "),
        ("sim_panda", {"views": ["wrist", "wrist"]}, "views: .*different"),
        ("sim_panda", {"views": ["left-shoulder"]}, "left-shoulder"),
        ("sim_panda", {"simulator": None}, "either a simulator or a driver"),
        ("sim_panda", {"cameras": "four_d415"}, "cameras belong to a driver"),
        ("sim_panda", {"guard": {"rate": 1000.0}}, "guard.rate"),
        ("sim_panda", {"guard": {"speed": 1.0}}, "guard.speed"),
        ("sim_panda", {"colour": "red"}, "colour"),
        ("fr3_crisp", {"scene": "rlbench"}, "scene belongs to a simulator"),
        ("fr3_crisp", {"depth": True}, "depth belongs to a simulator; name the depth_profile of real cameras"),
        ("fr3_crisp", {"calibration": None}, "calibration missing"),
        ("fr3_crisp", {"views": ["front", "ceiling"]}, "views: ceiling not in cameras four_d415"),
        ("fr3_crisp", {"driver": {"arm": "position"}}, "position"),
        ("fr3_crisp", {"driver": {"kind": "franka_arm"}}, "kind: franka_arm alone has none"),
        ("fr3_crisp", {"driver": {"robot_ip": "a b"}}, "driver.robot_ip"),
        ("fr3_own_driver", {"robot": "fr3"}, "our own driver drives a franka_hand, the robot has a robotiq_2f140"),
    ],
)
def test_invalid_cells_are_one_line_errors(tmp_path: Path, of: str, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(GenimaError, match=expected) as error:
        load_cell(write_cell(tmp_path, of, **changes))
    assert "\n" not in str(error.value) and "cell_0.yaml" in str(error.value)


def test_unknown_cell_is_reported() -> None:
    with pytest.raises(GenimaError, match="nobody.yaml not found"):
        load_cell("nobody")


@pytest.mark.parametrize("name", ["sim_panda", "fr3_crisp"])
def test_damaged_file_is_rejected_or_read(tmp_path: Path, name: str) -> None:
    data = parse_yaml(paths.shared("config", "cells", f"{name}.yaml").read_text("utf-8"), "cell")
    for mutated in mutated_data(data, 150):
        file = tmp_path / "mutated.yaml"
        file.write_text(yaml.safe_dump(mutated), "utf-8")
        require_clean(partial(load_cell, file), mutated)


# ------------------------------------------------------------------------------------------------------ policies


def test_bundled_policy_fits_its_cell(spec: PolicySpec) -> None:
    load_cell("sim_panda").require_policy(spec, "the checkpoint")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("sim_fr3", "the checkpoint was trained for joints .*panda_joint1.*fr3_joint1"),
        ("sim_rlbench", "the checkpoint was trained with a robotiq_2f140, not the franka_hand"),
    ],
)
def test_policy_of_another_robot_is_rejected(spec: PolicySpec, cell: str, expected: str) -> None:
    with pytest.raises(GenimaError, match=expected) as error:
        load_cell(cell).require_policy(spec, "the checkpoint")
    assert "\n" not in str(error.value)


def test_policy_of_other_views_or_images_is_rejected(spec: PolicySpec) -> None:
    cell = load_cell("sim_panda")
    with pytest.raises(GenimaError, match="takes the view left_shoulder; cell sim_panda has wrist, front"):
        replace(cell, views=("wrist", "front", "right_shoulder")).require_policy(spec, "the checkpoint")
    with pytest.raises(GenimaError, match="takes images of 640x480; wrist of cell sim_panda has 256x256"):
        cell.require_policy(replace(spec, camera_size=(640, 480)), "the checkpoint")
    with pytest.raises(GenimaError, match=r"no calibration \(nowhere\)"):
        replace(cell, calibration="nowhere").require_policy(spec, "the checkpoint")
    cell.require_policy(replace(spec, views=("front", "virtual")), "the checkpoint")


def test_policy_that_requires_depth_needs_the_field(spec: PolicySpec, tmp_path: Path) -> None:
    spec = replace(spec, requires_depth=True)
    load_cell("sim_panda").require_policy(spec, "the checkpoint")
    line = r"the checkpoint takes depth images; cell cell_0 has none; set depth: true in its file, where its simulator"
    with pytest.raises(GenimaError, match=line):
        load_cell(write_cell(tmp_path, "sim_panda", depth=None)).require_policy(spec, "the checkpoint")
    rig = yaml.safe_load(RIG.read_text("utf-8"))
    for view, entry in rig.items():
        entry |= {"profile": "256x256x30"} | ({} if view == "wrist" else {"depth_profile": "640x480x30"})
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(rig))
    cell = load_cell(write_cell(tmp_path, "fr3_crisp", robot="panda", cameras="rig.yaml", calibration="sim",
                                driver={"kind": "external", "arm": "multipanda"}))  # fmt: skip
    with pytest.raises(GenimaError, match="images; wrist of cell cell_1 has none; set depth_profile of the view in"):
        cell.require_policy(spec, "the checkpoint")
    cell.require_policy(replace(spec, views=("front", "left_shoulder")), "the checkpoint")


def test_episode_robot_is_compared_with_cell() -> None:
    assert load_cell("sim_fr3").has_robot(RobotModel.load("fr3"))
    assert not load_cell("sim_panda").has_robot(RobotModel.load("fr3"))
    assert not load_cell("sim_panda").has_robot(RobotModel.load("panda_franka_hand"))


# ---------------------------------------------------------------------------------------------- an arm by files alone


def test_ur5e_kinematics_match_manufacturer() -> None:
    """Zero and upright positions of the maker's DH parameters: x = a2 + a3, y = -(d4 + d6), z = d1 - d5."""
    cell = load_cell(EXAMPLES / "ur5e_cell.yaml")
    assert len(cell.robot.joint_names) == 6 and cell.arm_backend is not None and cell.views == ("wrist", "front")
    flange = cell.robot.link_poses(np.zeros(6))[-2, :3, 3]
    np.testing.assert_allclose(flange, [-0.8172, -0.2329, 0.0628], atol=1e-6)
    upright = cell.robot.link_poses(np.array([0, -np.pi / 2, 0, -np.pi / 2, 0, 0]))[-2, :3, 3]
    np.testing.assert_allclose(upright, [0, -0.2329, 0.1625 + 0.8172 + 0.0997], atol=1e-6)
