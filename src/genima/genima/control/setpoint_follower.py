"""What becomes of the guard's set-points where they come to an end: on the far side of a network, before a controller.

::

    good, and in step ──► passed on as they are
    refused, or missing ──► the quickest smooth stop, from where the last good one was, as fast as that was
    good again ──► smoothly back to them, then in step
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genima.control.jerk_limited_motion import JerkLimitedMotion, MotionLimits
from genima.robot.model import RobotModel
from genima.types import Command

Array = NDArray[np.float64]
PERIOD = 0.005  # s between set-points of its own
# Of the arm's velocity, acceleration and jerk. How a stream accelerates is only estimated, and may be wrong by twice
# the limit, as it ramps up within one period: the step from one to the other takes up the rest of the jerk.
_SHARE = 1.0, 0.99, 0.5
_LONGEST_GAP = 0.1  # s between two set-points that tell how the arm accelerates
_IN_STEP = 1e-6, 1e-4, 0.1  # rad, rad/s, rad/s^2 between two motions that are the same
_OVERDUE = 2.5  # periods of the stream
_SOONEST, _LATEST = 0.02, 0.05  # s after which a set-point is overdue, whatever the stream's period


class SetpointFollower:
    """The set-point that a controller is told. A set-point that only stops is a step in acceleration, at which an FR3
    ends the motion; this one keeps the arm's limits whatever happens to the stream.

    All times are seconds on the clock of the commands' stamps.
    """

    def __init__(self, robot: RobotModel) -> None:
        self._motion = JerkLimitedMotion(MotionLimits.of(robot, *_SHARE), PERIOD)
        self._told: Command | None = None  # last
        self._goal: Command | None = None  # the stream's newest; None: the arm stops
        self._in_step = False  # what comes is passed on
        self._interval = _SOONEST  # s between the stream's set-points

    @property
    def position(self) -> Array | None:
        """What the controller was told last, (n,) rad; None before it was told anything."""
        return None if self._told is None else self._told.positions

    @property
    def follows(self) -> bool:
        """Whether set-points are followed; else the arm comes to rest, or is there."""
        return self._goal is not None

    @property
    def at_rest(self) -> bool:
        """Whether the arm was told to stand still."""
        return not self.follows and self._motion.at_rest

    def overdue(self, now: float) -> bool:
        """Whether the next set-point should have come."""
        if self._goal is None:
            return False
        return now - self._goal.stamp > min(max(_OVERDUE * self._interval, _SOONEST), _LATEST)

    def rest_at(self, stamp: float, positions: Array) -> Command:
        """Begin at rest at ``positions`` (n,) rad, where the arm is; what the controller is to be told."""
        self._motion.reset(positions)
        self._goal, self._in_step = None, False
        return self._tell(stamp)

    def forget(self) -> None:
        """Nobody knows what the arm was told: it must begin anew."""
        self._told = self._goal = None
        self._in_step = False

    def follow(self, command: Command) -> Command | None:
        """Follow a good set-point, after :meth:`rest_at`; what the controller is to be told, None where that is of
        later than this."""
        told, goal = self._told, self._goal
        assert told is not None
        seconds = PERIOD if self.at_rest else command.stamp - told.stamp  # at rest, it stood until then
        backwards = goal is not None and command.stamp <= goal.stamp
        if backwards or not -_LATEST < seconds < _LONGEST_GAP:  # the clock was set: what was told last is of just now
            seconds, goal, self._in_step = PERIOD, None, False
        self._goal = command
        if not seconds > 0:
            return None
        acceleration = None
        if goal is not None and 0 < command.stamp - goal.stamp < _LONGEST_GAP:
            self._interval = command.stamp - goal.stamp
            acceleration = (command.velocities - goal.velocities) / self._interval
        if not self._in_step:
            self._approach(command, acceleration, seconds)
        if not self._in_step:
            return self._tell(command.stamp)
        self._know(command, acceleration)
        self._told = command
        return command

    def hold(self) -> None:
        """Follow no longer: come to rest."""
        self._goal, self._in_step = None, False

    def advance(self, now: float) -> Command | None:
        """What the controller is to be told by ``now`` where nothing is followed; None: nothing new."""
        told = self._told
        if told is None or self.follows or self.at_rest:
            return None
        periods = int((now - told.stamp) / PERIOD + 1e-6)
        if periods < 1:
            return None
        self._motion.period = PERIOD
        for _ in range(periods):
            self._motion.stop()
            if self._motion.at_rest:
                break
        return self._tell(told.stamp + periods * PERIOD)

    def _tell(self, stamp: float) -> Command:
        self._told = Command(stamp, self._motion.position, self._motion.velocity)
        return self._told

    def _approach(self, command: Command, acceleration: Array | None, seconds: float) -> None:
        """Move on towards a set-point for so long; in step, once that is what it would do by itself."""
        motion = self._motion
        motion.period = seconds
        motion.toward(command.positions, command.velocities, seconds)
        apart = motion.position - command.positions, motion.velocity - command.velocities
        steady = acceleration is not None and np.abs(acceleration - motion.acceleration).max() < _IN_STEP[2]
        self._in_step = steady and all(np.abs(a).max() < b for a, b in zip(apart, _IN_STEP[:2], strict=True))

    def _know(self, command: Command, acceleration: Array | None) -> None:
        """How the arm moves, in case that this is the last set-point."""
        motion, limits = self._motion, self._motion.limits
        motion.reset(command.positions)
        motion.velocity = np.clip(command.velocities, -limits.velocity, limits.velocity)
        if acceleration is not None:
            motion.acceleration = np.clip(acceleration, -limits.acceleration, limits.acceleration)
