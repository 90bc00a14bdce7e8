"""Policy that follows joint trajectories without a model."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from genima.control.joint_trajectory import JointTrajectory
from genima.policy.spec import PolicySpec
from genima.types import ActionChunk, Observation


class TrajectoryPolicy:
    """Policy that plans a trajectory from a task's first observation and returns chunks of it by stamp."""

    def __init__(
        self, spec: PolicySpec, plan: Callable[[Observation], JointTrajectory], pause: float = math.inf
    ) -> None:
        """Args:
        spec: of the chunks.
        plan: function that returns a trajectory from the observed joints.
        pause: s after the end of a trajectory before the next one is planned; its end is held meanwhile.
        """
        self._spec, self._plan, self._pause = spec, plan, pause
        self._trajectory: JointTrajectory | None = None
        self._start, self._instruction = 0.0, ""

    @property
    def spec(self) -> PolicySpec:
        """See :class:`genima.policy.base.Policy`."""
        return self._spec

    def reset(self, seed: int = 0) -> None:
        """See :class:`genima.policy.base.Policy`; the policy is deterministic."""
        self._trajectory = None

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """See :class:`genima.policy.base.Policy`."""
        trajectory, elapsed = self._trajectory, observation.stamp - self._start
        if (
            trajectory is None
            or elapsed < 0  # the clock was set back
            or observation.instruction != self._instruction
            or elapsed > trajectory.seconds + self._pause
        ):
            trajectory, elapsed = self._plan(observation), 0.0
            self._trajectory = trajectory
            self._start, self._instruction = observation.stamp, observation.instruction
        period = 1 / self._spec.action_rate
        actions = [trajectory.at(elapsed + k * period) for k in range(1, self._spec.horizon + 1)]
        positions, _, gripper = zip(*actions, strict=True)
        return ActionChunk(observation.stamp, period, np.array(positions), np.array(gripper))
