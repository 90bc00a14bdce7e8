"""By how much a stream of set-points exceeds an arm's limits: for tests, and to judge what a robot has received."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genima.robot.model import RobotModel

Array = NDArray[np.float64]


def excess(stamps: Array, positions: Array, robot: RobotModel) -> float:
    """The largest mean velocity, acceleration or jerk between set-points, as a share of the arm's limit.

    Args:
        stamps: (N,) s, rising.
        positions: (N, n) rad.

    Divided differences of order k, times k!, are means of the k-th derivative: they exceed its limit only if the
    motion does. They need not be equally far apart in time.
    """
    largest, differences, factorial = 0.0, np.asarray(positions, float), 1.0
    for order, limit in enumerate((robot.velocity_max, robot.acceleration_max, robot.jerk_max), start=1):
        if len(differences) < 2:
            break
        differences = np.diff(differences, axis=0) / (stamps[order:] - stamps[:-order])[:, None]
        factorial *= order
        largest = max(largest, float(np.max(np.abs(differences) * factorial / limit)))
    return largest
