"""A leader's motion in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from genima.errors import GenimaError

Array = NDArray[np.float64]


class JointTrajectory:
    """From rest to rest through positions, smooth between them; the gripper changes when one is reached."""

    def __init__(self, times: Array, positions: Array, gripper: Array) -> None:
        """Args:
            times: (T,) s, from 0 on.
            positions: (T, n) rad.
            gripper: (T,) open fractions.

        Raises:
            GenimaError: when the times do not increase.
        """
        if len(times) < 2 or np.any(np.diff(times) <= 0):
            raise GenimaError("a way needs two positions or more, at times that increase")
        self._times, self._gripper = times, gripper
        self._spline = CubicSpline(times, positions, bc_type="clamped")

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return float(self._times[-1])

    def at(self, elapsed: float) -> tuple[Array, Array, float]:
        """Positions (n,) rad, velocities (n,) rad/s and the gripper's open fraction after ``elapsed`` s."""
        elapsed = float(np.clip(elapsed, 0.0, self.seconds))
        reached = int(np.searchsorted(self._times, elapsed, side="right")) - 1
        return self._spline(elapsed), self._spline(elapsed, 1), float(self._gripper[reached])
