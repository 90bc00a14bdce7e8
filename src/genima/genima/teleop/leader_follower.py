"""Leader-follower control: align the follower with the leader, then mirror it joint by joint.

::

                 start                  both agree for ``settle``
    idle ──────────────────► aligning ─────────────────────────► mirroring
      ▲  end, from anywhere     ▲  ▲ start                          │  │
      └─────────────────────    │  └──────────── paused ◄───────────┘  │ no leader samples, a jump,
                                └─────────────── held ◄────────────────┘ or stamps that go back

While aligning, the follower moves slowly to the leader; it is held where the leader is outside its range. While
mirroring, the follower stays at its limit where the leader leaves the range, with the reason. Idle, paused and held
command nothing: the command guard then holds the arm. Only the operator ends these states: an arm must not start to
move on its own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from genima.control.jerk_limited_motion import JerkLimitedMotion, MotionLimits
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.teleop.leader_mapping import LeaderSample
from genima.types import Command, Joints

Array = NDArray[np.float64]
_PERIOD = 0.005  # s of the motion that aligns
_LONGEST_GAP = 0.1  # s between samples of one motion
_SPEED_WINDOW = 0.02  # s of the finite difference, where the leader publishes no velocities
_ACCELERATION, _JERK = 0.1, 0.05  # of the arm's limits while aligning
_OUTSIDE = 1e-3  # rad beyond a joint's range, from which on it is reported

_MAXIMA = {"speed": 1.0, "near": 0.2, "settle": 10.0, "jump": 1.0, "late": 1.0}  # of the settings below


class FollowerState(IntEnum):
    """State of the follower, with the numbers of TeleopStatus.msg."""

    IDLE = 0
    ALIGNING = 1
    MIRRORING = 2
    PAUSED = 3
    HELD = 4


@dataclass(frozen=True)
class LeaderFollowerSettings:
    """Speed of the alignment, tolerances and time limits."""

    speed: float = 0.15  # of the arm's velocity limits while aligning
    near: float = 0.02  # rad between leader and follower that agree; also tolerated beyond the follower's range
    settle: float = 0.2  # s for which they must agree
    jump: float = 0.1  # rad beyond what the fastest joint could have done since the last sample
    late: float = 0.1  # s without a sample: the leader is lost

    def require_valid(self) -> None:
        """Raise a GenimaError for a value out of range."""
        for name, value in vars(self).items():
            if not 0 < value <= _MAXIMA[name]:
                raise GenimaError(f"teleop {name}: out of range ({value}); use more than 0, at most {_MAXIMA[name]:g}")


class LeaderFollower:
    """State machine from the leader's samples to commands. All times are seconds on one clock, passed in."""

    def __init__(self, robot: RobotModel, settings: LeaderFollowerSettings | None = None) -> None:
        """``robot`` is the follower.

        Raises:
            GenimaError: for settings out of range.
        """
        self._settings = settings or LeaderFollowerSettings()
        self._settings.require_valid()
        self._robot = robot
        self.state = FollowerState.IDLE
        self.reason = ""  # of a hold, of a limit, or of the release
        self._motion = JerkLimitedMotion(MotionLimits.of(robot, self._settings.speed, _ACCELERATION, _JERK), _PERIOD)
        self._placed = False  # whether the motion starts at the measured joints
        self._moved_until = 0.0  # s: time of the motion's state
        self._agree_since: float | None = None  # s
        self._recent: deque[LeaderSample] = deque()  # of the last _LONGEST_GAP
        self._gripper: float | None = None  # open fraction; None until the first sample after a start

    def start(self) -> None:
        """Align with the leader, then mirror it; also from a pause or a hold."""
        if self.state is not FollowerState.MIRRORING:
            self.state, self.reason = FollowerState.ALIGNING, ""
            self._placed, self._agree_since, self._gripper = False, None, None
            self._recent.clear()

    def pause(self) -> None:
        """Stop following while the leader is moved elsewhere."""
        if self.state in (FollowerState.ALIGNING, FollowerState.MIRRORING):
            self.state, self.reason = FollowerState.PAUSED, ""

    def end(self, reason: str = "") -> None:
        """Release the follower; ``reason`` where the operator did not request it."""
        self.state, self.reason = FollowerState.IDLE, reason

    def hold(self, reason: str) -> None:
        """Hold the follower for ``reason`` until the operator starts again."""
        if self.state in (FollowerState.ALIGNING, FollowerState.MIRRORING):
            self.state, self.reason = FollowerState.HELD, reason

    def check_timeout(self, now: float) -> None:
        """Hold where no sample of the leader has arrived within ``late``; call it regularly."""
        if self._recent and now - self._recent[-1].stamp > self._settings.late:
            self.hold(f"no leader samples for {now - self._recent[-1].stamp:.2f} s")

    def follow(self, sample: LeaderSample, measured: Joints) -> Command | None:
        """Return the command for a new sample of the leader; None where there is none.

        Args:
            sample: the leader now, in the follower's joints.
            measured: the follower now: start of an alignment, and the gripper's opening until the leader sends one.
        """
        if self.state not in (FollowerState.ALIGNING, FollowerState.MIRRORING) or not self._continues(sample):
            return None
        self._recent.append(sample)
        while sample.stamp - self._recent[0].stamp > _LONGEST_GAP:
            self._recent.popleft()
        if sample.gripper is not None:
            self._gripper = sample.gripper
        elif self._gripper is None:  # a held object must not fall
            self._gripper = measured.gripper
        if self.state is FollowerState.ALIGNING:
            if outside := self._outside(sample.positions, self._settings.near):
                self.hold(f"{outside}; move the leader back")
                return None
            positions, velocities = self._align(sample, measured)
        else:
            positions, velocities = self._within_range(sample)
        return Command(sample.stamp, positions, velocities, self._gripper)

    def distance(self, sample: LeaderSample, measured: Joints) -> Array:
        """Return leader minus follower, (n,) rad."""
        return sample.positions - measured.positions

    def _within_range(self, sample: LeaderSample) -> tuple[Array, Array]:
        """Return the leader's positions (n,) rad and velocities (n,) rad/s, limited to the follower's range.

        Sets ``reason`` while the leader is outside.
        """
        positions = np.clip(sample.positions, self._robot.position_min, self._robot.position_max)
        velocities = np.where(positions == sample.positions, self._speed(sample), 0.0)
        outside = self._outside(sample.positions, _OUTSIDE)
        self.reason = f"{outside}; the follower stays at its limit" if outside else ""
        return positions, velocities

    def _outside(self, positions: Array, slack: float) -> str:
        """Return the joints outside their range by more than ``slack`` [rad] as text; empty for none."""
        low, high, names = self._robot.position_min, self._robot.position_max, self._robot.joint_names
        beyond = np.maximum(low - positions, positions - high)
        return ", ".join(
            f"the leader is at {positions[i]:.2f} rad of {names[i]}, outside {low[i]:.2f} .. {high[i]:.2f}"
            for i in np.flatnonzero(beyond > slack)
        )

    def _continues(self, sample: LeaderSample) -> bool:
        """Check that a sample continues those before it; else hold the follower."""
        if not self._recent:
            return True
        last = self._recent[-1]
        since = sample.stamp - last.stamp
        if since < 0:
            self.hold(f"leader stamps go back ({-since:.3f} s)")
            return False
        if since > self._settings.late:
            self.hold(f"no leader samples for {since:.2f} s")
            return False
        step = np.abs(sample.positions - last.positions) - self._robot.velocity_max * since
        worst = int(np.argmax(step))
        if step[worst] > self._settings.jump:
            moved = abs(sample.positions[worst] - last.positions[worst])
            self.hold(f"the leader's {self._robot.joint_names[worst]} jumped by {moved:.2f} rad")
            return False
        return True

    def _align(self, sample: LeaderSample, measured: Joints) -> tuple[Array, Array]:
        """Return the follower's positions (n,) rad and velocities (n,) rad/s on the path to the leader."""
        if not self._placed:
            self._motion.reset(measured.positions)
            self._placed, self._moved_until = True, sample.stamp - _PERIOD
        speed = self._speed(sample)
        while self._moved_until + _PERIOD <= sample.stamp:
            self._moved_until += _PERIOD
            self._motion.step_toward(sample.positions, speed)
        distance = max(
            float(np.max(np.abs(sample.positions - self._motion.position))),
            float(np.max(np.abs(sample.positions - measured.positions))),
        )
        if distance > self._settings.near:
            self._agree_since = None
        elif self._agree_since is None:
            self._agree_since = sample.stamp
        elif sample.stamp - self._agree_since >= self._settings.settle:
            self.state = FollowerState.MIRRORING
        return self._motion.position, self._motion.velocity

    def _speed(self, sample: LeaderSample) -> Array:
        """Return the leader's velocity (n,) rad/s: as published, else the slope of its last positions."""
        if sample.velocities is not None:
            return sample.velocities
        earlier = next((s for s in reversed(self._recent) if sample.stamp - s.stamp >= _SPEED_WINDOW), self._recent[0])
        since = sample.stamp - earlier.stamp
        return (sample.positions - earlier.positions) / since if since > 0 else np.zeros_like(sample.positions)
