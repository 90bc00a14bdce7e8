"""Final command filter: enforce position, velocity, acceleration and jerk limits.

::

    command ──► finite? near? fresh? ──► JerkLimitedMotion (limits, forbidden regions) ──► set-point
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

_LIMIT_FRACTION = 0.99  # of the arm's limits: the period of the robot's own controller jitters, too
_STATE = GuardReason.STATE_LATE, GuardReason.STATE_LOST, GuardReason.STATE_FUTURE
_COMMAND = GuardReason.COMMAND_LATE, GuardReason.COMMAND_LOST, GuardReason.COMMAND_FUTURE
_ON_GOAL = 1e-4  # rad: a set-point this near the command counts as unchanged
_MAXIMA = {"margin": 0.5, "jump": 1.0, "distance": 1.0, "rejoin": 0.5, "late": 0.5, "lost": 2.0}  # rad, s


@dataclass(frozen=True)
class GuardSettings:
    """Limits of distance and age for commands and joint states."""

    margin: float = 0.02  # rad kept free at both ends of every joint's range
    jump: float = 0.35  # rad between a command and the set-point
    distance: float = 0.5  # rad between a command and the measured joints
    rejoin: float = 0.1  # rad between a command and the arm at rest, to move on after a stop or a hand-over
    late: float = 0.1  # s without input: hold
    lost: float = 0.5  # s without input: stop

    def require_valid(self) -> None:
        """Raise a GenimaError for a value out of range."""
        for name, value in vars(self).items():
            if not 0 <= value <= _MAXIMA[name]:
                raise GenimaError(f"command_guard {name}: out of range ({value}); use 0 to {_MAXIMA[name]:g}")
        if not 0 < self.late <= self.lost:
            raise GenimaError(f"command_guard late: out of range ({self.late}); use 0 to lost ({self.lost})")


@dataclass(frozen=True)
class GuardOutput:
    """Result of one step. ``command`` is None where nothing is to be sent: the robot then holds by itself."""

    command: Command | None
    state: GuardState
    reason: GuardReason


class CommandGuard:
    """Filter of the owner's commands: one set-point within all limits every period.

    All times are seconds on one clock, passed in. No command can raise or break a limit. The arm has one owner at a
    time; a new owner moves it from rest.
    """

    def __init__(
        self,
        robot: RobotModel,
        rate_hz: float,
        sources: Sequence[str] = ("controller", "teleop"),
        settings: GuardSettings | None = None,
        forbidden_regions: Sequence[ForbiddenRegion] = (),
    ) -> None:
        """Args:
        robot: limits of the arm.
        rate_hz: rate of ``step``.
        sources: names of possible owners.
        forbidden_regions: where the arm may not be.

        Raises:
            GenimaError: for settings out of range.
        """
        self.counts: Counter[GuardReason] = Counter()  # steps by reason
        self.owner: str | None = None
        self._settings = settings or GuardSettings()
        self._settings.require_valid()
        self._sources, self._forbidden_regions = tuple(sources), tuple(forbidden_regions)
        if np.any(narrow := robot.position_max - robot.position_min <= 2 * self._settings.margin):
            names = ", ".join(np.array(robot.joint_names)[narrow])
            raise GenimaError(f"command_guard margin: no range left for {names} ({self._settings.margin}); use less")
        limits = MotionLimits.of(robot, _LIMIT_FRACTION, _LIMIT_FRACTION, _LIMIT_FRACTION, self._settings.margin)
        self._motion = JerkLimitedMotion(limits, 1 / rate_hz, forbidden_regions)
        self._velocity_max = robot.velocity_max * (1 + 1e-6)  # rad/s
        # At the next step it would be too late. At low rates, samples as old as a period are normal.
        self._overdue_from = self._settings.late - min(1 / rate_hz, self._settings.late / 5)  # s
        self._measured: Joints | None = None
        self._command: Command | None = None
        self._rejection: GuardReason | None = None  # of what the owner sent last
        self._gripper = 1.0
        self._gripper_limited = False  # in the last step
        self._engaged = False  # whether the robot follows the set-point
        self._paused = False  # by the owner: it sends no commands on purpose
        self._stop_requested = False
        self._joining = False  # only a command near the arm at rest moves it

    def update_joints(self, joints: Joints) -> None:
        """Store the newest measured joints; values that are not finite are ignored."""
        if np.all(np.isfinite(joints.positions)) and np.isfinite(joints.gripper):
            self._measured = joints

    def submit(self, source: str, command: Command) -> None:
        """Store the newest command of a source; only the owner's count."""
        if source == self.owner:
            self._command, self._rejection, self._paused = command, None, False

    def pause(self, source: str) -> None:
        """Bring the arm to rest until the source's next command near it.

        Unlike commands that stop coming, a pause is no fault.
        """
        if source == self.owner:
            self._command, self._rejection, self._paused, self._joining = None, None, True, True

    def reject(self, source: str, reason: GuardReason = GuardReason.COMMAND_MALFORMED) -> None:
        """Hold the arm for an invalid message of a source, until its next valid command."""
        if source == self.owner:
            self._rejection = reason

    def select(self, source: str | None) -> None:
        """Set the owner, or none. A new owner moves the arm from rest; only its commands from now on count.

        Raises:
            GenimaError: for an unknown source.
        """
        if source is not None and source not in self._sources:
            known = ", ".join(self._sources)
            raise GenimaError(f"command_guard owner: unknown source ({source!r}); use one of {known}")
        if source != self.owner:
            self.owner, self._command, self._rejection, self._joining = source, None, None, True
            self._paused = False

    def stop(self) -> None:
        """Stop the arm and keep it stopped until ``resume``."""
        self._stop_requested = True

    def restart(self) -> None:
        """Start again from the measured joints after the robot has stopped by itself."""
        self._engaged, self._joining = False, True

    @property
    def at_rest(self) -> bool:
        """True where the set-point does not move."""
        return self._motion.at_rest

    def resume(self) -> None:
        """Undo ``stop``; the next command near the arm moves it again.

        Raises:
            GenimaError: while the arm is still moving.
        """
        if not self._motion.at_rest:
            raise GenimaError("command_guard resume: the arm is still moving; retry when it is at rest")
        self._joining = self._joining or self._stop_requested
        self._stop_requested = False

    def step(self, now: float, periods: int = 1) -> GuardOutput:
        """Compute the set-point for time ``now``, ``periods`` after that of the previous call.

        Missed periods are skipped: the set-point is where it is due by now. After more than ``late`` the arm has come
        to rest by itself, and the motion starts again from there.
        """
        missed, self._gripper_limited = periods - 1, False
        if missed * self._motion.period > self._settings.late and self._engaged and not self._motion.at_rest:
            self._engaged, self._joining = False, True
            self.counts[GuardReason.GUARD_LATE] += 1
            return GuardOutput(None, GuardState.STOPPED, GuardReason.GUARD_LATE)
        for behind in range(min(missed, round(self._settings.late / self._motion.period)), 0, -1):
            self._advance(now - behind * self._motion.period)
        state, reason = self._advance(now)
        self.counts[reason] += 1
        if self._gripper_limited and reason is not GuardReason.GRIPPER_RANGE:
            self.counts[GuardReason.GRIPPER_RANGE] += 1
        if not self._engaged:
            return GuardOutput(None, state, reason)
        command = Command(now, self._motion.position, self._motion.velocity, self._gripper)
        return GuardOutput(command, state, reason)

    def _advance(self, now: float) -> tuple[GuardState, GuardReason]:
        state, reason, command = self._check_command(now)
        if command is not None:
            state, reason = self._follow(command, now)
        else:
            self._motion.stop()
            if self._engaged and self._was_moved(now):
                # by hand, or by a reset of the scene: the old set-point must not pull it back
                self._engaged, self._joining, reason = False, True, GuardReason.ARM_MOVED
        if self.owner is None and self._motion.at_rest:
            self._engaged = False
        return state, reason

    def _check_command(self, now: float) -> tuple[GuardState, GuardReason, Command | None]:
        """Return the command to follow, or why there is none."""
        settings, measured, command = self._settings, self._measured, self._command
        if self._stop_requested:
            return GuardState.STOPPED, GuardReason.STOP_REQUESTED, None
        if self.owner is None:
            return GuardState.HELD, GuardReason.NO_OWNER, None
        if measured is None:
            return GuardState.HELD, GuardReason.NO_STATE, None
        if untimely := self._untimely(now - measured.stamp, *_STATE):
            return *untimely, None
        if not self._engaged:  # the robot follows no set-point: start where it is measured
            self._motion.reset(measured.positions)
            self._gripper = float(np.clip(measured.gripper, 0, 1))
            self._engaged = True
        if self._rejection:
            return GuardState.HELD, self._rejection, None
        if self._paused:
            return GuardState.HELD, GuardReason.PAUSED, None
        if self._joining and not self._motion.at_rest:
            return GuardState.HELD, GuardReason.HAND_OVER, None
        if command is None:
            return GuardState.HELD, GuardReason.NO_COMMAND, None
        if untimely := self._untimely(now - command.stamp, *_COMMAND):
            return *untimely, None
        if not _is_finite(command, len(measured.positions)):
            return GuardState.HELD, GuardReason.COMMAND_NOT_FINITE, None
        step = _distance(command.positions, self._motion.position)
        away = _distance(command.positions, measured.positions)
        if self._joining and max(step, away) > settings.rejoin:
            return GuardState.STOPPED, GuardReason.REJOIN, None
        if step > settings.jump:
            return GuardState.HELD, GuardReason.COMMAND_JUMP, None
        if away > settings.distance:
            return GuardState.HELD, GuardReason.COMMAND_FAR, None
        return GuardState.OK, GuardReason.NONE, command

    def _was_moved(self, now: float) -> bool:
        """True where the arm is far from a set-point that does not move."""
        measured, settings = self._measured, self._settings
        if measured is None or abs(now - measured.stamp) > settings.late or not self._motion.at_rest:
            return False
        return _distance(self._motion.position, measured.positions) > settings.distance

    def _untimely(
        self, age: float, late: GuardReason, lost: GuardReason, future: GuardReason
    ) -> tuple[GuardState, GuardReason] | None:
        """Return the state and reason for an input of this age in s; None where it is fresh."""
        if age > self._settings.lost:  # at least late, see require_valid
            self._joining = True
            return GuardState.STOPPED, lost
        if age > self._overdue_from:
            return GuardState.HELD, late
        return (GuardState.HELD, future) if age < -self._settings.late else None

    def _follow(self, command: Command, now: float) -> tuple[GuardState, GuardReason]:
        self._joining = False
        self._gripper = float(np.clip(command.gripper, 0, 1))
        self._gripper_limited = abs(self._gripper - command.gripper) > 1e-6
        motion, limits = self._motion, self._motion.limits
        # commands and steps are not in phase: extrapolate the command to now, else the set-point stutters
        velocities = np.clip(command.velocities, -limits.velocity, limits.velocity)
        goal = command.positions + velocities * (now - command.stamp)
        motion.step_toward(goal, velocities, motion.period)
        if motion.blocking_region is not None:
            return GuardState.HELD, self._forbidden_regions[motion.blocking_region].reason
        if _distance(motion.position, goal) < _ON_GOAL and np.all(np.abs(command.velocities) <= self._velocity_max):
            if self._gripper_limited:
                return GuardState.LIMITED, GuardReason.GRIPPER_RANGE
            return GuardState.OK, GuardReason.NONE
        beyond = np.any((goal < limits.position_min) | (goal > limits.position_max))
        return GuardState.LIMITED, GuardReason.POSITION_LIMIT if beyond else GuardReason.RATE_LIMIT


def _is_finite(command: Command, n: int) -> bool:
    parts = (command.positions, command.velocities)
    if not all(np.shape(part) == (n,) and np.all(np.isfinite(part)) for part in parts):
        return False
    return bool(np.isfinite(command.gripper))


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the largest difference of any joint in rad."""
    return float(np.max(np.abs(a - b)))
