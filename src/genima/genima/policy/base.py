"""Interface of policies: observations in, action chunks out."""

from __future__ import annotations

from typing import Protocol

from genima.policy.spec import PolicySpec
from genima.types import ActionChunk, Observation


class Policy(Protocol):
    """A policy for one robot. It is used by one thread at a time."""

    @property
    def spec(self) -> PolicySpec:
        """Specification: robot, views, image size, horizon and rate."""

    def reset(self, seed: int = 0) -> None:
        """Forget earlier observations, at the start of an episode; ``seed`` determines all randomness after it."""

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """Predict the next actions, stamped by the observation.

        Raises:
            GenimaError: for an observation that the policy was not made for, and for actions that are not finite.
        """
