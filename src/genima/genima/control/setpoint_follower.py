"""Smooth stop and restart at a driver when the guard's set-points end.

::

    valid, synchronous ──► passed on unchanged
    rejected or missing ──► the quickest smooth stop from the last valid set-point and its velocity
    valid again ──► smooth approach, then synchronous
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genima.control.jerk_limited_motion import JerkLimitedMotion, MotionLimits
from genima.robot.model import RobotModel
from genima.types import Command

Array = NDArray[np.float64]
PERIOD = 0.005  # s between own set-points during a stop
# Of the arm's velocity, acceleration and jerk. How a stream accelerates is only estimated, and may be wrong by twice
# the limit, as it ramps up within one period: the step from one to the other takes up the rest of the jerk.
_SHARE = 1.0, 0.99, 0.5
_LONGEST_GAP = 0.1  # s between two set-points from which the acceleration is estimated
_SYNCHRONOUS = 1e-6, 1e-4, 0.1  # rad, rad/s, rad/s^2 between two equal motions
_OVERDUE = 2.5  # periods of the stream
_SOONEST, _LATEST = 0.02, 0.05  # s after which a set-point is overdue, for any period of the stream


class SetpointFollower:
    """Set-point of a controller within the arm's limits, also when the stream ends.

    A stream that just ends is a step in acceleration, at which an FR3 aborts the motion.

    All times are seconds on the clock of the commands' stamps.
    """

    def __init__(self, robot: RobotModel) -> None:
        self._motion = JerkLimitedMotion(MotionLimits.of(robot, *_SHARE), PERIOD)
        self._sent: Command | None = None  # last
        self._goal: Command | None = None  # latest of the stream; None: the arm stops
        self._synchronous = False  # set-points pass unchanged
        self._interval = _SOONEST  # s between the stream's set-points

    @property
    def position(self) -> Array | None:
        """Last set-point sent to the controller, (n,) rad; None before the first."""
        return None if self._sent is None else self._sent.positions

    @property
    def is_following(self) -> bool:
        """True where set-points are followed; else the arm comes to rest, or is at rest."""
        return self._goal is not None

    @property
    def at_rest(self) -> bool:
        """True where the arm was commanded to rest."""
        return not self.is_following and self._motion.at_rest

    def overdue(self, now: float) -> bool:
        """True where the next set-point should have arrived."""
        if self._goal is None:
            return False
        return now - self._goal.stamp > min(max(_OVERDUE * self._interval, _SOONEST), _LATEST)

    def rest_at(self, stamp: float, positions: Array) -> Command:
        """Start at rest at the measured ``positions`` (n,) rad; return the set-point for the controller."""
        self._motion.reset(positions)
        self._goal, self._synchronous = None, False
        return self._send(stamp)

    def forget(self) -> None:
        """Drop all state: the arm's last set-point is unknown, :meth:`rest_at` comes next."""
        self._sent = self._goal = None
        self._synchronous = False

    def follow(self, command: Command) -> Command | None:
        """Follow a valid set-point, after :meth:`rest_at`; return the one for the controller, None for an old one."""
        last, goal = self._sent, self._goal
        assert last is not None
        seconds = PERIOD if self.at_rest else command.stamp - last.stamp  # it has rested until now
        backwards = goal is not None and command.stamp <= goal.stamp
        if backwards or not -_LATEST < seconds < _LONGEST_GAP:  # the clock was set: the last set-point is of just now
            seconds, goal, self._synchronous = PERIOD, None, False
        self._goal = command
        if not seconds > 0:
            return None
        acceleration = None
        if goal is not None and 0 < command.stamp - goal.stamp < _LONGEST_GAP:
            self._interval = command.stamp - goal.stamp
            acceleration = (command.velocities - goal.velocities) / self._interval
        if not self._synchronous:
            self._approach(command, acceleration, seconds)
        if not self._synchronous:
            return self._send(command.stamp)
        self._set_motion(command, acceleration)
        self._sent = command
        return command

    def hold(self) -> None:
        """Stop following: come to rest."""
        self._goal, self._synchronous = None, False

    def advance(self, now: float) -> Command | None:
        """Return the set-point of a stop that is due by ``now``; None where there is no new one."""
        last = self._sent
        if last is None or self.is_following or self.at_rest:
            return None
        periods = int((now - last.stamp) / PERIOD + 1e-6)
        if periods < 1:
            return None
        self._motion.period = PERIOD
        for _ in range(periods):
            self._motion.stop()
            if self._motion.at_rest:
                break
        return self._send(last.stamp + periods * PERIOD)

    def _send(self, stamp: float) -> Command:
        self._sent = Command(stamp, self._motion.position, self._motion.velocity)
        return self._sent

    def _approach(self, command: Command, acceleration: Array | None, seconds: float) -> None:
        """Move towards a set-point for ``seconds``; synchronous once both motions are equal."""
        motion = self._motion
        motion.period = seconds
        motion.step_toward(command.positions, command.velocities, seconds)
        errors = motion.position - command.positions, motion.velocity - command.velocities
        steady = acceleration is not None and np.abs(acceleration - motion.acceleration).max() < _SYNCHRONOUS[2]
        self._synchronous = steady and all(np.abs(a).max() < b for a, b in zip(errors, _SYNCHRONOUS[:2], strict=True))

    def _set_motion(self, command: Command, acceleration: Array | None) -> None:
        """Set the state of the motion, in case that this is the last set-point."""
        motion, limits = self._motion, self._motion.limits
        motion.reset(command.positions)
        motion.velocity = np.clip(command.velocities, -limits.velocity, limits.velocity)
        if acceleration is not None:
            motion.acceleration = np.clip(acceleration, -limits.acceleration, limits.acceleration)
