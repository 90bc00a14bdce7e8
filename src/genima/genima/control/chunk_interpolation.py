"""Interpolation of an action chunk in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline

from genima.types import ActionChunk

Array = NDArray[np.float64]


class ChunkInterpolation:
    """Cubic interpolation of positions and velocities of a chunk, at rest at its last action."""

    def __init__(self, chunk: ActionChunk, begin: float | None = None, actions: int | None = None) -> None:
        """Args:
        chunk: K actions.
        begin: s, start of the execution; the chunk's stamp if None.
        actions: number of them that are executed; all if None.
        """
        self.stamp = chunk.stamp
        self._begin, self._period = chunk.stamp if begin is None else begin, chunk.period
        positions = chunk.positions[:actions]
        self._times = chunk.due[:actions] + (self._begin - chunk.stamp)
        self.start, self.end = float(self._times[0]), float(self._times[-1])
        velocities = np.gradient(positions, chunk.period, axis=0) if len(positions) > 1 else np.zeros_like(positions)
        velocities[-1] = 0.0  # so that running out of actions is already a stop
        if len(positions) > 1:
            self._positions = CubicHermiteSpline(self._times, positions, velocities)
            self._velocities = self._positions.derivative()
        else:
            self._positions = self._velocities = None
        self._only = positions[-1]
        self._open_probability = chunk.gripper[:actions]

    def execution_end(self, actions: int | None) -> float:
        """Return the time in s at which ``actions`` of them have been due, at most all."""
        return self.end if actions is None else min(self.end, self._begin + actions * self._period)

    def at(self, time: float) -> tuple[Array, Array]:
        """Return position (n,) rad and velocity (n,) rad/s at ``time``; outside the chunk those of its nearest end."""
        if self._positions is None:
            return self._only, np.zeros_like(self._only)
        time = np.clip(time, self.start, self.end)
        return self._positions(time), self._velocities(time)

    def open_probability(self, time: float) -> float:
        """Return the probability that the gripper should be open at ``time``."""
        return float(np.interp(time, self._times, self._open_probability))
