"""Splicing of action chunks into a continuous motion.

::

    overlapped   inference ├── 1 ──┼── 2 ──┼── 3 ──┤        every chunk starts at the stamp of its observation, so its
                 chunk         ····├───1───┼···             first actions are past when it arrives, and are skipped
                                       ····├───2───┼···
    serial       inference ├─ 1 ─┤         ├─ 2 ─┤          the next chunk is predicted when this one is executed, as
                 chunk           ├───1─────┤ rest├───2──    in the GENIMA paper
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from genima.control.chunk_interpolation import ChunkInterpolation
from genima.control.jerk_limited_motion import JerkLimitedMotion, MotionLimits
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import ActionChunk, Command, Joints

# Fractions of the robot's limits for policies. The rest is a reserve for the command guard; the manufacturer's jerk
# limits are those of the drives, not of a robot among people.
VELOCITY, ACCELERATION, JERK = 0.8, 0.5, 0.1
BRAKES = 0.8  # of the acceleration: the guard receives a stop one period later, and needs a reserve to catch up
LOOK_AHEAD = 0.15  # s: a splice is spread over this time; the stream itself stays in phase with the chunk
CLOSE_BELOW, OPEN_ABOVE = 0.4, 0.6  # probability of open: hysteresis, so that an uncertain gripper does not oscillate
Mode = Literal["overlapped", "serial"]
_EPSILON = 1e-6  # s: times that differ by less are equal
_LONGEST_GAP = 0.1  # s without a command after which the arm has come to rest by itself


class ChunkStream:
    """Set-points at a fixed rate from chunks that arrive at any time.

    Times are on the clock of the chunks' stamps. Where no newer chunk comes, the motion ends at rest at the last
    action: a late chunk is a smooth stop, never a jump or a repeat.
    """

    def __init__(
        self, robot: RobotModel, rate_hz: float, execution_horizon: int | None = None, mode: Mode = "overlapped"
    ) -> None:
        """Args:
        robot: limits of the arm.
        rate_hz: rate of ``command``.
        execution_horizon: actions of a chunk that are due before a newer one may take over; all of them if None.
            Overlapped, they count from the chunk's observation on: 1 lets nearly every newer chunk take over.
        mode: see this module.

        Raises:
            GenimaError: for an unknown mode, or a horizon below one action.
        """
        if mode not in get_args(Mode):
            raise GenimaError(f"mode: unknown ({mode!r}); use {' or '.join(get_args(Mode))}")
        if execution_horizon is not None and execution_horizon < 1:
            raise GenimaError(f"execution_horizon: out of range ({execution_horizon}); use at least 1")
        self.expired = 0  # chunks whose last action was past on arrival
        self._mode, self._execution_horizon = mode, execution_horizon
        self._motion = JerkLimitedMotion(MotionLimits.of(robot, VELOCITY, ACCELERATION, JERK), 1 / rate_hz)
        self._brakes = MotionLimits.of(robot, 1.0, BRAKES, 1.0)
        self._path: ChunkInterpolation | None = None
        self._next: ActionChunk | None = None
        self._gripper_open = True
        self._placed = False  # the motion starts at the measured joints
        self._moved = False  # a chunk has been followed since

    @property
    def stamp(self) -> float | None:
        """Stamp of the present chunk."""
        return self._path.stamp if self._path else None

    def needs_chunk(self, now: float, latency: float) -> bool:
        """True where a chunk should be predicted from the observation at ``now``, if that takes ``latency`` seconds."""
        if self._path is None:
            return self._next is None
        executed = self._path.execution_end(self._execution_horizon)
        return now >= executed - (latency if self._mode == "overlapped" else 0.0) - _EPSILON

    def reset(self, measured: Joints) -> None:
        """Drop all chunks; the next one starts from rest at the measured joints."""
        self._path = self._next = None
        self._motion.reset(measured.positions)
        self._gripper_open = measured.gripper > 0.5
        self._placed, self._moved = True, False

    def distance(self, measured: Joints) -> float:
        """Return the largest difference of any joint between set-point and arm in rad; 0 before the first set-point."""
        return float(np.max(np.abs(self._motion.position - measured.positions))) if self._moved else 0.0

    def hold(self) -> None:
        """Drop all chunks and come to rest as quickly as possible; the next one starts from there."""
        self._path = self._next = None

    def add(self, chunk: ActionChunk) -> None:
        """Add a chunk, to be followed as soon as the mode allows, unless a newer one is known."""
        known = [known.stamp for known in (self._path, self._next) if known]
        if all(chunk.stamp > stamp for stamp in known):
            self._next = chunk

    def command(self, now: float, measured: Joints, periods: int = 1) -> Command | None:
        """Compute the set-point for ``now``, ``periods`` after the previous call; None before the first chunk.

        Args:
            now: s, on the clock of the chunks' stamps.
            measured: start of the motion where it was not reset.
            periods: missed ones are skipped; after more than 0.1 s the motion starts again at ``measured``.
        """
        if self._next is not None and self._may_take_over(self._next, now):
            self._take_over(self._next, now)
            self._next = None
        self._moved = self._moved or self._path is not None
        if not self._moved:
            return None
        missed = periods - 1
        if missed * self._motion.period > _LONGEST_GAP or not self._placed:
            self._motion.reset(measured.positions)
            missed, self._placed = 0, True
        for behind in range(missed, -1, -1):
            self._follow(now - behind * self._motion.period)
        return Command(now, self._motion.position, self._motion.velocity, 1.0 if self._gripper_open else 0.0)

    def _may_take_over(self, chunk: ActionChunk, now: float) -> bool:
        path = self._path
        if path is None:
            return True
        executed = path.execution_end(self._execution_horizon)
        if self._mode == "overlapped":
            return now >= executed - _EPSILON
        if chunk.stamp < executed - _EPSILON:
            self._next = None  # predicted from an observation of the moving arm
            return False
        return True

    def _take_over(self, chunk: ActionChunk, now: float) -> None:
        if self._mode == "serial":
            self._path = ChunkInterpolation(chunk, begin=now, actions=self._execution_horizon)
        elif chunk.due[-1] > now:
            self._path = ChunkInterpolation(chunk)
        else:
            self.expired += 1

    def _follow(self, now: float) -> None:
        path = self._path
        if path is None:
            self._motion.stop(self._brakes)
            return
        due = max(min(now + LOOK_AHEAD, path.end), path.start, now)
        position, velocity = path.at(due)
        remaining = due - now + self._motion.period  # the motion's state is still that of one period ago
        self._motion.step_toward(position, velocity, remaining)
        probability = path.open_probability(now)
        self._gripper_open = probability > (CLOSE_BELOW if self._gripper_open else OPEN_ABOVE)
