"""Jerk-limited motion of all joints, one tick at a time.

Ruckig (Berscheid and Kroeger, RSS 2021) plans from state to state; this adds what it leaves to its user: a tick that
cannot leave the position limits, and a stop as the answer to whatever cannot be planned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from ruckig import ControlInterface, InputParameter, Result, Ruckig, RuckigError, Synchronization, Trajectory

from genima.robot.model import RobotModel

Array = NDArray[np.float64]
_Progress = TypeVar("_Progress", float, NDArray[np.float64])
_TOLERANCE = 1e-6  # rad: a plan that ends on a limit may be rounded beyond it


@dataclass(frozen=True)
class MotionLimits:
    """What a motion may never exceed; all arrays (n,)."""

    position_min: Array  # rad
    position_max: Array  # rad
    velocity: Array  # rad/s
    acceleration: Array  # rad/s^2
    jerk: Array  # rad/s^3

    @classmethod
    def of(
        cls, robot: RobotModel, velocity: float, acceleration: float, jerk: float, margin: float = 0.0
    ) -> MotionLimits:
        """Fractions of a robot's limits, its joint ranges narrowed by ``margin`` [rad] at both ends."""
        return cls(
            robot.position_min + margin,
            robot.position_max - margin,
            velocity * robot.velocity_max,
            acceleration * robot.acceleration_max,
            jerk * robot.jerk_max,
        )


class Motion:
    """A set-point in motion: ``position`` rad, ``velocity`` rad/s, ``acceleration`` rad/s^2, each (n,).

    Every tick keeps velocity, acceleration and jerk within the limits, and positions too: a tick is taken only if the
    arm could still stop in time after it, otherwise the joint brakes at once. A motion that starts outside its range
    may only return.
    """

    def __init__(self, limits: MotionLimits, period: float) -> None:
        self.limits, self.period = limits, period
        self._input = InputParameter(len(limits.velocity))
        self._input.max_velocity = limits.velocity.tolist()
        self._input.max_acceleration = limits.acceleration.tolist()
        self._input.max_jerk = limits.jerk.tolist()
        self._ruckig = Ruckig(len(limits.velocity), period)
        self.reset(np.clip(np.zeros_like(limits.velocity), limits.position_min, limits.position_max))

    def reset(self, position: Array) -> None:
        """Be at rest at ``position`` (n,) rad."""
        self.position = np.array(position, float)
        self.velocity = np.zeros_like(self.position)
        self.acceleration = np.zeros_like(self.position)
        self._min = np.minimum(self.limits.position_min, self.position) - _TOLERANCE
        self._max = np.maximum(self.limits.position_max, self.position) + _TOLERANCE

    @property
    def at_rest(self) -> bool:
        """Whether the set-point has come to a stop."""
        return bool(np.all(np.abs(self.velocity) < 1e-6) and np.all(np.abs(self.acceleration) < 1e-4))

    def toward(self, position: Array, velocity: Array, duration: float = 0.0) -> None:
        """Advance one period on the way to ``position`` (n,) rad at ``velocity`` (n,) rad/s.

        The state is reached after ``duration`` seconds, or as soon after that as the limits allow.
        """
        limits = self.limits
        target = np.clip(position, limits.position_min, limits.position_max)
        speed = np.where(target == position, np.clip(velocity, -limits.velocity, limits.velocity), 0.0)
        request = self._input
        request.control_interface = ControlInterface.Position
        request.synchronization = Synchronization.Time
        request.target_position, request.target_velocity = target.tolist(), speed.tolist()
        request.minimum_duration = duration or None
        plan = self._plan(self.position, self.velocity, self.acceleration)
        if plan is None:
            self.stop()
            return
        ahead = _state(plan, self.period)
        inside = self._can_stop_inside(*ahead)
        if not inside.all():
            braking = self._braking_step()
            ahead = tuple(np.where(inside, a, b) for a, b in zip(ahead, braking, strict=True))
        self.position, self.velocity, self.acceleration = ahead

    def stop(self) -> None:
        """Advance one period of the quickest stop."""
        self.position, self.velocity, self.acceleration = self._braking_step()

    def _braking_step(self) -> tuple[Array, ...]:
        plan = self._stop_plan(self.position, self.velocity, self.acceleration)
        if plan is None:  # never seen; a state that Ruckig cannot stop can only be held
            zero = np.zeros_like(self.position)
            return self.position, zero, zero
        if plan.duration <= self.period:  # end at rest exactly: rounding must not make the joints creep
            rest, *_ = _state(plan, plan.duration)
            return rest, np.zeros_like(rest), np.zeros_like(rest)
        return _state(plan, self.period)

    def _can_stop_inside(self, position: Array, velocity: Array, acceleration: Array) -> NDArray[np.bool_]:
        # planned from 0, as Ruckig's extrema of a stop always include 0
        plan = self._stop_plan(np.zeros_like(position), velocity, acceleration)
        if plan is None:
            return np.zeros(len(position), bool)
        extrema = plan.position_extrema
        low = position + [e.min for e in extrema]
        high = position + [e.max for e in extrema]
        return (low >= self._min) & (high <= self._max)

    def _stop_plan(self, position: Array, velocity: Array, acceleration: Array) -> Trajectory | None:
        request = self._input
        request.control_interface = ControlInterface.Velocity
        request.synchronization = Synchronization.No
        request.target_velocity = [0.0] * len(position)
        request.minimum_duration = None
        return self._plan(position, velocity, acceleration)

    def _plan(self, position: Array, velocity: Array, acceleration: Array) -> Trajectory | None:
        request = self._input
        request.current_position = position.tolist()
        request.current_velocity = velocity.tolist()
        request.current_acceleration = acceleration.tolist()
        trajectory = Trajectory(len(position))
        try:
            result = self._ruckig.calculate(request, trajectory)
        except RuckigError:
            return None
        return trajectory if result in (Result.Working, Result.Finished) else None


def _state(plan: Trajectory, time: float) -> tuple[Array, ...]:
    return tuple(np.array(values) for values in plan.at_time(time))


def minimum_jerk(s: _Progress) -> _Progress:
    """The rest-to-rest path of least jerk, from 0 to 1 as time ``s`` goes from 0 to 1 (Flash and Hogan, 1985)."""
    return s**3 * (10 - 15 * s + 6 * s**2)
