"""Splices the newest chunk into the running motion.

::

    overlapped   drawing   ├── 1 ──┼── 2 ──┼── 3 ──┤        every chunk begins at the stamp of its observation, so its
                 chunk         ····├───1───┼···             first actions are past when it arrives, and are skipped
                                       ····├───2───┼···
    serial       drawing   ├─ 1 ─┤         ├─ 2 ─┤          the next drawing is made when the chunk has been executed:
                 chunk           ├───1─────┤ rest├───2──    what the GENIMA paper does, and what can be compared with
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from genima.control.chunk_interpolation import ChunkPath
from genima.control.jerk_limited_motion import JerkLimitedMotion, MotionLimits
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import ActionChunk, Command, Joints

# Fractions of the robot's limits: what a policy may use. The rest is left to the command guard, and to calm motion: the
# manufacturer's jerk limits are those of the drives, not those of a robot beside people.
VELOCITY, ACCELERATION, JERK = 0.8, 0.5, 0.1
BRAKES = 0.8  # of the acceleration: the guard learns of a stop a moment later, and must be able to make up for it
LOOK_AHEAD = 0.15  # s: a splice is spread over this time; the stream itself stays in phase with the chunk
CLOSE_BELOW, OPEN_ABOVE = 0.4, 0.6  # probability of open: hysteresis, so that a doubtful gripper does not flutter
Mode = Literal["overlapped", "serial"]
_INSTANT = 1e-6  # s: times that differ by less are the same
_LONGEST_GAP = 0.1  # s without a tick after which the arm has come to rest by itself


class ChunkStream:
    """Set-points at a fixed rate from chunks that arrive whenever they are ready.

    Times are on the clock of the chunks' stamps. Where no newer chunk comes, the motion ends at rest at the last
    action: a late chunk is a smooth stop, never a jump or a repeat.
    """

    def __init__(
        self, robot: RobotModel, rate_hz: float, execution_horizon: int | None = None, mode: Mode = "overlapped"
    ) -> None:
        """Args:
        robot: limits of the arm.
        rate_hz: how often ``command`` is called.
        execution_horizon: actions of a chunk that are due before a newer one may take over; all of them if None.
            Overlapped, they count from the chunk's observation on: 1 lets nearly every newer chunk take over.
        mode: see this module.

        Raises:
            GenimaError: for an unknown mode, or when nothing would be executed.
        """
        if mode not in get_args(Mode):
            raise GenimaError(f"unknown mode {mode!r}; known: {', '.join(get_args(Mode))}")
        if execution_horizon is not None and execution_horizon < 1:
            raise GenimaError(f"the execution horizon is {execution_horizon} actions; it must be at least 1")
        self.expired = 0  # chunks that came too late to have anything left
        self._mode, self._execution_horizon = mode, execution_horizon
        self._motion = JerkLimitedMotion(MotionLimits.of(robot, VELOCITY, ACCELERATION, JERK), 1 / rate_hz)
        self._brakes = MotionLimits.of(robot, 1.0, BRAKES, 1.0)
        self._path: ChunkPath | None = None
        self._next: ActionChunk | None = None
        self._gripper_open = True
        self._placed = False  # whether the motion begins where the arm is
        self._moved = False  # whether a chunk has been followed since

    @property
    def stamp(self) -> float | None:
        """Stamp of the chunk that is being followed."""
        return self._path.stamp if self._path else None

    def wants_drawing(self, now: float, latency: float) -> bool:
        """Whether what is seen ``now`` should be drawn on, if its chunk comes ``latency`` seconds later."""
        if self._path is None:
            return self._next is None
        executed = self._path.executed(self._execution_horizon)
        return now >= executed - (latency if self._mode == "overlapped" else 0.0) - _INSTANT

    def reset(self, measured: Joints) -> None:
        """Forget all chunks; the next one starts from rest at the measured joints."""
        self._path = self._next = None
        self._motion.reset(measured.positions)
        self._gripper_open = measured.gripper > 0.5
        self._placed, self._moved = True, False

    def distance(self, measured: Joints) -> float:
        """The largest difference of any joint between set-point and arm in rad; 0 before the first set-point."""
        return float(np.max(np.abs(self._motion.position - measured.positions))) if self._moved else 0.0

    def hold(self) -> None:
        """Forget all chunks and come to rest as quickly as the arm can; the next one goes on from there."""
        self._path = self._next = None

    def add(self, chunk: ActionChunk) -> None:
        """Follow ``chunk`` as soon as the mode lets it take over, unless a newer one is known."""
        known = [known.stamp for known in (self._path, self._next) if known]
        if all(chunk.stamp > stamp for stamp in known):
            self._next = chunk

    def command(self, now: float, measured: Joints, periods: int = 1) -> Command | None:
        """The set-point for time ``now``, so many periods after the previous call's; None before the first chunk.

        Args:
            now: s, on the clock of the chunks' stamps.
            measured: where the motion starts from when it has not been reset.
            periods: what was missed is passed over; after more than 0.1 s the motion begins again at ``measured``.
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
        executed = path.executed(self._execution_horizon)
        if self._mode == "overlapped":
            return now >= executed - _INSTANT
        if chunk.stamp < executed - _INSTANT:
            self._next = None  # drawn from what was seen before the arm came to rest
            return False
        return True

    def _take_over(self, chunk: ActionChunk, now: float) -> None:
        if self._mode == "serial":
            self._path = ChunkPath(chunk, begin=now, actions=self._execution_horizon)
        elif chunk.due[-1] > now:
            self._path = ChunkPath(chunk)
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
        self._motion.toward(position, velocity, remaining)
        probability = path.open_probability(now)
        self._gripper_open = probability > (CLOSE_BELOW if self._gripper_open else OPEN_ABOVE)
