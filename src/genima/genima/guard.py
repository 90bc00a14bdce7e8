"""The last word before the robot: whatever comes in, what goes out obeys the arm's limits.

::

    wish ──► finite? near? fresh? ──► Motion (position, velocity, acceleration, jerk) ──► set-point
               └─ no: hold: the quickest smooth stop
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.motion import Motion, MotionLimits
from genima.observation import Command, Joints
from genima.robot.model import RobotModel

_ON_GOAL = 1e-4  # rad: a set-point this near the wish counts as untouched


class Verdict(Enum):
    """What became of the wish."""

    OK = "ok"
    LIMITED = "limited"  # followed as far as the limits allow
    HELD = "held"  # refused; the arm holds, the next good command goes on
    STOPPED = "stopped"  # the arm holds; only a command near it, or resume after a requested stop, goes on


class Reason(Enum):
    """Why a wish was not followed as it was."""

    NONE = ""
    POSITION = "position limit"
    RATE = "velocity, acceleration or jerk limit"
    MALFORMED = "command is malformed"
    NOT_FINITE = "command is not finite"
    JUMP = "command jumps away from the set-point"
    FAR = "command is far from the measured joints"
    COMMAND_LATE = "commands are late"
    COMMAND_LOST = "commands have stopped"
    COMMAND_FUTURE = "command is stamped in the future"
    STATE_LATE = "joint states are late"
    STATE_LOST = "joint states have stopped"
    STATE_FUTURE = "joint states are stamped in the future"
    MOVED = "the arm was moved from outside"
    NO_STATE = "no joint states yet"
    NO_COMMAND = "no command yet"
    NO_OWNER = "nobody may move the arm"
    REJOIN = "after a stop, the command is not near the arm"
    REQUESTED = "stop requested; call resume"


@dataclass(frozen=True)
class GuardSettings:
    """What counts as too much, too far and too late."""

    margin: float = 0.02  # rad kept free at both ends of every joint's range
    jump: float = 0.35  # rad between a command and the set-point
    distance: float = 0.5  # rad between a command and the measured joints
    rejoin: float = 0.1  # rad between a command and the set-point, to go on after a stop
    late: float = 0.1  # s without input: hold
    lost: float = 0.5  # s without input: stop


@dataclass(frozen=True)
class Guarded:
    """One tick's result. ``command`` is None while there is nothing to say: the robot then holds by itself."""

    command: Command | None
    verdict: Verdict
    reason: Reason


class CommandGuard:
    """Turns what the owner of the arm wishes into set-points that are safe to send, one every period.

    All times are seconds on one clock, passed in. Nothing that is offered can raise or break a limit.
    """

    def __init__(
        self,
        robot: RobotModel,
        rate_hz: float,
        sources: Sequence[str] = ("controller", "teleop"),
        settings: GuardSettings | None = None,
    ) -> None:
        self.counts: Counter[Reason] = Counter()  # ticks by reason
        self.owner: str | None = None
        self._settings = settings or GuardSettings()
        self._sources = tuple(sources)
        self._motion = Motion(MotionLimits.of(robot, 1.0, 1.0, 1.0, self._settings.margin), 1 / rate_hz)
        self._measured: Joints | None = None
        self._wish: Command | None = None
        self._malformed = False
        self._gripper = 1.0
        self._engaged = False  # whether the set-point is in force at the robot
        self._requested_stop = False
        self._lost = False  # stopped by itself; a command near the arm goes on

    def measure(self, joints: Joints) -> None:
        """Take note of the newest measured joints."""
        if np.all(np.isfinite(joints.positions)) and np.isfinite(joints.gripper):
            self._measured = joints

    def offer(self, source: str, command: Command) -> None:
        """Take note of what a source wishes; only the owner's wishes count."""
        if source == self.owner:
            self._wish, self._malformed = command, False

    def refuse(self, source: str) -> None:
        """Take note that a source sent something that is no command."""
        if source == self.owner:
            self._malformed = True

    def select(self, source: str | None) -> None:
        """Hand the arm to a source, or to nobody. Only what it wishes from now on counts.

        Raises:
            GenimaError: for an unknown source.
        """
        if source is not None and source not in self._sources:
            raise GenimaError(f"unknown source {source!r}; the arm can be moved by {', '.join(self._sources)}")
        if source != self.owner:
            self.owner, self._wish, self._malformed = source, None, False

    def stop(self) -> None:
        """Stop the arm and keep it stopped until ``resume``."""
        self._requested_stop = True

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
        self._lost = self._lost or self._requested_stop
        self._requested_stop = False

    def step(self, now: float) -> Guarded:
        """The set-point for time ``now``, one period after the previous call's."""
        verdict, reason, wish = self._judge(now)
        if wish is None:
            self._motion.stop()
            if self._engaged and self._was_moved(now):
                # By hand, or the scene was reset: the old set-point must not pull it back.
                self._engaged, self._lost, reason = False, True, Reason.MOVED
        else:
            verdict, reason = self._follow(wish, now)
        self.counts[reason] += 1
        if self.owner is None and self._motion.at_rest:
            self._engaged = False
        if not self._engaged:
            return Guarded(None, verdict, reason)
        command = Command(now, self._motion.position, self._motion.velocity, self._gripper)
        return Guarded(command, verdict, reason)

    def _judge(self, now: float) -> tuple[Verdict, Reason, Command | None]:
        """The wish to follow, or why there is none."""
        settings, measured, wish = self._settings, self._measured, self._wish
        if self._requested_stop:
            return Verdict.STOPPED, Reason.REQUESTED, None
        if self.owner is None:
            return Verdict.HELD, Reason.NO_OWNER, None
        if measured is None:
            return Verdict.HELD, Reason.NO_STATE, None
        if (age := now - measured.stamp) > settings.late:
            return self._overdue(age, Reason.STATE_LATE, Reason.STATE_LOST)
        if age < -settings.late:
            return Verdict.HELD, Reason.STATE_FUTURE, None
        if not self._engaged:  # nobody has moved the arm by us: it is where it is measured
            self._motion.reset(measured.positions)
            self._gripper = float(np.clip(measured.gripper, 0, 1))
            self._engaged = True
        if self._malformed:
            return Verdict.HELD, Reason.MALFORMED, None
        if wish is None:
            return Verdict.HELD, Reason.NO_COMMAND, None
        if (age := now - wish.stamp) > settings.late:
            return self._overdue(age, Reason.COMMAND_LATE, Reason.COMMAND_LOST)
        if age < -settings.late:
            return Verdict.HELD, Reason.COMMAND_FUTURE, None
        if not _is_finite(wish, len(measured.positions)):
            return Verdict.HELD, Reason.NOT_FINITE, None
        step = _distance(wish.positions, self._motion.position)
        if self._lost and not (step < settings.rejoin and self._motion.at_rest):
            return Verdict.STOPPED, Reason.REJOIN, None
        if step > settings.jump:
            return Verdict.HELD, Reason.JUMP, None
        if _distance(wish.positions, measured.positions) > settings.distance:
            return Verdict.HELD, Reason.FAR, None
        return Verdict.OK, Reason.NONE, wish

    def _was_moved(self, now: float) -> bool:
        """Whether the arm is far from a set-point that stands still."""
        measured, settings = self._measured, self._settings
        if measured is None or abs(now - measured.stamp) > settings.late or not self._motion.at_rest:
            return False
        return _distance(self._motion.position, measured.positions) > settings.distance

    def _overdue(self, age: float, late: Reason, lost: Reason) -> tuple[Verdict, Reason, None]:
        if age > self._settings.lost:
            self._lost = True
            return Verdict.STOPPED, lost, None
        return Verdict.HELD, late, None

    def _follow(self, wish: Command, now: float) -> tuple[Verdict, Reason]:
        self._lost = False
        self._gripper = float(np.clip(wish.gripper, 0, 1))
        motion, limits = self._motion, self._motion.limits
        # wish and tick are not in step: carry the wish on to now, else the set-point stutters with their phase
        velocities = np.clip(wish.velocities, -limits.velocity, limits.velocity)
        goal = wish.positions + velocities * (now - wish.stamp)
        motion.toward(goal, velocities, motion.period)
        if _distance(motion.position, goal) < _ON_GOAL:
            return Verdict.OK, Reason.NONE
        beyond = np.any((goal < limits.position_min) | (goal > limits.position_max))
        return Verdict.LIMITED, Reason.POSITION if beyond else Reason.RATE


def _is_finite(wish: Command, n: int) -> bool:
    parts = (wish.positions, wish.velocities)
    return all(np.shape(p) == (n,) and bool(np.all(np.isfinite(p))) for p in parts) and bool(np.isfinite(wish.gripper))


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The largest difference of any joint in rad."""
    return float(np.max(np.abs(a - b)))
