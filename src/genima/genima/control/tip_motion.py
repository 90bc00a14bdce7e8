"""Motions of the gripper's tip along a path, as joint positions within the arm's limits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from genima.control.jerk_limited_motion import minimum_jerk
from genima.control.limit_violations import largest_excess
from genima.robot.ik import InverseKinematics, UnreachableError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose

Array = NDArray[np.float64]
_LIMIT = 0.9  # of the arm's limits: the guard's own are a little lower, and it follows from behind
_LARGEST_STEP = 0.5  # rad between points of a path: more is a jump to another branch


def interpolate_pose(start: Array, goal: Array, share: float) -> Array:
    """Return the pose (4, 4) at a share of the way between two: along a line, with a constant axis of rotation."""
    turn = Rotation.from_matrix(start[:3, :3].T @ goal[:3, :3]).as_rotvec()
    rotation = start[:3, :3] @ Rotation.from_rotvec(share * turn).as_matrix()
    return pose(rotation, start[:3, 3] + share * (goal[:3, 3] - start[:3, 3]))


def trace_path(ik: InverseKinematics, path: Callable[[float], Array], start: Array, points: int) -> Array:
    """Return the joints (points + 1, n) in rad along a path of the tip, from ``start`` on.

    Args:
        ik: of the arm.
        path: the tip's pose (4, 4) in the base frame as a function of the share of the path that is done.
        start: (n,) rad.
        points: after the start.

    Raises:
        UnreachableError: for a path that is out of reach, or not reached without a jump.
    """
    positions = [start]
    for k in range(1, points + 1):
        T_base_tip = path(k / points)
        positions.append(ik.solve(T_base_tip, positions[-1]))
        if np.abs(positions[-1] - positions[-2]).max() > _LARGEST_STEP:
            raise UnreachableError(
                f"tip pose: not reached continuously ({T_base_tip[:3, 3].round(3).tolist()} m); use a nearer one"
            )
    return np.array(positions)


def time_path(path: Array, seconds: float, robot: RobotModel, rate: float) -> Array:
    """Return the set-points (T, n) of a path, after its start, with minimum-jerk timing.

    Args:
        path: (N, n) rad, N at least 2, equally far apart in time.
        seconds: duration; more where the arm's limits demand it.
        robot: limits.
        rate: Hz of the set-points.
    """
    spline = CubicSpline(np.linspace(0, 1, len(path)), path)
    steps = max(1, round(seconds * rate))
    while True:
        shares = minimum_jerk(np.arange(-3, steps + 4).clip(0, steps) / steps)  # at rest before and after
        positions = spline(shares)
        excess = largest_excess(np.arange(len(shares)) / rate, positions, robot) / _LIMIT
        if excess <= 1 or np.ptp(path, axis=0).max() < 1e-6:
            return np.asarray(positions[4:-3], float)
        steps += max(1, round(steps * min(0.5, excess ** (1 / 3) - 1)))
