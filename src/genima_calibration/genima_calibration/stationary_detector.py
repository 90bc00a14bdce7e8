"""Detector of a stationary arm, in which joints and image match."""

from __future__ import annotations

from genima.types import Joints

_GRIPPER_FASTEST = 0.1  # of its opening, 1/s: the fingers of a faster one are not both where its reading says


class StationaryDetector:
    """Detector over measured joints; all times are seconds on one clock."""

    def __init__(self, tolerance: float = 1e-3, settle: float = 0.3) -> None:
        """Args:
        tolerance: rad that any joint may be from where it was since it stands.
        settle: s that it must stand before it counts as still: so slower than ``tolerance / settle`` is no motion.
        """
        self._tolerance, self._settle = tolerance, settle
        self._rest: Joints | None = None  # where and since when it stands

    def update(self, joints: Joints) -> None:
        """Take note of the newest measured joints."""
        rest = self._rest
        moved = rest is not None and abs(joints.positions - rest.positions).max() > self._tolerance
        if rest is None or moved or joints.stamp < rest.stamp:
            self._rest = joints

    def covers(self, stamp: float) -> bool:
        """Return whether the arm was settled at ``stamp``, and has been since."""
        return self._rest is not None and stamp - self._rest.stamp >= self._settle


def is_slow(before: Joints, now: Joints, fastest: float) -> bool:
    """Return whether the robot is slow enough for image and joints of ``now`` to match despite delays.

    No joint has moved faster than ``fastest`` (rad/s) since shortly ``before``, and the gripper hardly.
    """
    passed = max(now.stamp - before.stamp, 1e-3)
    arm = abs(now.positions - before.positions).max()
    gripper_moves = abs(now.gripper - before.gripper) > _GRIPPER_FASTEST * passed  # not where it is unknown (NaN)
    return bool(arm <= fastest * passed and not gripper_moves)
