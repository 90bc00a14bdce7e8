"""Detect a stationary arm, whose joints and images match."""

from __future__ import annotations

from genima.types import Joints

_MAX_GRIPPER_SPEED = 0.1  # of its opening, 1/s: a faster gripper's reading lags behind its fingers


class StationaryDetector:
    """Detector over measured joints; all times are seconds on one clock."""

    def __init__(self, tolerance: float = 1e-3, settle: float = 0.3) -> None:
        """Args:
        tolerance: rad that any joint may move while the arm counts as stationary.
        settle: s without such a motion before it does: speeds below ``tolerance / settle`` are no motion.
        """
        self._tolerance, self._settle = tolerance, settle
        self._rest: Joints | None = None  # joints since which the arm has not moved

    def update(self, joints: Joints) -> None:
        """Process the newest measured joints."""
        rest = self._rest
        moved = rest is not None and abs(joints.positions - rest.positions).max() > self._tolerance
        if rest is None or moved or joints.stamp < rest.stamp:
            self._rest = joints

    def covers(self, stamp: float) -> bool:
        """Return True if the arm has been stationary since before ``stamp``."""
        return self._rest is not None and stamp - self._rest.stamp >= self._settle


def is_slow(before: Joints, now: Joints, max_speed: float) -> bool:
    """Return True if the robot is slow enough for image and joints of ``now`` to match despite delays.

    No joint is faster than ``max_speed`` (rad/s) between ``before`` and ``now``, and the gripper hardly moves.
    """
    passed = max(now.stamp - before.stamp, 1e-3)
    arm = abs(now.positions - before.positions).max()
    gripper_moves = abs(now.gripper - before.gripper) > _MAX_GRIPPER_SPEED * passed  # False for NaN
    return bool(arm <= max_speed * passed and not gripper_moves)
