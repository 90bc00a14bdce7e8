"""Splices the newest chunk into the running motion.

::

    chunk    stamp ─── action 0 ── 1 ── 2 ── ... ── K-1
    now              ·······────┤ the past part is skipped
    set-point  ─────────────────╯ heads for the chunk's state LOOK_AHEAD from now, within limits, every tick anew
"""

from __future__ import annotations

from genima.chunks.path import ChunkPath
from genima.motion import Motion, MotionLimits
from genima.observation import Chunk, Command, Joints
from genima.robot.model import RobotModel

# Fractions of the robot's limits: what a policy may use. The rest is left to the command guard, and to calm motion: the
# manufacturer's jerk limits are those of the drives, not those of a robot beside people.
VELOCITY, ACCELERATION, JERK = 0.8, 0.5, 0.1
LOOK_AHEAD = 0.15  # s: a splice is spread over this time; the stream itself stays in phase with the chunk
_INSTANT = 1e-6  # s: times that differ by less are the same
CLOSE_BELOW, OPEN_ABOVE = 0.4, 0.6  # probability of open: hysteresis, so that a doubtful gripper does not flutter


class ChunkStream:
    """Set-points at a fixed rate from chunks that arrive whenever they are ready.

    Times are on the clock of the chunks' stamps. A chunk starts at the stamp of its observation, so what is already
    past of it is skipped. Where no newer chunk comes, the motion ends at rest at the last action.
    """

    def __init__(self, robot: RobotModel, rate_hz: float, horizon: float = 0.0) -> None:
        """Args:
        robot: limits of the arm.
        rate_hz: how often ``command`` is called.
        horizon: s of a chunk, from its stamp, that are followed before a newer one may take over.
        """
        self.expired = 0  # chunks that came too late to have anything left
        self._horizon = horizon
        self._motion = Motion(MotionLimits.of(robot, VELOCITY, ACCELERATION, JERK), 1 / rate_hz)
        self._path: ChunkPath | None = None
        self._next: ChunkPath | None = None
        self._gripper_open = True
        self._started = False

    @property
    def stamp(self) -> float | None:
        """Stamp of the chunk that is being followed."""
        return self._path.stamp if self._path else None

    def reset(self, measured: Joints) -> None:
        """Forget all chunks; the next one starts from rest at the measured joints."""
        self._path = self._next = None
        self._motion.reset(measured.positions)
        self._gripper_open = measured.gripper > 0.5
        self._started = True

    def add(self, chunk: Chunk) -> None:
        """Follow ``chunk`` from the next command on, unless a newer one is known."""
        newest = self._next or self._path
        if newest is None or chunk.stamp > newest.stamp:
            self._next = ChunkPath(chunk)

    def command(self, now: float, measured: Joints) -> Command | None:
        """The set-point for time ``now``, one period after the previous call's; None before the first chunk.

        Args:
            now: s, on the clock of the chunks' stamps.
            measured: where the motion starts from when it has not been reset.
        """
        if self._next is not None and (self._path is None or now >= self._path.stamp + self._horizon - _INSTANT):
            if self._next.end > now:
                self._path = self._next
            else:
                self.expired += 1
            self._next = None
        if self._path is None:
            return None
        if not self._started:
            path = self._path
            self.reset(measured)
            self._path = path
        self._follow(self._path, now)
        return Command(now, self._motion.position, self._motion.velocity, 1.0 if self._gripper_open else 0.0)

    def _follow(self, path: ChunkPath, now: float) -> None:
        due = max(now + LOOK_AHEAD, path.start)
        position, velocity = path.at(due)
        remaining = due - now + self._motion.period  # the motion's state is still that of one period ago
        self._motion.toward(position, velocity, remaining)
        probability = path.open_probability(now)
        self._gripper_open = probability > (CLOSE_BELOW if self._gripper_open else OPEN_ABOVE)
