"""Policy of a user's module: errors name the policy and the module's file."""

from __future__ import annotations

from typing import Any

import numpy as np

from genima.errors import GenimaError
from genima.policy.base import Policy
from genima.policy.spec import PolicySpec
from genima.system.user_code import checked
from genima.types import ActionChunk, Observation


class UserPolicy:
    """Policy whose methods raise a GenimaError for every error and for a wrong result."""

    def __init__(self, policy: Policy, subject: str, file: str) -> None:
        """Args:
        policy: the user's.
        subject: of error lines.
        file: the user's module.

        Raises:
            GenimaError: for a policy without a PolicySpec.
        """
        if not isinstance(policy.spec, PolicySpec):
            raise GenimaError(f"{subject}: spec is no PolicySpec ({policy.spec!r:.100}); correct {file}")
        self._spec = policy.spec
        self._reset = checked(policy.reset, subject, file)
        self._predict_chunk = checked(policy.predict_chunk, subject, file, self._chunk_problem)

    @property
    def spec(self) -> PolicySpec:
        """See :class:`genima.policy.base.Policy`."""
        return self._spec

    def reset(self, seed: int = 0) -> None:
        """See :class:`genima.policy.base.Policy`."""
        self._reset(seed)

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """See :class:`genima.policy.base.Policy`."""
        chunk: ActionChunk = self._predict_chunk(observation)
        return chunk

    def _chunk_problem(self, result: Any) -> str:
        if not isinstance(result, ActionChunk):
            return f"no action chunk ({result!r:.100})"
        positions, gripper = np.shape(result.positions), np.shape(result.gripper)
        joints = len(self._spec.joint_names)
        if len(positions) != 2 or positions[1] != joints or not positions[0] or gripper != positions[:1]:
            return f"positions {positions} and gripper {gripper} instead of (K, {joints}) and (K,)"
        if not (np.isfinite(result.positions).all() and np.isfinite(result.gripper).all()):
            return "actions that are not finite"
        if not 0 < result.period < np.inf:
            return f"a period out of range ({result.period} s)"
        return ""
