"""A chunk as a continuous path in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline

from genima.observation import Chunk

Array = NDArray[np.float64]


class ChunkPath:
    """Positions and velocities of a chunk between its actions; it comes to rest at its last action."""

    def __init__(self, chunk: Chunk) -> None:
        self.stamp = chunk.stamp
        self._times = chunk.due
        self.start, self.end = float(self._times[0]), float(self._times[-1])
        velocities = np.gradient(chunk.positions, chunk.period, axis=0)
        velocities[-1] = 0.0  # so that running out of actions is already a stop
        self._positions = CubicHermiteSpline(self._times, chunk.positions, velocities)
        self._velocities = self._positions.derivative()
        self._open_probability = chunk.gripper

    def at(self, time: float) -> tuple[Array, Array]:
        """Position (n,) rad and velocity (n,) rad/s at ``time``; those of the nearest end outside the chunk."""
        time = np.clip(time, self.start, self.end)
        return self._positions(time), self._velocities(time)

    def open_probability(self, time: float) -> float:
        """Probability that the gripper should be open at ``time``."""
        return float(np.interp(time, self._times, self._open_probability))
