"""Violations of an arm's limits in a recorded stream of set-points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from genima.robot.model import RobotModel

Array = NDArray[np.float64]
_ROUNDING = 1e-3  # of a limit: rounding of stamps and positions
_EDGE = 1e-5  # rad


def largest_excess(stamps: Array, positions: Array, robot: RobotModel) -> float:
    """Return the largest mean velocity, acceleration or jerk between set-points, as a fraction of the arm's limit.

    Args:
        stamps: (N,) s, rising.
        positions: (N, n) rad.
    """
    return max(
        (float(fractions.max()) for fractions in _fractions(stamps, positions, robot) if fractions.size), default=0.0
    )


def count_violations(stamps: Array, positions: Array, robot: RobotModel, silence: float = np.inf) -> int:
    """Count set-points outside the joints' ranges or beyond the limits of velocity, acceleration or jerk.

    Arguments as for :func:`largest_excess`. After a gap of more than ``silence`` s the arm has come to rest, and
    a new stream starts there. Values that are not finite are violations, too.
    """
    inside = (positions >= robot.position_min - _EDGE) & (positions <= robot.position_max + _EDGE)
    breaks = np.flatnonzero(np.diff(stamps) > silence) + 1
    parts = zip(np.split(stamps, breaks), np.split(positions, breaks), strict=True)
    within = [inside, *(fractions <= 1 + _ROUNDING for part in parts for fractions in _fractions(*part, robot))]
    return sum(int(np.sum(~fine.all(axis=1))) for fine in within)


def _fractions(stamps: Array, positions: Array, robot: RobotModel) -> Iterator[Array]:
    """Yield mean velocities (N - 1, n), accelerations (N - 2, n) and jerks (N - 3, n) between set-points, as
    fractions of the limits.

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
        if order == 1 and robot.braking is not None:  # between two set-points, at most the limit of the freer one
            low, high = robot.velocity_limits(positions)
            limits = np.minimum(np.maximum(high[1:], high[:-1]), limit)
            limits = np.where(differences < 0, np.maximum(-low[1:], -low[:-1]), limits)
        yield np.abs(differences) * factorial / np.maximum(limits, 1e-9)
