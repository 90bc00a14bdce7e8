"""Tests of the robot model: kinematics against Pinocchio and MuJoCo, joints by name, inverse kinematics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pinocchio
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from genima.control.collision import SelfCollision
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.backend import GripperBackend
from genima.robot.body import arm_only_model, finger_ratios, robot_spec
from genima.robot.ik import InverseKinematics
from genima.robot.model import RobotModel
from genima_sim.simulation import Simulation

PANDA = RobotModel.load("panda")
ROBOTS = sorted(file.stem for file in paths.shared("config", "robots").glob("*.yaml"))
NAMES = (*PANDA.joint_names, PANDA.gripper_joint)


def random_positions(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.uniform(PANDA.position_min, PANDA.position_max, (*shape, len(PANDA.joint_names)))


@pytest.mark.parametrize("name", ROBOTS)
def test_link_poses_match_pinocchio(name: str) -> None:
    robot, model = RobotModel.load(name), pinocchio.Model()
    last = 0
    for a, d, alpha in robot.dh:
        turned = pinocchio.SE3(pinocchio.utils.rotate("x", alpha), np.zeros(3))
        placement = turned * pinocchio.SE3(np.eye(3), np.array([a, 0, d]))
        last = model.addJoint(last, pinocchio.JointModelRZ(), placement, f"joint{last + 1}")
    tip = pinocchio.SE3(np.eye(3), np.array([0, 0, robot.flange_offset]) + robot.T_flange_tip[:3, 3])
    model.addFrame(pinocchio.Frame("tip", last, 0, tip, pinocchio.FrameType.OP_FRAME))
    data = model.createData()
    for positions in random_positions(np.random.default_rng(0), 50):
        pinocchio.framesForwardKinematics(model, data, positions)
        expected = [*(data.oMi[i + 1].homogeneous for i in range(model.njoints - 1)), data.oMf[-1].homogeneous]
        np.testing.assert_allclose(robot.link_poses(positions)[[*range(7), -1]], expected, atol=1e-12)


@pytest.mark.parametrize("arm", ["panda", "fr3"])
def test_franka_hand_tip_is_between_fingertips(arm: str) -> None:
    robot, other = RobotModel.load(f"{arm}_franka_hand"), RobotModel.load(arm)
    assert (robot.arm, robot.joint_names) == (arm, other.joint_names)
    for limits in ("position_min", "position_max", "velocity_max", "acceleration_max", "jerk_max", "home", "dh"):
        np.testing.assert_array_equal(getattr(robot, limits), getattr(other, limits))
    assert (robot.braking is None) == (other.braking is None)
    assert robot.gripper_position(1.0) == GripperBackend.load("franka_hand").opened == 0.04  # m: a width of 80 mm
    assert robot.gripper_position(0.0) == 0.0 and robot.open_fraction(0.01) == pytest.approx(0.25)
    assert robot.open_fraction(0.05) == 1.0 and robot.open_fraction(-0.01) == 0.0  # a little beyond its stops

    model = robot_spec(robot).compile()
    data = mujoco.MjData(model)
    for opened in (0.0, 0.5, 1.0):
        for joint, ratio in finger_ratios(robot).items():
            data.joint(joint).qpos[:] = ratio * robot.gripper_position(opened)
        mujoco.mj_kinematics(model, data)
        left, right = (data.body(f"gripper_{side}finger").xpos for side in ("left", "right"))
        assert np.linalg.norm(left - right) == pytest.approx(0.08 * opened, abs=1e-6)
        before = data.site("tip").xmat.reshape(3, 3).T @ (data.site("tip").xpos - (left + right) / 2)
        np.testing.assert_allclose(before[:2], 0, atol=1e-6)  # the tip is between them
    assert SelfCollision(robot).depth(robot.home) == 0


def test_gripper_without_meshes_is_reported_in_error(tmp_path: Path) -> None:
    data = yaml.safe_load(paths.shared("config", "robots", "fr3_franka_hand.yaml").read_text())
    data["gripper"]["model"] = "suction"
    file = tmp_path / "fr3_suction.yaml"
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(GenimaError, match="no meshes for its gripper .suction"):
        robot_spec(RobotModel.load(file))


def test_unknown_arm_is_reported_in_error(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\narm: fr4\n")
    with pytest.raises(GenimaError, match="fr4"):
        RobotModel.load(file)


def test_link_poses_match_simulation(simulation: Simulation) -> None:
    model, data = simulation.model, mujoco.MjData(simulation.model)
    for positions in random_positions(np.random.default_rng(1), 20):
        for name, position in zip(PANDA.joint_names, positions, strict=True):
            data.joint(name).qpos[0] = position
        mujoco.mj_kinematics(model, data)
        poses = PANDA.link_poses(positions)
        for i in range(7):
            link = data.body(f"link{i + 1}")
            np.testing.assert_allclose(poses[i, :3, 3], link.xpos, atol=1e-8)
            np.testing.assert_allclose(poses[i, :3, :3], link.xmat.reshape(3, 3), atol=1e-8)
        for pose, site in zip(poses[7:], ("flange", "tip"), strict=True):
            np.testing.assert_allclose(pose[:3, 3], data.site(site).xpos, atol=1e-8)


def test_link_poses_of_batch_match_single_poses() -> None:
    batch = random_positions(np.random.default_rng(2), 3, 4)
    poses = PANDA.link_poses(batch)
    assert poses.shape == (3, 4, 9, 4, 4)
    for index in np.ndindex(3, 4):
        np.testing.assert_array_equal(poses[index], PANDA.link_poses(batch[index]))


def test_limits_follow_joint_order() -> None:
    for array in (PANDA.velocity_max, PANDA.acceleration_max, PANDA.jerk_max):
        assert array.shape == (7,) and np.all(array > 0)
    assert np.all(PANDA.position_min < PANDA.home) and np.all(PANDA.home < PANDA.position_max)


@given(st.permutations([*NAMES, "some_other_joint"]), st.integers(0, 2**32 - 1))
def test_joints_are_matched_by_name_in_any_order(order: list[str], seed: int) -> None:
    value = dict(zip([*NAMES, "some_other_joint"], np.random.default_rng(seed).normal(size=9), strict=True))
    positions, gripper = PANDA.select_joints(order, [value[name] for name in order])
    assert positions.tolist() == [value[name] for name in PANDA.joint_names]
    assert gripper == value[PANDA.gripper_joint]


@given(st.floats(0, 1))
def test_gripper_position_matches_driver(fraction: float) -> None:
    assert abs(PANDA.open_fraction(PANDA.gripper_position(fraction)) - fraction) < 1e-12
    assert PANDA.gripper_position(1.0) == 0.0 and PANDA.gripper_position(0.0) == 0.7
    assert PANDA.open_fraction(0.8) == 0.0 and PANDA.open_fraction(-0.1) == 1.0  # a little beyond its stops


@pytest.mark.parametrize("position", [40.0, -0.3, 1.0, float("nan"), float("-inf")])
def test_gripper_position_in_wrong_unit_is_rejected(position: float) -> None:
    with pytest.raises(GenimaError, match=r"finger_joint: outside its travel \(.*, 0.7 closed .. 0 open\)"):
        PANDA.open_fraction(position)


@pytest.mark.parametrize(
    "beyond, expected",
    [
        *((None, ""), (0.1, ""), (0.3, "is the robot a panda"), (np.nan, "is the robot a panda")),
        *((90.0, "are these degrees"), (-90.0, "are these degrees")),
    ],
)
def test_measured_joints_far_outside_range_are_rejected(beyond: float | None, expected: str) -> None:
    positions = PANDA.home.copy()
    if beyond is not None:
        positions[5] = PANDA.position_max[5] + beyond
    if not expected:
        PANDA.require_in_range(positions)
        return
    with pytest.raises(GenimaError, match=rf"panda_joint6: outside its range -0.02 .. 3.75 \(.* rad\); {expected}"):
        PANDA.require_in_range(positions)


@pytest.mark.parametrize("culprit", NAMES)
def test_invalid_joint_is_reported_in_error(culprit: str) -> None:
    values = [0.1] * len(NAMES)
    without = [name for name in NAMES if name != culprit]
    with pytest.raises(GenimaError, match=rf"joints missing \({culprit}"):
        PANDA.select_joints(without, values[1:])
    with pytest.raises(GenimaError, match=f"duplicate.*{culprit}"):
        PANDA.select_joints([*NAMES, culprit], [*values, 0.1])
    for bad in (np.nan, np.inf):
        with pytest.raises(GenimaError, match=rf"not finite \({culprit}\)$"):
            PANDA.select_joints(NAMES, [bad if name == culprit else 0.1 for name in NAMES])


def test_names_without_values_are_rejected() -> None:
    with pytest.raises(GenimaError, match="8 names, 7 values"):
        PANDA.select_joints(NAMES, [0.0] * 7)
    with pytest.raises(GenimaError, match="no joints"):
        PANDA.select_joints([], [])


def _without_limit(data: Any) -> None:
    del data["joints"][3]["velocity"]


def _word_for_number(data: Any) -> None:
    data["joints"][0]["min"] = "a lot"


def _no_joints(data: Any) -> None:
    data["joints"] = None


def _flat_tip(data: Any) -> None:
    data["gripper"]["tip_in_flange"] = [0.0, 0.2]


def _no_gripper(data: Any) -> None:
    del data["gripper"]


def _set(joint: int, **fields: Any) -> Callable[[Any], None]:
    return lambda data: data["joints"][joint].update(fields)


@pytest.mark.parametrize(
    "damage, expected",
    [
        (_set(2, min=3.0), "panda_joint3: home must lie between min and max"),
        (_set(0, home=-2.9), "panda_joint1: home must lie between min and max"),
        (_set(6, velocity=0), "joints.6.velocity: Input should be greater than or equal to 0.001 (0)"),
        (_set(1, jerk=float("inf")), "joints.1.jerk: Input should be a finite number"),
        (_set(5, d=float("nan")), "joints.5.d: Input should be a finite number"),
        (_set(3, name="panda_joint1"), "duplicate joint names"),
        (_set(0, braking={"deceleration": 0, "offset": 0, "min": -3, "max": 3}), "joints.0.braking.deceleration"),
        (_set(0, braking={"deceleration": 6, "offset": 9, "min": -3, "max": 3}), "allow motion at home"),
        (_set(0, max=166), "joints.0.max: Input should be less than or equal to 12.56"),  # degrees
        (_set(0, velocity=150), "joints.0.velocity: Input should be less than or equal to 50"),
        (_set(0, name=1), "joints.0.name: Input should be a valid string (1)"),
        (_set(0, name="a b"), "joints.0.name"),
        (_set(0, speed=1), "joints.0.speed: Extra inputs"),
        (lambda data: data["gripper"].update(open=85), "gripper.open: Input should be less than"),  # mm
        (lambda data: data.update(arm="fr3"), "joints and flange_offset given together with arm"),
        (lambda data: data.pop("flange_offset"), "flange_offset missing"),
        (
            lambda data: (data.pop("joints"), data.pop("flange_offset"), data.update(arm="fr3_franka_hand")),
            "arm has no joints (fr3_franka_hand)",
        ),
        (_set(0, braking={"deceleration": 6, "offset": 0.3, "min": -2, "max": 3}), "at every position of the range"),
        (lambda data: data["gripper"].update(closed=0), "open and closed of the gripper must differ"),
        (lambda data: data["gripper"].update(open=float("inf")), "gripper.open: Input should be a finite number"),
    ],
)
def test_invalid_robot_fields_are_rejected(tmp_path: Path, damage: Callable[[Any], None], expected: str) -> None:
    data = yaml.safe_load(paths.shared("config", "robots", "panda.yaml").read_text())
    damage(data)
    assert expected in _error_line(tmp_path, yaml.safe_dump(data))


@pytest.mark.parametrize("name", ROBOTS)
def test_every_shipped_robot_loads_and_cites_its_limits(name: str) -> None:
    robot = RobotModel.load(name)
    assert robot.name == name and robot.arm in ROBOTS
    assert "# Limits: " in paths.shared("config", "robots", f"{name}.yaml").read_text()
    low, high = robot.velocity_limits(robot.home)
    assert np.all(low < 0) and np.all(high > 0)


def test_fr3_velocity_limits_decrease_as_specified() -> None:
    """Figures of libfranka's rate limiting for the FR3, joint 1: min(2.62, -0.30 + sqrt(12 (2.75010 - q)))."""
    fr3 = RobotModel.load("fr3")
    q = np.tile(fr3.home, (200, 1))
    q[:, 0] = np.linspace(fr3.position_min[0], fr3.position_max[0], 200)
    low, high = fr3.velocity_limits(q)
    np.testing.assert_allclose(high[:, 0], np.clip(-0.30 + np.sqrt(12.0 * (2.75010 - q[:, 0])), 0, 2.62))
    np.testing.assert_allclose(low[:, 0], -np.clip(-0.30 + np.sqrt(12.0 * (2.75010 + q[:, 0])), 0, 2.62))
    assert high[0, 0] == 2.62 and high[-1, 0] < 0.05


@pytest.mark.parametrize("damage", [_without_limit, _word_for_number, _no_joints, _flat_tip, _no_gripper])
def test_damaged_robot_file_is_one_line_error(tmp_path: Path, damage: Callable[[Any], None]) -> None:
    data = yaml.safe_load(paths.shared("config", "robots", "panda.yaml").read_text())
    damage(data)
    _error_line(tmp_path, yaml.safe_dump(data))


@pytest.mark.parametrize("text", ["", "just a sentence", "[1, 2", "joints: {a: 1}\n\tb", "\0"])
def test_other_file_is_one_line_error(tmp_path: Path, text: str) -> None:
    _error_line(tmp_path, text)


def _error_line(folder: Path, text: str) -> str:
    file = folder / "arm.yaml"
    file.write_text(text)
    with pytest.raises(GenimaError) as caught:
        RobotModel.load(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert " object at 0x" not in str(caught.value)
    return str(caught.value)


def test_missing_robots_are_reported_in_error(tmp_path: Path) -> None:
    for name in ("panda2", tmp_path / "none.yaml", tmp_path):
        with pytest.raises(GenimaError, match=Path(name).name):
            RobotModel.load(name)


@pytest.fixture(scope="module")
def ik() -> InverseKinematics:
    return InverseKinematics(arm_only_model(PANDA), PANDA.home)


def test_inverse_kinematics_reaches_poses_within_limits(ik: InverseKinematics) -> None:
    rng = np.random.default_rng(3)
    lower, upper = PANDA.position_min, PANDA.position_max
    for _ in range(40):
        target = PANDA.link_poses(np.clip(PANDA.home + rng.uniform(-0.6, 0.6, 7), lower, upper))[-1]
        found = ik.solve(target, PANDA.home)
        reached = PANDA.link_poses(found)[-1]
        np.testing.assert_allclose(reached[:3, 3], target[:3, 3], atol=2e-4)
        assert Rotation.from_matrix(reached[:3, :3].T @ target[:3, :3]).magnitude() < 1e-3
        assert np.all(found >= lower - 1e-6) and np.all(found <= upper + 1e-6)


def test_inverse_kinematics_does_not_depend_on_path(ik: InverseKinematics) -> None:
    rng = np.random.default_rng(4)
    for _ in range(60):
        T_base_tip = np.eye(4)
        T_base_tip[:3, :3] = Rotation.from_euler("xz", [np.pi, np.pi / 4 + rng.uniform(-0.5, 0.5)]).as_matrix()
        T_base_tip[:3, 3] = rng.uniform([0.36, -0.27, 0.05], [0.62, 0.27, 0.30])
        solutions = [ik.solve(T_base_tip, PANDA.home + rng.uniform(-0.25, 0.25, 7)) for _ in range(4)]
        np.testing.assert_allclose(solutions[1:], [solutions[0]] * 3, atol=2e-3)


def test_poses_out_of_reach_are_rejected(ik: InverseKinematics) -> None:
    for position in ([1.5, 0.0, 0.3], [0.0, 0.0, 3.0]):
        T_base_tip = np.diag([1.0, -1.0, -1.0, 1.0])
        T_base_tip[:3, 3] = position
        with pytest.raises(GenimaError, match="tip pose: out of reach"):
            ik.solve(T_base_tip, PANDA.home)


@pytest.mark.parametrize("file", sorted(paths.shared("config", "robots").glob("*.yaml")), ids=lambda file: file.stem)
def test_robot_model_round_trip(file: Path) -> None:
    model = RobotModel.load(file)
    again = RobotModel.parse(yaml.safe_dump(model.to_dict()), "robot model")
    assert again.to_dict() == model.to_dict() and again.arm == model.arm and again.has_kinematics(model)
    at = np.linspace(model.position_min, model.position_max, 9)
    np.testing.assert_array_equal(again.velocity_limits(at), model.velocity_limits(at))
    np.testing.assert_array_equal(again.link_poses(model.home), model.link_poses(model.home))
