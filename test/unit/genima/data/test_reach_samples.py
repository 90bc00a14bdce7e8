"""Tests of reach samples: they cover the reachable configurations only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import pytest

from genima.cameras.camera import Camera
from genima.control.chunk_stream import ACCELERATION, VELOCITY
from genima.data.datasets.backgrounds import Backgrounds
from genima.data.datasets.chunk_samples import joint_statistics
from genima.data.datasets.controller_samples import ControllerDataset
from genima.data.datasets.reach_samples import reach_samples
from genima.data.datasets.sample_index import SampleIndex, TargetSamples
from genima.io import paths
from genima.policy import spec as checkpoint
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel

K, PERIOD, COUNT = 20, 0.05, 2000


@pytest.fixture(scope="module")
def moments(robot: RobotModel) -> TargetSamples:
    return reach_samples(robot, K, PERIOD, COUNT, seed=3)


def tips(robot: RobotModel, positions: np.ndarray) -> np.ndarray:
    return robot.link_poses(positions)[..., -1, :3, 3]


def test_joints_are_within_limits_and_arm_above_table(moments: TargetSamples, robot: RobotModel) -> None:
    assert len(moments) == COUNT
    joints = np.concatenate([moments.positions[:, None], moments.actions, moments.target[:, None]], axis=1)
    assert np.all(joints >= robot.position_min) and np.all(joints <= robot.position_max)
    for positions in (moments.positions, moments.target):
        assert robot.link_poses(positions)[..., 2, 3].min() > 0
        tip = tips(robot, positions)
        assert np.all(np.abs(tip[:, 1]) < tip[:, 0]) and np.hypot(tip[:, 0], tip[:, 1]).min() > 0.3
        assert tip[:, 2].max() < 0.8


def test_chunk_ends_at_target_within_limits(moments: TargetSamples, robot: RobotModel) -> None:
    np.testing.assert_allclose(moments.actions[:, -1], moments.target, atol=1e-12)
    path = np.concatenate([moments.positions[:, None], moments.actions], axis=1)
    speed = np.abs(np.diff(path, axis=1)) / PERIOD
    change = np.abs(np.diff(path, 2, axis=1)) / PERIOD**2
    assert np.all(speed <= VELOCITY * robot.velocity_max) and np.all(change <= ACCELERATION * robot.acceleration_max)
    used = np.maximum(
        (speed / (VELOCITY * robot.velocity_max)).max((0, 1)),
        (change / (ACCELERATION * robot.acceleration_max)).max((0, 1)),
    )
    assert np.all(used > 0.85)  # of every joint: targets are as far as that allows
    assert speed[:, 0].max() < 0.1 and speed[:, -1].max() < 0.1  # rad/s; from rest to rest


def test_reach_samples_have_short_and_long_motions(moments: TargetSamples) -> None:
    way = np.abs(moments.target - moments.positions).max(axis=1)
    shares, _ = np.histogram(way / way.max(), bins=4, range=(0, 1))
    assert shares.min() > 0.05 * COUNT


def test_reach_samples_cover_workspace(moments: TargetSamples, robot: RobotModel) -> None:
    demos = checkpoint.read(paths.shared("models", "tiny", "controller"), checkpoint.CONTROLLER)[1]["joint_deviation"]
    assert np.all(joint_statistics(moments).deviation > 1.5 * np.array(demos))
    reached = (moments.positions - robot.position_min) / (robot.position_max - robot.position_min)
    assert np.all(np.ptp(reached, axis=0) > 0.8)
    tip = tips(robot, moments.target)
    assert np.all(np.ptp(tip, axis=0) > [0.7, 1.0, 0.7])  # m


def test_gripper_and_instructions_are_of_all_kinds(moments: TargetSamples, robot: RobotModel) -> None:
    assert moments.instructions == ["reach"]
    for before in (0, 1):
        for after in (False, True):
            assert ((moments.gripper == before) & (moments.target_open == after)).mean() > 0.2
    np.testing.assert_array_equal(moments.action_gripper, np.tile(moments.target_open[:, None], K))
    given = ["open the drawer", "pick up the cup"]
    assert reach_samples(robot, K, PERIOD, 50, 0, given).instructions == given


def test_reach_samples_follow_seed(moments: TargetSamples, robot: RobotModel) -> None:
    again, other = (reach_samples(robot, K, PERIOD, COUNT, seed) for seed in (3, 4))
    for field in fields(TargetSamples):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(moments, field.name))
    assert (other.positions != moments.positions).all()


def test_controller_trains_on_reach_samples(
    moments: TargetSamples, robot: RobotModel, cameras: Mapping[str, Camera], spec: PolicySpec
) -> None:
    dataset = ControllerDataset(moments, robot, cameras, spec, joint_statistics(moments), Backgrounds())
    assert len(np.unique(moments.episode)) == len(dataset) == COUNT
    sample = dataset[SampleIndex(7, 0)]
    assert sample.actions.shape == (K, 8) and not sample.padding.any() and sample.instruction == "reach"
