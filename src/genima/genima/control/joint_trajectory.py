"""Joint trajectory in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from genima.errors import GenimaError

Array = NDArray[np.float64]


class JointTrajectory:
    """Cubic spline through positions, at rest at both ends; the gripper changes when a position is reached."""

    def __init__(self, times: Array, positions: Array, gripper: Array) -> None:
        """Args:
            times: (T,) s, from 0.
            positions: (T, n) rad.
            gripper: (T,) open fractions.

        Raises:
            GenimaError: when the times do not increase.
        """
        if len(times) < 2 or np.any(np.diff(times) <= 0):
            raise GenimaError(f"joint trajectory: times do not increase, or fewer than two positions ({len(times)})")
        self._times, self._gripper = times, gripper
        self._spline = CubicSpline(times, positions, bc_type="clamped")

    @property
    def seconds(self) -> float:
        """Duration."""
        return float(self._times[-1])

    def at(self, elapsed: float) -> tuple[Array, Array, float]:
        """Return positions (n,) rad, velocities (n,) rad/s and the gripper's open fraction after ``elapsed`` s."""
        elapsed = float(np.clip(elapsed, 0.0, self.seconds))
        reached = int(np.searchsorted(self._times, elapsed, side="right")) - 1
        return self._spline(elapsed), self._spline(elapsed, 1), float(self._gripper[reached])
