"""Interface of policies: observations in, action chunks out."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from genima.policy.spec import PolicySpec
from genima.types import ActionChunk, Observation


class Policy(Protocol):
    """Policy for one robot, used by one thread at a time."""

    @property
    def spec(self) -> PolicySpec:
        """Specification: robot, views, image size, horizon and rate."""

    def reset(self, seed: int = 0) -> None:
        """Start an episode: drop all state; ``seed`` determines all randomness of the episode."""

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """Predict the next actions, stamped by the observation.

        Raises:
            GenimaError: for an observation that does not fit the spec, and for actions that are not finite.
        """


@runtime_checkable
class SamplingPolicy(Policy, Protocol):
    """Policy that can measure its confidence by sampling several chunks for an observation."""

    spread: float | None
    """Spread of the last chunk's samples (:func:`genima.policy.chunk_spread.chunk_spread`), mm; None: not measured."""
