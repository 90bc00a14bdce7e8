"""By how much a stream of set-points exceeds an arm's limits: for tests, and to judge what a robot has received."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from genima.robot.model import RobotModel

Array = NDArray[np.float64]
_ROUNDING = 1e-3  # of a limit: what stamps and positions lose on their way
_EDGE = 1e-5  # rad


def excess(stamps: Array, positions: Array, robot: RobotModel) -> float:
    """The largest mean velocity, acceleration or jerk between set-points, as a share of the arm's limit.

    Args:
        stamps: (N,) s, rising.
        positions: (N, n) rad.
    """
    return max((float(shares.max()) for shares in _shares(stamps, positions, robot) if shares.size), default=0.0)


def violations(stamps: Array, positions: Array, robot: RobotModel, silence: float = np.inf) -> int:
    """How often set-points lie outside the joints' ranges, or ask for more velocity, acceleration or jerk than allowed.

    Arguments as for :func:`excess`. After more than ``silence`` s the arm has come to rest by itself, and the guard
    begins where it is, which continues nothing. Something not finite is a violation, too.
    """
    inside = (positions >= robot.position_min - _EDGE) & (positions <= robot.position_max + _EDGE)
    breaks = np.flatnonzero(np.diff(stamps) > silence) + 1
    parts = zip(np.split(stamps, breaks), np.split(positions, breaks), strict=True)
    within = [inside, *(shares <= 1 + _ROUNDING for part in parts for shares in _shares(*part, robot))]
    return sum(int(np.sum(~fine.all(axis=1))) for fine in within)


def _shares(stamps: Array, positions: Array, robot: RobotModel) -> Iterator[Array]:
    """Mean velocities (N - 1, n), accelerations (N - 2, n) and jerks (N - 3, n) between set-points, as shares of the
    limits.

    Divided differences of order k, times k!, are means of the k-th derivative: they exceed its limit only if the
    motion does. They need not be equally far apart in time.
    """
    differences, factorial = np.asarray(positions, float), 1.0
    for order, limit in enumerate((robot.velocity_max, robot.acceleration_max, robot.jerk_max), start=1):
        if len(differences) < 2:
            return
        differences = np.diff(differences, axis=0) / (stamps[order:] - stamps[:-order])[:, None]
        factorial *= order
        limits = limit
        if order == 1 and robot.braking is not None:  # on its way, at most what the freer of its two ends allows
            low, high = robot.velocity_limits(positions)
            limits = np.minimum(np.maximum(high[1:], high[:-1]), limit)
            limits = np.where(differences < 0, np.maximum(-low[1:], -low[:-1]), limits)
        yield np.abs(differences) * factorial / np.maximum(limits, 1e-9)
