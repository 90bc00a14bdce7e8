"""Planner between keyposes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genima.control.limit_violations import largest_excess
from genima.policy.keypose_planner import GRIPPER_SECONDS, KeyposePlanner
from genima.robot.ik import UnreachableError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import apply_twist, pose_distance
from genima.types import Joints


@pytest.fixture(scope="module")
def planner() -> KeyposePlanner:
    return KeyposePlanner(RobotModel.load("panda"))


def moved(T: np.ndarray, by: tuple[float, float, float], turn: float = 0.0) -> np.ndarray:
    goal = apply_twist(T, np.array([0, 0, 0, 0, 0, turn]))
    goal[:3, 3] += by
    return goal


@pytest.mark.parametrize(("opens", "by"), [(False, (0.1, 0.05, -0.15)), (True, (0.0, -0.2, 0.0))])
def test_tip_moves_straight_to_the_keypose_and_then_the_gripper(
    planner: KeyposePlanner, robot: RobotModel, opens: bool, by: tuple[float, float, float]
) -> None:
    start = Joints(0.0, robot.home, 1.0)
    here = robot.link_poses(robot.home)[-1]
    goal = moved(here, by, 0.4)
    motion = planner.plan(start, True, goal, opens)
    times = np.arange(0, motion.seconds, 0.05)
    positions, _, gripper = (np.array(part) for part in zip(*(motion.at(t) for t in times), strict=True))
    np.testing.assert_allclose(positions[0], robot.home, atol=1e-9)
    metres, angle = pose_distance(robot.link_poses(positions[-1])[-1], goal)
    assert metres < 1e-3 and angle < 5e-3
    assert largest_excess(times, positions, robot) < 1
    tips = robot.link_poses(positions)[:, -1, :3, 3] - here[:3, 3]
    along = np.array(by) / np.linalg.norm(by)
    assert np.linalg.norm(tips - (tips @ along)[:, None] * along, axis=1).max() < 3e-3  # m beside the line
    still = np.abs(positions - positions[-1]).max(axis=1) < 1e-6
    changed = gripper != gripper[0]
    assert changed.any() == (not opens) and still[changed].all()
    assert opens or changed.sum() >= GRIPPER_SECONDS / 0.05 - 1


def test_half_turn_of_the_gripper_is_taken_where_it_is_nearer(planner: KeyposePlanner, robot: RobotModel) -> None:
    start = Joints(0.0, robot.home, 1.0)
    here = robot.link_poses(robot.home)[-1]
    motion = planner.plan(start, True, moved(here, (0.0, 0.0, -0.1), 2.9), True)
    end = robot.link_poses(motion.at(motion.seconds)[0])[-1]
    assert pose_distance(end, moved(here, (0.0, 0.0, -0.1), 2.9 - np.pi))[1] < 5e-3


def test_pose_out_of_reach_is_named(planner: KeyposePlanner, robot: RobotModel) -> None:
    goal = np.eye(4)
    goal[:3, :3], goal[:3, 3] = Rotation.from_euler("x", np.pi).as_matrix(), [1.5, 0.0, 0.3]
    with pytest.raises(UnreachableError, match="tip pose: out of reach"):
        planner.plan(Joints(0.0, robot.home, 1.0), True, goal, True)


def test_holding_stays(planner: KeyposePlanner, robot: RobotModel) -> None:
    motion = planner.hold(Joints(0.0, robot.home, 0.0), False)
    for t in np.linspace(0, motion.seconds, 5):
        np.testing.assert_allclose(motion.at(t)[0], robot.home)
        assert motion.at(t)[2] == 0
