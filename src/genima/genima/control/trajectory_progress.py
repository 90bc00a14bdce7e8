"""Progress of an arm along a joint trajectory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genima.control.joint_trajectory import JointTrajectory

_NEAR = 0.05  # rad: an arm that is pressed against something stays this far from its set-points
_LAG = 0.25  # s: commands are spliced and limited, so that an arm trails by about 0.15 s
_EQUAL = 0.01  # rad: points of a trajectory whose distances from the arm differ by less are equally near
_STEP = 0.05  # s between compared points of a trajectory


class TrajectoryProgress:
    """Time on a trajectory, which passes while the arm follows.

    For an arm that starts late or is held, time goes back to where the arm is: it then continues from there at the
    trajectory's speed, instead of catching up.
    """

    def __init__(self, trajectory: JointTrajectory) -> None:
        self.trajectory = trajectory
        self.elapsed = 0.0  # s
        self.delay = 0.0  # s by which time went back

    @property
    def finished(self) -> bool:
        """Return whether the arm has come to the end."""
        return self.elapsed > self.trajectory.seconds

    def advance(self, seconds: float, positions: NDArray[np.float64]) -> None:
        """Let time pass, at whose end the arm is at ``positions`` (n,) rad."""
        self.elapsed += seconds
        end = min(self.elapsed, self.trajectory.seconds)
        times = np.append(np.arange(0.0, end, _STEP), end)
        distances = np.array([np.abs(self.trajectory.at(time)[0] - positions).max() for time in times])
        reached = float(times[distances <= distances.min() + _EQUAL][-1])
        if distances[-1] > _NEAR and end - reached > _LAG:
            self.delay += self.elapsed - reached
            self.elapsed = reached
