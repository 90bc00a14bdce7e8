"""The last word before the robot: whatever comes in, what goes out obeys the arm's limits.

::

    wish ──► finite? near? fresh? ──► Motion (position, velocity, acceleration, jerk, keep-outs) ──► set-point
               └─ no: hold: the quickest smooth stop
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genima.control.collision import ForbiddenRegion
from genima.control.guard_status import GuardReason, GuardState
from genima.control.jerk_limited_motion import JerkLimitedMotion, MotionLimits
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Command, Joints

_SHARE = 0.99  # of the arm's limits: the ticks of who executes the set-points jitter, too
_STATE = GuardReason.STATE_LATE, GuardReason.STATE_LOST, GuardReason.STATE_FUTURE
_COMMAND = GuardReason.COMMAND_LATE, GuardReason.COMMAND_LOST, GuardReason.COMMAND_FUTURE
_ON_GOAL = 1e-4  # rad: a set-point this near the wish counts as untouched


_MOST = {"margin": 0.5, "jump": 1.0, "distance": 1.0, "rejoin": 0.5, "late": 0.5, "lost": 2.0}  # rad, s


@dataclass(frozen=True)
class GuardSettings:
    """What counts as too much, too far and too late."""

    margin: float = 0.02  # rad kept free at both ends of every joint's range
    jump: float = 0.35  # rad between a command and the set-point
    distance: float = 0.5  # rad between a command and the measured joints
    rejoin: float = 0.1  # rad between a command and the arm at rest, to go on after a stop or a hand-over
    late: float = 0.1  # s without input: by then the arm is held
    lost: float = 0.5  # s without input: stop

    def require_sensible(self) -> None:
        """Raise a GenimaError for a number that makes no sense."""
        for name, value in vars(self).items():
            if not 0 <= value <= _MOST[name]:
                raise GenimaError(f"the command guard's {name} is {value}; it must be from 0 to {_MOST[name]:g}")
        if not 0 < self.late <= self.lost:
            raise GenimaError("the command guard's late must be positive and at most lost")


@dataclass(frozen=True)
class GuardOutput:
    """One tick's result. ``command`` is None while there is nothing to say: the robot then holds by itself."""

    command: Command | None
    verdict: GuardState
    reason: GuardReason


class CommandGuard:
    """Turns what the owner of the arm wishes into set-points that are safe to send, one every period.

    All times are seconds on one clock, passed in. Nothing that is offered can raise or break a limit. The arm has one
    owner at a time; a new one moves it from rest.
    """

    def __init__(
        self,
        robot: RobotModel,
        rate_hz: float,
        sources: Sequence[str] = ("controller", "teleop"),
        settings: GuardSettings | None = None,
        keep_outs: Sequence[ForbiddenRegion] = (),
    ) -> None:
        """Args:
        robot: limits of the arm.
        rate_hz: how often ``step`` is called.
        sources: who may own the arm.
        keep_outs: where it may not be.

        Raises:
            GenimaError: for settings that make no sense.
        """
        self.counts: Counter[GuardReason] = Counter()  # ticks by reason
        self.owner: str | None = None
        self._settings = settings or GuardSettings()
        self._settings.require_sensible()
        self._sources, self._keep_outs = tuple(sources), tuple(keep_outs)
        if np.any(narrow := robot.position_max - robot.position_min <= 2 * self._settings.margin):
            names = ", ".join(np.array(robot.joint_names)[narrow])
            raise GenimaError(f"the command guard's margin is {self._settings.margin}; it leaves no range to {names}")
        limits = MotionLimits.of(robot, _SHARE, _SHARE, _SHARE, self._settings.margin)
        self._motion = JerkLimitedMotion(limits, 1 / rate_hz, keep_outs)
        self._fastest = robot.velocity_max * (1 + 1e-6)  # rad/s
        # The tick after this one would be too late. At low rates, samples as old as a period are what is normal.
        self._overdue_from = self._settings.late - min(1 / rate_hz, self._settings.late / 5)  # s
        self._measured: Joints | None = None
        self._wish: Command | None = None
        self._refused: GuardReason | None = None  # why what the owner sends does not count
        self._gripper = 1.0
        self._odd_gripper = False  # whether the gripper was limited in the last step
        self._engaged = False  # whether the set-point is in force at the robot
        self._paused = False  # by the owner: it says nothing on purpose
        self._requested_stop = False
        self._joining = False  # only a command near the arm at rest goes on

    def measure(self, joints: Joints) -> None:
        """Take note of the newest measured joints."""
        if np.all(np.isfinite(joints.positions)) and np.isfinite(joints.gripper):
            self._measured = joints

    def offer(self, source: str, command: Command) -> None:
        """Take note of what a source wishes; only the owner's wishes count."""
        if source == self.owner:
            self._wish, self._refused, self._paused = command, None, False

    def pause(self, source: str) -> None:
        """Take note that a source commands nothing for a while: the arm rests, and its next command near there counts.

        Unlike a source that falls silent, this is no fault.
        """
        if source == self.owner:
            self._wish, self._refused, self._paused, self._joining = None, None, True, True

    def refuse(self, source: str, reason: GuardReason = GuardReason.MALFORMED) -> None:
        """Take note that a source does not speak as it must; its next good command goes on."""
        if source == self.owner:
            self._refused = reason

    def select(self, source: str | None) -> None:
        """Hand the arm to a source, or to nobody. It moves the arm from rest; only what it wishes from now on counts.

        Raises:
            GenimaError: for an unknown source.
        """
        if source is not None and source not in self._sources:
            raise GenimaError(f"unknown source {source!r}; the arm can be moved by {', '.join(self._sources)}")
        if source != self.owner:
            self.owner, self._wish, self._refused, self._joining = source, None, None, True
            self._paused = False

    def stop(self) -> None:
        """Stop the arm and keep it stopped until ``resume``."""
        self._requested_stop = True

    def begin_anew(self) -> None:
        """Take note that the robot has stopped by itself: the next set-point is where it is then measured."""
        self._engaged, self._joining = False, True

    @property
    def at_rest(self) -> bool:
        """Whether the set-point stands still."""
        return self._motion.at_rest

    def resume(self) -> None:
        """Undo ``stop``; the next command near the arm moves it again.

        Raises:
            GenimaError: while the arm is still moving.
        """
        if not self._motion.at_rest:
            raise GenimaError("the arm is still moving; resume when it is at rest")
        self._joining = self._joining or self._requested_stop
        self._requested_stop = False

    def step(self, now: float, periods: int = 1) -> GuardOutput:
        """The set-point for time ``now``, so many periods after the previous call's.

        What was missed in between is not made up for, but passed over: the set-point is where it is due by now. After
        more than ``late`` the arm has come to rest by itself, and goes on from where it then is.
        """
        missed, self._odd_gripper = periods - 1, False
        if missed * self._motion.period > self._settings.late and self._engaged and not self._motion.at_rest:
            self._engaged, self._joining = False, True
            self.counts[GuardReason.GUARD_LATE] += 1
            return GuardOutput(None, GuardState.STOPPED, GuardReason.GUARD_LATE)
        for behind in range(min(missed, round(self._settings.late / self._motion.period)), 0, -1):
            self._advance(now - behind * self._motion.period)
        verdict, reason = self._advance(now)
        self.counts[reason] += 1
        if self._odd_gripper and reason is not GuardReason.GRIPPER:
            self.counts[GuardReason.GRIPPER] += 1
        if not self._engaged:
            return GuardOutput(None, verdict, reason)
        command = Command(now, self._motion.position, self._motion.velocity, self._gripper)
        return GuardOutput(command, verdict, reason)

    def _advance(self, now: float) -> tuple[GuardState, GuardReason]:
        verdict, reason, wish = self._judge(now)
        if wish is not None:
            verdict, reason = self._follow(wish, now)
        else:
            self._motion.stop()
            if self._engaged and self._was_moved(now):
                # By hand, or the scene was reset: the old set-point must not pull it back.
                self._engaged, self._joining, reason = False, True, GuardReason.MOVED
        if self.owner is None and self._motion.at_rest:
            self._engaged = False
        return verdict, reason

    def _judge(self, now: float) -> tuple[GuardState, GuardReason, Command | None]:
        """The wish to follow, or why there is none."""
        settings, measured, wish = self._settings, self._measured, self._wish
        if self._requested_stop:
            return GuardState.STOPPED, GuardReason.REQUESTED, None
        if self.owner is None:
            return GuardState.HELD, GuardReason.NO_OWNER, None
        if measured is None:
            return GuardState.HELD, GuardReason.NO_STATE, None
        if untimely := self._untimely(now - measured.stamp, *_STATE):
            return *untimely, None
        if not self._engaged:  # nobody has moved the arm by us: it is where it is measured
            self._motion.reset(measured.positions)
            self._gripper = float(np.clip(measured.gripper, 0, 1))
            self._engaged = True
        if self._refused:
            return GuardState.HELD, self._refused, None
        if self._paused:
            return GuardState.HELD, GuardReason.PAUSED, None
        if self._joining and not self._motion.at_rest:
            return GuardState.HELD, GuardReason.HAND_OVER, None
        if wish is None:
            return GuardState.HELD, GuardReason.NO_COMMAND, None
        if untimely := self._untimely(now - wish.stamp, *_COMMAND):
            return *untimely, None
        if not _is_finite(wish, len(measured.positions)):
            return GuardState.HELD, GuardReason.NOT_FINITE, None
        step, away = _distance(wish.positions, self._motion.position), _distance(wish.positions, measured.positions)
        if self._joining and max(step, away) > settings.rejoin:
            return GuardState.STOPPED, GuardReason.REJOIN, None
        if step > settings.jump:
            return GuardState.HELD, GuardReason.JUMP, None
        if away > settings.distance:
            return GuardState.HELD, GuardReason.FAR, None
        return GuardState.OK, GuardReason.NONE, wish

    def _was_moved(self, now: float) -> bool:
        """Whether the arm is far from a set-point that stands still."""
        measured, settings = self._measured, self._settings
        if measured is None or abs(now - measured.stamp) > settings.late or not self._motion.at_rest:
            return False
        return _distance(self._motion.position, measured.positions) > settings.distance

    def _untimely(
        self, age: float, late: GuardReason, lost: GuardReason, future: GuardReason
    ) -> tuple[GuardState, GuardReason] | None:
        """What an input's age in s leads to; None where it is fresh."""
        if age > self._settings.lost:  # at least late, by the settings' own rule
            self._joining = True
            return GuardState.STOPPED, lost
        if age > self._overdue_from:
            return GuardState.HELD, late
        return (GuardState.HELD, future) if age < -self._settings.late else None

    def _follow(self, wish: Command, now: float) -> tuple[GuardState, GuardReason]:
        self._joining = False
        self._gripper = float(np.clip(wish.gripper, 0, 1))
        self._odd_gripper = abs(self._gripper - wish.gripper) > 1e-6
        motion, limits = self._motion, self._motion.limits
        # wish and tick are not in step: carry the wish on to now, else the set-point stutters with their phase
        velocities = np.clip(wish.velocities, -limits.velocity, limits.velocity)
        goal = wish.positions + velocities * (now - wish.stamp)
        motion.toward(goal, velocities, motion.period)
        if motion.kept_out_by is not None:
            return GuardState.HELD, self._keep_outs[motion.kept_out_by].reason
        if _distance(motion.position, goal) < _ON_GOAL and np.all(np.abs(wish.velocities) <= self._fastest):
            return (GuardState.LIMITED, GuardReason.GRIPPER) if self._odd_gripper else (GuardState.OK, GuardReason.NONE)
        beyond = np.any((goal < limits.position_min) | (goal > limits.position_max))
        return GuardState.LIMITED, GuardReason.POSITION if beyond else GuardReason.RATE


def _is_finite(wish: Command, n: int) -> bool:
    parts = (wish.positions, wish.velocities)
    return all(np.shape(p) == (n,) and bool(np.all(np.isfinite(p))) for p in parts) and bool(np.isfinite(wish.gripper))


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The largest difference of any joint in rad."""
    return float(np.max(np.abs(a - b)))
