"""Simulated arm with a robot's 1 kHz torque loop: controllers of users' robots, and the reflexes of an FR3.

The controllers treat targets as their sources do (listed in config/backends): CRISP's and GELLO's do not interpolate;
a target is a step for their stiffness, smoothed by CRISP's torque rate and franka_ros2's limiter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import mujoco
import numpy as np
from numpy.typing import NDArray

from genima.control.jerk_limited_motion import minimum_jerk
from genima.robot.model import RobotModel
from genima.types import Joints
from genima_sim.simulation import Simulation

Array = NDArray[np.float64]
PERIOD = 1e-3  # s
TORQUE = np.array([87.0] * 4 + [12.0] * 3)  # Nm, of the FR3
TORQUE_RATE = 1000.0 * PERIOD  # Nm a step: franka_ros2 limits it (kMaxTorqueRate), else the robot would trip
_STALE = 0.5  # s, of GELLO's controller
_SPEED = 0.2  # fraction of the arm's maximum, of GELLO's first motion


class Controller(ABC):
    """Controller: torques (n,) Nm from targets. All times are s on the clock of the stamps."""

    def __init__(self, robot: RobotModel) -> None:
        self.robot = robot
        self.shut_down = False  # of the controller manager, by this controller

    @abstractmethod
    def activate(self, now: float, q: Array) -> None:
        """Activate the controller."""

    @abstractmethod
    def target(self, now: float, stamp: float, positions: Array, velocities: Array | None, ahead: float) -> None:
        """Receive a target."""

    @abstractmethod
    def torques(self, now: float, q: Array, dq: Array) -> Array:
        """Return the torques of the next millisecond."""


class Crisp(Controller):
    """crisp_controllers' CartesianController with task gains 0, as crisp_controllers_demos has it."""

    stiffness = 5.0 * np.array([150.0] * 4 + [50.0, 30.0, 10.0])
    damping = 0.5 * np.array([150.0] * 4 + [50.0, 30.0, 10.0])
    max_torque = 10.0  # Nm, nullspace.max_tau as in config/controllers: below the wrist's limit
    rate = 0.5  # Nm a step, max_delta_tau

    def activate(self, now: float, q: Array) -> None:
        self._q, self._dq, self._last = q, np.zeros_like(q), np.zeros_like(q)
        if (pending := getattr(self, "_pending", None)) is not None:  # received while it was inactive
            self.target(now, *pending)

    def target(self, now: float, stamp: float, positions: Array, velocities: Array | None, ahead: float) -> None:
        self._pending = stamp, positions, velocities, ahead
        self._q = positions
        if velocities is not None:
            self._dq = velocities

    def torques(self, now: float, q: Array, dq: Array) -> Array:
        self._pending = None
        torque = self.stiffness * (self._q - q) + self.damping * (self._dq - dq)
        torque = np.clip(torque, -self.max_torque, self.max_torque)
        self._last = self._last + np.clip(torque - self._last, -self.rate, self.rate)
        return self._last


class Gello(Controller):
    """franka_fr3_arm_controllers' JointImpedanceController."""

    stiffness = np.array([240.0] * 4 + [100.0, 60.0, 20.0])
    damping = np.array([20.0] * 3 + [10.0] * 3 + [5.0])

    def __init__(self, robot: RobotModel) -> None:
        super().__init__(robot)
        self._goal: Array | None = None
        self._valid = False
        self._last_stamp: float | None = None
        # first motion: start time, start, goal, duration in s
        self._start: tuple[float, Array, Array, float] | None = None
        self._arrived = False

    def activate(self, now: float, q: Array) -> None:
        self._last_stamp = now

    def target(self, now: float, stamp: float, positions: Array, velocities: Array | None, ahead: float) -> None:
        if self._last_stamp is None:
            return
        self._valid = now - self._last_stamp < _STALE and now - stamp < _STALE
        self._goal, self._last_stamp = positions, stamp

    def torques(self, now: float, q: Array, dq: Array) -> Array:
        if self._start is None:
            if not self._valid or self._goal is None:
                return np.zeros_like(q)
            seconds = 1.875 * float(np.max(np.abs(self._goal - q) / (_SPEED * self.robot.velocity_max)))
            self._start = now, q, self._goal, max(seconds, PERIOD)
        begin, start, end, seconds = self._start
        goal = start + (end - start) * minimum_jerk(min(1.0, (now - begin) / seconds))
        self._arrived = self._arrived or now - begin >= seconds
        if self._arrived:
            self.shut_down = self.shut_down or not self._valid  # rclcpp::shutdown()
            assert self._goal is not None
            goal = self._goal
        return self.stiffness * (goal - q) - self.damping * dq


class Trajectory(Controller):
    """joint_trajectory_controller on the effort interface, with interpolate_from_desired_state."""

    stiffness = np.array([600.0] * 4 + [250.0, 150.0, 50.0])
    damping = np.array([30.0] * 4 + [10.0, 10.0, 5.0])

    def __init__(self, robot: RobotModel, moving_end: bool = True) -> None:
        """``moving_end`` is allow_nonzero_velocity_at_trajectory_end."""
        super().__init__(robot)
        self.rejected = 0
        self._moving_end = moving_end

    def activate(self, now: float, q: Array) -> None:
        self._begin, self._seconds = now, 0.0
        self._ends = (q, np.zeros_like(q)), (q, np.zeros_like(q))

    def target(self, now: float, stamp: float, positions: Array, velocities: Array | None, ahead: float) -> None:
        speed = np.zeros_like(positions) if velocities is None else velocities
        if not self._moving_end and np.any(np.abs(speed) > 1.2e-7):
            self.rejected += 1
            return
        self._ends = self.desired(now), (positions, speed)
        self._begin, self._seconds = now, ahead

    def desired(self, now: float) -> tuple[Array, Array]:
        """Return positions and velocities, (n,) each: a cubic to the point, which is then held."""
        (p0, v0), (p1, v1) = self._ends
        elapsed = max(0.0, now - self._begin)  # physics may be behind the clock of the messages
        if elapsed >= self._seconds:
            return p1, v1
        T, s = self._seconds, elapsed / self._seconds
        positions = (1 + 2 * s) * (1 - s) ** 2 * p0 + s * (1 - s) ** 2 * T * v0 + s**2 * (3 - 2 * s) * p1
        positions = positions + s**2 * (s - 1) * T * v1
        velocities = 6 * s * (s - 1) * (p0 - p1) / T + (1 - s) * (1 - 3 * s) * v0 + s * (3 * s - 2) * v1
        return positions, velocities

    def torques(self, now: float, q: Array, dq: Array) -> Array:
        position, velocity = self.desired(now)
        return self.stiffness * (position - q) + self.damping * (velocity - dq)


CONTROLLERS: dict[str, type[Controller]] = {"crisp": Crisp, "gello": Gello, "jtc": Trajectory}


class PositionWatch:
    """FR3's checks of positions that are commanded directly, one per millisecond."""

    def __init__(self, robot: RobotModel, q: Array) -> None:
        self._robot = robot
        self._q, self._dq, self._ddq = q, np.zeros_like(q), np.zeros_like(q)

    def error(self, q: Array) -> str | None:
        """Return the name of the robot's error after the next commanded position (n,), if any."""
        robot = self._robot
        dq = (q - self._q) / PERIOD
        ddq = (dq - self._dq) / PERIOD
        dddq = (ddq - self._ddq) / PERIOD
        low, high = robot.velocity_limits(q)
        self._q, self._dq, self._ddq = q, dq, ddq
        if np.any((q < robot.position_min) | (q > robot.position_max)):
            return "joint_motion_generator_position_limits_violation"
        if np.any((dq < low) | (dq > high)):
            return "joint_motion_generator_velocity_limits_violation"
        if np.any(np.abs(ddq) > robot.acceleration_max):
            return "joint_motion_generator_velocity_discontinuity"
        if np.any(np.abs(dddq) > robot.jerk_max):
            return "joint_motion_generator_acceleration_discontinuity"
        return None


class TorqueArm:
    """Arm of a simulation, in steps of a millisecond. ``controller`` None: the brakes hold it."""

    def __init__(self, simulation: Simulation, robot: RobotModel) -> None:
        """``robot`` has the limits of the reflexes, and the simulation's joint names."""
        self.simulation, self.robot = simulation, robot
        model = simulation.model
        self._motors = np.array([model.actuator(name).id for name in robot.joint_names])
        self._qpos = np.array([model.joint(name).qposadr[0] for name in robot.joint_names])
        self._dofs = np.array([model.joint(name).dofadr[0] for name in robot.joint_names])
        self._servo = model.actuator_gainprm[self._motors].copy(), model.actuator_biasprm[self._motors].copy()
        self.controller: Controller | None = None
        self.error = ""  # the robot's, until it is recovered
        self.last_error = ""
        self.gripper = 1.0  # commanded open fraction
        self.reset()

    def reset(self, task: str = "push_button", seed: int = 0) -> None:
        """Begin an episode; the brakes hold the arm."""
        self._brake()
        self.simulation.reset(task, seed)
        self._rest, self._tau = self.q, np.zeros(len(self._motors))

    @property
    def q(self) -> Array:
        """Measured positions (n,) rad."""
        return self.simulation.data.qpos[self._qpos].copy()

    @property
    def dq(self) -> Array:
        """Measured velocities (n,) rad/s."""
        return self.simulation.data.qvel[self._dofs].copy()

    @property
    def joints(self) -> Joints:
        """Joints of the simulation."""
        return self.simulation.joints()

    def switch(self, controller: Controller | None, now: float) -> None:
        """Activate a controller, or the brakes."""
        if controller is None:
            self._brake()
        else:
            model = self.simulation.model
            model.actuator_gainprm[self._motors], model.actuator_biasprm[self._motors] = 0.0, 0.0
            model.actuator_gainprm[self._motors, 0] = 1.0  # motors
            controller.activate(now, self.q)
            self._tau = np.zeros(len(self._motors))
        self.controller = controller

    def close(self) -> None:
        """Restore the simulation's actuators."""
        self._brake()

    def step(self, now: float) -> None:
        """Simulate one millisecond."""
        q, dq = self.q, self.dq
        if self.controller is not None:
            if self.controller.shut_down:
                self.switch(None, now)
            elif error := self._reflex(q, dq):
                self.trip(error, now)
        if self.controller is None:
            self.simulation.command(self._rest, self.gripper)
        else:
            torque = self.controller.torques(now, q, dq)
            self._tau = self._tau + np.clip(torque - self._tau, -TORQUE_RATE, TORQUE_RATE)
            if np.any(np.abs(self._tau) > TORQUE):
                self.trip("tau_j_range_violation", now)
                return
            self.simulation.command(self._tau, self.gripper)
        self.simulation.step(PERIOD)

    def trip(self, error: str, now: float) -> None:
        """Stop the arm with an error, as in a reflex."""
        self.error = self.last_error = error
        self.switch(None, now)

    def _reflex(self, q: Array, dq: Array) -> str:
        if np.any((q < self.robot.position_min) | (q > self.robot.position_max)):
            return "joint_position_limits_violation"
        low, high = self.robot.velocity_limits(q)
        return "joint_velocity_violation" if np.any((dq < low) | (dq > high)) else ""

    def _brake(self) -> None:
        model = self.simulation.model
        model.actuator_gainprm[self._motors], model.actuator_biasprm[self._motors] = self._servo
        self._rest = self.q
        mujoco.mj_forward(model, self.simulation.data)
