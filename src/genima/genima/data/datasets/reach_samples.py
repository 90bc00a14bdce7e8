"""Synthetic samples of reaching random configurations, to pre-train the controller.

The joints of demos cover a small part of the workspace; a controller trained on those alone fails to follow other
targets (GENIMA paper, appendix J, "Controller fails to follow targets").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genima.control.chunk_stream import ACCELERATION, VELOCITY
from genima.control.jerk_limited_motion import minimum_jerk
from genima.data.datasets.sample_index import TargetSamples
from genima.robot.model import RobotModel

_NEAREST, _HIGHEST = 0.3, 0.8  # m, of the tip from the base's axis and above the table: the cameras' workspace
# Peaks of a minimum-jerk path of length 1 in time 1 (Flash and Hogan, 1985).
_PEAK_VELOCITY, _PEAK_ACCELERATION = 15 / 8, 10 / np.sqrt(3)


def reach_samples(
    robot: RobotModel, horizon: int, period: float, count: int, seed: int, instructions: Sequence[str] = ("reach",)
) -> TargetSamples:
    """Return ``count`` samples, one episode each: a minimum-jerk chunk from a random start to a target within reach.

    Starts are uniform over the joint ranges, with the whole arm above the table and the tip in front of and not above
    the workspace. Targets are within the distance that the joints cover in ``horizon`` steps of ``period`` seconds at
    the velocity and acceleration limits of a chunk. The gripper is open or closed at random, before and after.
    """
    rng = np.random.default_rng(seed)
    n = len(robot.joint_names)
    farthest = reach(robot, horizon * period)
    start, target = np.empty((0, n)), np.empty((0, n))
    while len(start) < count:
        q = rng.uniform(robot.position_min, robot.position_max, (4 * count, n))
        motion = rng.uniform(-1, 1, (len(q), n)) * rng.uniform(0, 1, (len(q), 1)) * farthest
        fits = np.all((q + motion >= robot.position_min) & (q + motion <= robot.position_max), axis=1)
        q, motion = q[fits], motion[fits]
        fits = _in_workspace(robot, q) & _in_workspace(robot, q + motion)
        start, target = np.concatenate([start, q[fits]]), np.concatenate([target, (q + motion)[fits]])
    start, target = start[:count], target[:count]
    progress = minimum_jerk(np.arange(1, horizon + 1) / horizon)[:, None]
    target_open = rng.random(count) < 0.5
    return TargetSamples(
        episode=np.array([f"reach-{i:06d}" for i in range(count)]),
        instruction=rng.choice(list(instructions), count),
        positions=start,
        gripper=(rng.random(count) < 0.5).astype(float),
        target=target,
        target_open=target_open,
        actions=start[:, None] + progress * (target - start)[:, None],
        action_gripper=np.repeat(target_open[:, None].astype(float), horizon, axis=1),
        padding=np.zeros((count, horizon), bool),
    )


def reach(robot: RobotModel, duration: float) -> NDArray[np.float64]:
    """Return the largest motion (n,) in rad of each joint in ``duration`` seconds, minimum jerk, from rest to rest."""
    by_velocity = VELOCITY * robot.velocity_max * duration / _PEAK_VELOCITY
    by_acceleration = ACCELERATION * robot.acceleration_max * duration**2 / _PEAK_ACCELERATION
    return np.minimum(by_velocity, by_acceleration)


def _in_workspace(robot: RobotModel, positions: NDArray[np.float64]) -> NDArray[np.bool_]:
    points = robot.link_poses(positions)[..., :3, 3]
    tip = points[:, -1]
    above_table, in_front = points[..., 2].min(axis=-1) > 0, np.abs(tip[:, 1]) < tip[:, 0]  # by 45 degrees either way
    return above_table & in_front & (np.hypot(tip[:, 0], tip[:, 1]) > _NEAREST) & (tip[:, 2] < _HIGHEST)
