"""Tests of mutated files of config/: each is loaded or rejected with one line; nothing is executed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mutation import mutated_bytes, mutated_data, require_clean

from genima.cameras import camera_devices
from genima.cameras.camera_devices import load_camera_devices
from genima.control.command_guard import CommandGuard
from genima.errors import GenimaError
from genima.io import files, paths
from genima.robot import backend
from genima.robot.backend import ArmBackend, GripperBackend
from genima.robot.model import RobotModel
from genima.system.ros_names import require_ros_name, require_topic
from genima.teleop.gamepad import Gamepad
from genima.teleop.leader_mapping import LeaderMapping
from genima_sim.coppeliasim.names import SceneNames

PANDA = RobotModel.load("panda")
LEADER = {
    "joints": [{"name": f"servo_{i}", "sign": -1, "scale": 1.5, "offset": 0.5} for i in range(6)] + ["servo_6"],
    "gripper": {"joint": "trigger", "closed": 0.0, "open": 0.04},
    "unwrap_at_start": True,
}


def load_robot(file: Path) -> None:
    """Require finite, positive limits of an accepted robot's guard."""
    robot = RobotModel.load(file)
    limits = CommandGuard(robot, 50)._motion.limits
    for each in (limits.velocity, limits.acceleration, limits.jerk, limits.position_max - limits.position_min):
        assert each.shape == (len(robot.joint_names),) and np.all(np.isfinite(each)) and np.all(each > 0)
    low, high = robot.velocity_limits(robot.home)
    assert np.all(np.isfinite([low, high])) and np.all(low < 0) and np.all(high > 0)
    assert np.all(np.isfinite(robot.link_poses(robot.home)))
    assert robot.open_fraction(robot.gripper_position(0.3)) == pytest.approx(0.3)


def load_arm_backend(file: Path) -> None:
    arm = ArmBackend.load(file)
    for name in (arm.states, arm.target, arm.subscribes):
        require_topic(name, "topic")
    assert 0 <= arm.ahead <= 1 and isinstance(arm.keep_alive, bool)


def load_gripper_backend(file: Path) -> None:
    gripper = GripperBackend.load(file)
    assert gripper.fraction(gripper.position(0.3)) == pytest.approx(0.3)
    assert 0 < gripper.effort <= 1000


def load_leader(file: Path) -> None:
    leader = LeaderMapping.load(file, PANDA)
    sample = leader.sample(0.0, leader.joint_names, [0.1] * len(leader.joint_names))
    assert sample.positions.shape == (7,) and np.all(np.isfinite(sample.positions))


def load_gamepad(file: Path) -> None:
    pad = Gamepad.load(file)
    speeds = pad.twist([1.0] * 256, [1] * 256)
    assert np.all(np.abs(speeds) <= [0.5, 0.5, 0.5, 1.5, 1.5, 1.5])


def load_cameras(file: Path) -> None:
    for view, device in load_camera_devices(file).items():
        require_ros_name(view, "view")
        assert 0 < device.width <= 16384 and 0 < device.height <= 16384 and 0 < device.rate <= 300


def load_scene(file: Path) -> None:
    names = SceneNames.load(file, PANDA)
    assert 0 < names.time_step <= 1 and names.cameras
    assert all(isinstance(text, str) for text in (names.file, names.script, *names.tasks, *names.tasks.values()))


def shipped(*parts: str) -> Any:
    return yaml.safe_load(paths.shared("config", *parts).read_text(encoding="utf-8"))


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[], Any]]] = {
    "robot": (load_robot, lambda: shipped("robots", "panda.yaml")),
    "robot with braking": (load_robot, lambda: shipped("robots", "fr3.yaml")),
    "robot of another's arm": (load_robot, lambda: shipped("robots", "fr3_franka_hand.yaml")),
    "arm backend": (load_arm_backend, lambda: shipped("backends", "crisp.yaml")),
    "trajectory backend": (load_arm_backend, lambda: shipped("backends", "jtc.yaml") | {"joints": ["a", "b"]}),
    "gripper backend": (load_gripper_backend, lambda: shipped("backends", "franka_hand.yaml")),
    "leader": (load_leader, lambda: LEADER),
    "gamepad": (load_gamepad, lambda: shipped("teleop", "gamepad.yaml")),
    "cameras": (load_cameras, lambda: shipped("cameras", "four_d415.yaml")),
    "scene": (load_scene, lambda: shipped("coppeliasim", "rlbench.yaml") | {"objects": {"lid": "/lid"}}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_values_are_read_or_rejected(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load without YAML, which takes most of the time."""
    load, valid = KINDS[kind]
    file, read, current = tmp_path / "mutated.yaml", files.read_yaml, [valid()]

    def read_mutated(path: Path, what: str) -> Any:
        return current[0] if path == file else read(path, what)

    monkeypatch.setattr(files, "read_yaml", read_mutated)
    for module in (backend, camera_devices):
        monkeypatch.setattr(module, "read_yaml", read_mutated)
    load(file)
    accepted = 0
    for data in mutated_data(valid(), 500, seed=len(kind)):
        current[0] = data
        accepted += require_clean(lambda: load(file), data)
    assert 0 < accepted < 300, "most mutations are wrong, and some are not"


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_bytes_are_read_or_rejected(kind: str, tmp_path: Path) -> None:
    load, valid = KINDS[kind]
    file = tmp_path / "mutated.yaml"
    text = yaml.safe_dump(valid(), default_flow_style=None).encode()
    for data in mutated_bytes(text, 15, seed=len(kind)):
        file.write_bytes(data)
        require_clean(lambda: load(file), data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/name:os.system", "!!binary"])
def test_nothing_in_file_is_executed(kind: str, tag: str, tmp_path: Path) -> None:
    load, valid = KINDS[kind]
    file, mark = tmp_path / "hostile.yaml", tmp_path / "mark"
    key = next(iter(valid()))
    text = yaml.safe_dump({other: value for other, value in valid().items() if other != key})
    file.write_text(f"{text}{key}: {tag} ['touch {mark}']\n", encoding="utf-8")
    with pytest.raises(GenimaError, match="not YAML"):
        load(file)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "../../../etc/passwd", "", ".yaml", "\x1b[31m"])
@pytest.mark.parametrize("load", [RobotModel.load, ArmBackend.load, GripperBackend.load, load_camera_devices])
def test_invalid_names_are_rejected_in_one_line(load: Callable[[str], Any], name: str) -> None:
    with pytest.raises(GenimaError) as rejected:
        load(name)
    assert len(str(rejected.value)) < 1500
