"""Temporal ensembling: what overlapping chunks say about one time is averaged.

The GENIMA paper leaves it out: it smooths, and costs precision and recovery (appendices E and J).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genima.policy.genima import TargetFollower
from genima.types import ActionChunk, DrawnTarget, Joints

_INSTANT = 1e-6  # s: times that differ by less are the same


class TemporalEnsemble:
    """A controller for one episode, whose chunks are averaged with its earlier ones.

    Of all chunks that have an action for a time, the i-th oldest counts exp(-m i), i from 0: the larger ``m``, the
    slower new chunks are taken in. Between two of its actions a chunk is interpolated.

    Source: Zhao et al., Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware, 2023, section IV.
    """

    def __init__(self, controller: TargetFollower, m: float) -> None:
        self._controller, self._m = controller, m
        self._chunks: list[ActionChunk] = []  # from the oldest on

    def predict_chunk(self, drawn: DrawnTarget, joints: Joints) -> ActionChunk:
        """The controller's new chunk, averaged with what the earlier ones say about its times."""
        newest = self._controller.predict_chunk(drawn, joints)
        times = newest.due
        self._chunks = [chunk for chunk in self._chunks if chunk.due[-1] > times[0] - _INSTANT] + [newest]
        # (chunks, K): who has an action for a time
        covers = np.array([np.abs(times - np.clip(times, c.due[0], c.due[-1])) < _INSTANT for c in self._chunks])
        weights = np.exp(-self._m * (covers.cumsum(axis=0) - 1)) * covers
        said = np.array([_at(times, chunk) for chunk in self._chunks])
        averaged = np.einsum("ck,ckn->kn", weights / weights.sum(axis=0), said)
        return ActionChunk(newest.stamp, newest.period, averaged[:, :-1], averaged[:, -1])


def _at(times: NDArray[np.float64], chunk: ActionChunk) -> NDArray[np.float64]:
    """A chunk's positions and gripper (K, n + 1) at ``times`` (K,) s."""
    actions = np.column_stack([chunk.positions, chunk.gripper])
    return np.column_stack([np.interp(times, chunk.due, column) for column in actions.T])
