"""Temporal ensembling: average of the actions that overlapping chunks predict for the same time.

The GENIMA paper does not use it: it smooths the motion, and reduces precision and recovery (appendices E and J).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genima.policy.base import Policy
from genima.policy.spec import PolicySpec
from genima.types import ActionChunk, Observation

_INSTANT = 1e-6  # s: times that differ by less are equal


class TemporalEnsemble:
    """Average of the latest chunk with the earlier ones of an episode.

    Of all chunks that have an action for a time, the i-th oldest has weight exp(-m i), i from 0: the larger ``m``, the
    smaller the weight of new chunks. Chunks are interpolated between their actions.

    Source: Zhao et al., Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware, 2023, section IV.
    """

    def __init__(self, m: float) -> None:
        self._m = m
        self._chunks: list[ActionChunk] = []  # oldest first

    def reset(self) -> None:
        """Drop all chunks, at the start of an episode."""
        self._chunks = []

    def average(self, chunk: ActionChunk) -> ActionChunk:
        """Return ``chunk`` averaged with the earlier chunks at its times."""
        times = chunk.due
        self._chunks = [known for known in self._chunks if known.due[-1] > times[0] - _INSTANT] + [chunk]
        # (chunks, K): True where a chunk has an action for a time
        covers = np.array([np.abs(times - np.clip(times, c.due[0], c.due[-1])) < _INSTANT for c in self._chunks])
        weights = np.exp(-self._m * (covers.cumsum(axis=0) - 1)) * covers
        actions = np.array([_actions_at(times, known) for known in self._chunks])
        averaged = np.einsum("ck,ckn->kn", weights / weights.sum(axis=0), actions)
        return ActionChunk(chunk.stamp, chunk.period, averaged[:, :-1], averaged[:, -1])


class EnsemblePolicy:
    """Policy with temporal ensembling."""

    def __init__(self, policy: Policy, m: float) -> None:
        """``m`` as in :class:`TemporalEnsemble`."""
        self._policy, self._ensemble = policy, TemporalEnsemble(m)

    @property
    def spec(self) -> PolicySpec:
        """See :class:`genima.policy.base.Policy`."""
        return self._policy.spec

    def reset(self, seed: int = 0) -> None:
        """See :class:`genima.policy.base.Policy`."""
        self._policy.reset(seed)
        self._ensemble.reset()

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """See :class:`genima.policy.base.Policy`."""
        return self._ensemble.average(self._policy.predict_chunk(observation))


def _actions_at(times: NDArray[np.float64], chunk: ActionChunk) -> NDArray[np.float64]:
    """Interpolate a chunk's positions and gripper, (K, n + 1), at ``times`` (K,) s."""
    actions = np.column_stack([chunk.positions, chunk.gripper])
    return np.column_stack([np.interp(times, chunk.due, column) for column in actions.T])
