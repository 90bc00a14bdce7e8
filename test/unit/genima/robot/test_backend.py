"""Tests of controller and gripper files: the bundled ones, and rejected ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from genima.errors import GenimaError
from genima.io import paths
from genima.robot.backend import ArmBackend, GripperAction, GripperBackend, TargetMessage
from genima.robot.model import RobotModel

FR3 = RobotModel.load("fr3")


@pytest.mark.parametrize(
    "name, message, keep_alive",
    [
        ("crisp", TargetMessage.JOINT_STATE, False),
        ("gello", TargetMessage.JOINT_STATE, True),
        ("jtc", TargetMessage.JOINT_TRAJECTORY, False),
        ("multipanda", TargetMessage.FLOAT64_ARRAY, False),
    ],
)
def test_shipped_controllers_load(name: str, message: TargetMessage, keep_alive: bool) -> None:
    backend = ArmBackend.load(name)
    assert (backend.name, backend.message, backend.keep_alive) == (name, message, keep_alive)
    assert backend.joint_names(FR3) == FR3.joint_names
    assert (backend.ahead > 0) == (message is TargetMessage.JOINT_TRAJECTORY)
    if backend.recovery is not None:
        assert backend.controller not in backend.recovery.broadcasters
    assert (backend.subscribes == backend.target) == (name != "gello")


@pytest.mark.parametrize("name", ["robotiq_2f140", "franka_hand"])
def test_shipped_grippers_load(name: str) -> None:
    backend = GripperBackend.load(name)
    fractions = np.linspace(0, 1, 7)
    there = [backend.fraction(backend.position(f)) for f in fractions]
    np.testing.assert_allclose(there, fractions, atol=1e-12)
    assert backend.fraction(backend.opened) == 1 and backend.fraction(backend.closed) == 0
    travel = backend.closed - backend.opened
    assert backend.fraction(backend.closed + 0.2 * travel) == 0  # a little beyond its stops
    for position in (backend.closed + 10 * travel, backend.opened - travel, float("nan"), float("inf")):
        with pytest.raises(GenimaError, match=f"{backend.joint}: outside its travel"):
            backend.fraction(position)


def test_every_shipped_backend_is_arm_or_gripper() -> None:
    for file in paths.shared("config", "backends").glob("*.yaml"):
        kind = ArmBackend if "target" in yaml.safe_load(file.read_text()) else GripperBackend
        assert kind.load(file).name == file.stem


@pytest.fixture
def changed(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A bundled file with fields replaced or, with None, removed."""

    def write(name: str, /, **fields: object) -> Path:
        data = yaml.safe_load(paths.shared("config", "backends", f"{name}.yaml").read_text()) | fields
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({key: value for key, value in data.items() if value is not None}))
        return file

    return write


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"target": None}, "target: Field required"),
        ({"velocites": True}, "velocites: Extra inputs"),
        ({"ahead": 0.1}, "ahead applies only to message: joint_trajectory"),
        ({"message": "twist"}, "message: Input should be 'joint_state', 'joint_trajectory' or 'float64_array'"),
        ({"velocities": "yes"}, "velocities: Input should be a valid boolean .'yes'."),
        ({"states": 7}, "states: Input should be a valid string .7."),
        ({"target": "my target"}, "target: ROS does not allow the name"),
        ({"name": "mine"}, "the name of its file"),
        ({"joints": ["a", "a"]}, "joints: names must be unique"),
        ({"recovery": "by hand"}, "recovery: Input should be a valid dictionary"),
        ({"recovery": {"action": "a"}}, "recovery.state: Field required"),
    ],
)
def test_invalid_controller_is_one_line_error(changed, fields: dict[str, object], expected: str) -> None:
    with pytest.raises(GenimaError, match=expected) as caught:
        ArmBackend.load(changed("crisp", **fields))
    assert "crisp.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"closed": 0.0}, "open and closed must differ"),
        ({"effort": -1.0}, "effort: Input should be greater than 0"),
        ({"open": float("nan")}, "open: Input should be a finite number"),
        ({"open": 85.0}, "open: Input should be less than"),  # mm
        ({"kind": "control_msgs/action/Grip"}, "kind: Input should be 'auto'"),
        ({"speed": 0.1}, "speed applies only to kind: franka_msgs"),
    ],
)
def test_invalid_gripper_is_one_line_error(changed, fields: dict[str, object], expected: str) -> None:
    with pytest.raises(GenimaError, match=expected):
        GripperBackend.load(changed("robotiq_2f140", **fields))


def test_missing_and_malformed_files_are_errors(tmp_path: Path, changed) -> None:
    for text, expected in (("a: [", "not YAML"), ("- a", "valid dictionary"), ("", "valid dictionary")):
        file = tmp_path / "bad.yaml"
        file.write_text(text)
        with pytest.raises(GenimaError, match=expected):
            ArmBackend.load(file)
    with pytest.raises(GenimaError, match="does not exist"):
        GripperBackend.load(tmp_path / "none.yaml")
    with pytest.raises(GenimaError, match="nosuch"):
        ArmBackend.load("nosuch")
    humble = GripperBackend.load(changed("robotiq_2f140", kind=GripperAction.POSITION.value))
    assert humble.kind is GripperAction.POSITION


def test_driver_may_have_other_joint_names(changed) -> None:
    names = [f"left_{name}" for name in FR3.joint_names]
    assert ArmBackend.load(changed("crisp", joints=names)).joint_names(FR3) == tuple(names)
    with pytest.raises(GenimaError, match=r"wrong number of joints \(6\); fr3 has 7"):
        ArmBackend.load(changed("crisp", joints=names[:6])).joint_names(FR3)
