"""Policy that replays the recorded commands of an episode, for graphs without a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from genima.control.jerk_limited_motion import minimum_jerk
from genima.control.joint_trajectory import JointTrajectory
from genima.data.episodes import Episode
from genima.errors import GenimaError
from genima.policy.registry import PolicyOptions
from genima.policy.spec import PolicySpec
from genima.policy.trajectory_policy import TrajectoryPolicy
from genima.robot.model import RobotModel
from genima.types import Observation

_APPROACH_VELOCITY = 0.5  # rad/s, mean of the joint that moves furthest to the episode's start
_APPROACH_STEP = 0.05  # s


def load(options: PolicyOptions) -> TrajectoryPolicy:
    """Load the episode to replay.

    Raises:
        GenimaError: when there is none, it cannot be read, or it is of another robot.
    """
    if not options.episode:
        raise GenimaError("policy replay: no episode; name the folder of one with --episode")
    robot = RobotModel.load(options.robot)
    episode = Episode.load(Path(options.episode), robot)
    episode.require_robot(robot)
    spec = PolicySpec(robot.name, robot.joint_names, options.views)
    return TrajectoryPolicy(spec, lambda observation: trajectory(episode, observation))


def trajectory(episode: Episode, observation: Observation) -> JointTrajectory:
    """Return a minimum-jerk motion from the observed joints to the episode's start, then its commands."""
    start, first = observation.joints.positions, episode.command_positions[0]
    seconds = float(np.max(np.abs(first - start))) / _APPROACH_VELOCITY
    steps = max(1, round(seconds / _APPROACH_STEP))
    approach = [start + minimum_jerk(k / steps) * (first - start) for k in range(steps)]
    times = _APPROACH_STEP * np.arange(steps)
    return JointTrajectory(
        np.concatenate([times, steps * _APPROACH_STEP + episode.stamps - episode.stamps[0]]),
        np.concatenate([np.array(approach), episode.command_positions]),
        np.concatenate([np.full(steps, episode.command_gripper[0]), episode.command_gripper]),
    )
