"""Jerk-limited motion of all joints, one period at a time.

Ruckig (Berscheid and Kroeger, RSS 2021) plans from state to state. This module adds position limits in every period,
and a stop where no plan exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from ruckig import ControlInterface, InputParameter, Result, Ruckig, RuckigError, Synchronization, Trajectory

from genima.robot.model import RobotModel, VelocityEnvelope

Array = NDArray[np.float64]
_Progress = TypeVar("_Progress", float, NDArray[np.float64])
_MIN_VELOCITY = 1e-3  # rad/s: limit that a plan needs at least
_ROUNDING = 1e-9  # rad/s
_TOLERANCE = 1e-6  # rad: a plan that ends on a limit may be rounded beyond it
_SPACING = 0.05  # rad between the configurations of a stop that are checked against the regions: some 4 cm of an arm


@dataclass(frozen=True)
class MotionLimits:
    """Limits of a motion; all arrays (n,)."""

    position_min: Array  # rad
    position_max: Array  # rad
    velocity: Array  # rad/s
    acceleration: Array  # rad/s^2
    jerk: Array  # rad/s^3
    braking: VelocityEnvelope | None = None  # reduces the velocity near the ends of the joints' ranges
    braking_fraction: float = 1.0  # of that velocity

    @classmethod
    def of(
        cls, robot: RobotModel, velocity: float, acceleration: float, jerk: float, margin: float = 0.0
    ) -> MotionLimits:
        """Return fractions of a robot's limits, its joint ranges narrowed by ``margin`` [rad] at both ends."""
        return cls(
            robot.position_min + margin,
            robot.position_max - margin,
            velocity * robot.velocity_max,
            acceleration * robot.acceleration_max,
            jerk * robot.jerk_max,
            robot.braking,
            velocity,
        )

    def velocities(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """Return lowest and highest velocity (n,) rad/s of a motion between the positions (n,) rad."""
        if self.braking is None:
            return -self.velocity, self.velocity
        low, _ = self.braking.velocities(lower)
        _, high = self.braking.velocities(upper)
        fraction = self.braking_fraction
        return np.maximum(-self.velocity, fraction * low), np.minimum(self.velocity, fraction * high)


class MotionFilter(Protocol):
    """Check of a motion against a region."""

    def allows(self, now: Array, path: Array) -> bool:
        """True where an arm at ``now`` (n,) rad may come to rest along ``path`` (m, n)."""


class JerkLimitedMotion:
    """State of a motion: ``position`` rad, ``velocity`` rad/s, ``acceleration`` rad/s^2, each (n,).

    Every period keeps position, velocity, acceleration and jerk within the limits: a step is taken only if the arm can
    still stop in time after it, otherwise the joint brakes at once. A motion that starts outside its range may only
    return. Where the velocity limit decreases towards the end of a range, a joint is never faster than the limit where
    its stop would end: so it keeps the limit on all its path.
    """

    def __init__(self, limits: MotionLimits, period: float, forbidden_regions: Sequence[MotionFilter] = ()) -> None:
        """``forbidden_regions``: where the arm may not be; it brakes while its stop is still clear of them."""
        self.limits, self.period = limits, period
        self.blocking_region: int | None = None  # index of the region that made the arm brake in the last period
        self._forbidden_regions = tuple(forbidden_regions)
        self._input = InputParameter(len(limits.velocity))
        self._allow(limits)
        self._ruckig = Ruckig(len(limits.velocity), period)
        self.reset(np.clip(np.zeros_like(limits.velocity), limits.position_min, limits.position_max))

    def reset(self, position: Array) -> None:
        """Set the motion at rest at ``position`` (n,) rad."""
        self.position = np.array(position, float)
        self.velocity = np.zeros_like(self.position)
        self.acceleration = np.zeros_like(self.position)
        self._min = np.minimum(self.limits.position_min, self.position) - _TOLERANCE
        self._max = np.maximum(self.limits.position_max, self.position) + _TOLERANCE

    @property
    def at_rest(self) -> bool:
        """True where the set-point does not move."""
        return bool(np.all(np.abs(self.velocity) < 1e-6) and np.all(np.abs(self.acceleration) < 1e-4))

    def step_toward(self, position: Array, velocity: Array, duration: float = 0.0) -> None:
        """Advance one period towards ``position`` (n,) rad at ``velocity`` (n,) rad/s.

        The state is reached after ``duration`` seconds, or as soon after that as the limits allow.
        """
        limits = self.limits
        target = np.clip(position, limits.position_min, limits.position_max)
        bounds = limits.velocities(target, target)
        speed = np.where(target == position, np.clip(velocity, *bounds), 0.0)
        ahead = self._braking_step()
        if limits.braking is not None:
            # slow enough for the target everywhere: the local limit alone would be too fast
            ahead, _ = self._next_state(ahead, target, speed, duration, bounds)
            _, path = self._predict_stop(self.position, self.velocity, self.acceleration)
            bounds = limits.velocities(path[-1], path[-1])
        ahead, path = self._next_state(ahead, target, speed, duration, bounds)
        regions = enumerate(self._forbidden_regions)
        self.blocking_region = next((i for i, region in regions if not region.allows(self.position, path)), None)
        if self.blocking_region is not None:
            ahead = self._braking_step()
        self.position, self.velocity, self.acceleration = ahead

    def _next_state(
        self, otherwise: tuple[Array, ...], target: Array, speed: Array, duration: float, bounds: tuple[Array, Array]
    ) -> tuple[tuple[Array, ...], Array]:
        """Return the next state towards a target and the path of the stop after it.

        Joints that may not take that step take ``otherwise``.
        """
        request, (low, high) = self._input, bounds
        request.min_velocity = np.minimum(np.minimum(low, speed), -_MIN_VELOCITY).tolist()
        request.max_velocity = np.maximum(np.maximum(high, speed), _MIN_VELOCITY).tolist()
        request.control_interface = ControlInterface.Position
        request.synchronization = Synchronization.Time
        request.target_position, request.target_velocity = target.tolist(), speed.tolist()
        request.minimum_duration = duration or None
        if (plan := self._plan(self.position, self.velocity, self.acceleration)) is not None:
            ahead = _state(plan, self.period)
            inside, path = self._predict_stop(*ahead)
            if inside.all():
                return ahead, path
            otherwise = tuple(np.where(inside, a, b) for a, b in zip(ahead, otherwise, strict=True))
        return otherwise, self._predict_stop(*otherwise)[1]

    def stop(self, brakes: MotionLimits | None = None) -> None:
        """Advance one period of the quickest stop, within the limits ``brakes`` if given."""
        self.blocking_region = None
        self.position, self.velocity, self.acceleration = self._braking_step(brakes)

    def _braking_step(self, brakes: MotionLimits | None = None) -> tuple[Array, ...]:
        self._allow(brakes or self.limits)
        plan = self._stop_plan(self.position, self.velocity, self.acceleration)
        self._allow(self.limits)
        if plan is None:  # not observed; a state that Ruckig cannot stop is held
            zero = np.zeros_like(self.position)
            return self.position, zero, zero
        if plan.duration <= self.period:  # end at rest exactly: rounding must not make the joints drift
            rest, *_ = _state(plan, plan.duration)
            return rest, np.zeros_like(rest), np.zeros_like(rest)
        return _state(plan, self.period)

    def _predict_stop(self, position: Array, velocity: Array, acceleration: Array) -> tuple[NDArray[np.bool_], Array]:
        """Return whether each joint keeps its limits if stopped from this state, (n,), and the path of the stop (m, n).

        Its points are about ``_SPACING`` apart; the first is this position, the last is at rest.
        """
        # planned from 0, as Ruckig's extrema of a stop always include 0
        plan = self._stop_plan(np.zeros_like(position), velocity, acceleration)
        if plan is None:
            return np.zeros(len(position), bool), position[None]
        extrema = plan.position_extrema
        lowest, highest = position + [e.min for e in extrema], position + [e.max for e in extrema]
        inside = (lowest >= self._min) & (highest <= self._max)
        if self.limits.braking is not None:
            # the velocity still changes until the acceleration is zero
            gained = acceleration * np.abs(acceleration) / (2 * self.limits.jerk)
            low, high = self.limits.velocities(lowest, highest)
            inside &= velocity + np.minimum(gained, 0) >= np.minimum(low, 0) - _ROUNDING
            inside &= velocity + np.maximum(gained, 0) <= np.maximum(high, 0) + _ROUNDING
        count = int(np.max(highest - lowest) / _SPACING) + 1
        return inside, position + [plan.at_time(plan.duration * i / count)[0] for i in range(count + 1)]

    def _stop_plan(self, position: Array, velocity: Array, acceleration: Array) -> Trajectory | None:
        request = self._input
        request.control_interface = ControlInterface.Velocity
        request.synchronization = Synchronization.No
        request.target_velocity = [0.0] * len(position)
        request.min_velocity = None  # symmetric: the velocity at the start of a stop may be over the limit
        request.max_velocity = self.limits.velocity.tolist()
        request.minimum_duration = None
        return self._plan(position, velocity, acceleration)

    def _allow(self, limits: MotionLimits) -> None:
        self._input.max_velocity = limits.velocity.tolist()
        self._input.max_acceleration = limits.acceleration.tolist()
        self._input.max_jerk = limits.jerk.tolist()

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
    """Return the minimum-jerk path from 0 to 1 for time ``s`` from 0 to 1 (Flash and Hogan, 1985)."""
    return s**3 * (10 - 15 * s + 6 * s**2)
