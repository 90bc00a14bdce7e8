"""Drive a Franka arm by libfranka's Python bindings: states at 1 kHz, set-points to its own motion generator.

Set-points are sent to libfranka's asynchronous position handler: the robot's controller generates the 1 kHz motion,
within its own limits, under joint impedance. A late set-point is no fault then, and the arm comes to rest at the last
one. The alternative, a position in response to every robot state within a fraction of 1 ms, is not feasible in Python:
the bindings hold the interpreter's lock while they wait, and have no rate limiter. For the same reason the robot is
accessed from one thread only, and the hand from another process (:mod:`genima_nodes.franka_hand`).
"""

from __future__ import annotations

import faulthandler
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genima.control.command_guard import GuardSettings
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Command
from genima_nodes.drivers.franka_errors import stop_reason
from genima_nodes.drivers.optional_library import import_library

Array = NDArray[np.float64]
_CONNECT_TIMEOUT = 10.0  # s: libfranka has none for a robot that accepts a connection and does not respond
_FLANGE_TOLERANCE = 0.005  # m between the robot's and the model's flange
_AT_REST = 0.02  # rad/s
_STOP_STATES = 1000  # robot states, one a millisecond, in which the arm comes to rest
_GOAL_TOLERANCE = 0.001  # rad: libfranka's default


@dataclass(frozen=True)
class ArmSettings:
    """Motion settings and collision thresholds; the defaults are those of libfranka's examples."""

    speed: float = 1.0  # fraction of the joints' velocity limits
    stiffness: tuple[float, ...] = (3000, 3000, 3000, 2500, 2500, 2000, 2000)  # Nm/rad, of joint impedance
    collision_torques: tuple[float, ...] = (20, 20, 18, 18, 16, 14, 12)  # Nm of external torque that stop the arm
    collision_forces: tuple[float, ...] = (20, 20, 20, 25, 25, 25)  # N and Nm at the end effector that stop the arm
    late: float = GuardSettings.late  # s: maximum age of a command
    distance: float = GuardSettings.distance  # rad between a command and the arm
    rejoin: float = GuardSettings.rejoin  # rad between the first command and the arm


@dataclass(frozen=True)
class ArmState:
    """State of the robot."""

    positions: Array  # (7,) rad
    velocities: Array  # (7,) rad/s
    torques: Array  # (7,) Nm
    time: float  # s on the robot's clock, which counts milliseconds
    mode: str  # Idle, Move, Guiding, Reflex, UserStopped, AutomaticErrorRecovery, Other
    success_rate: float  # fraction of received commands over the last 100 ms


class FrankaArm:
    """Arm that follows commands; after a stop it waits for :meth:`recover`. Call all methods from one thread."""

    def __init__(self, address: str, robot: RobotModel, settings: ArmSettings | None = None) -> None:
        """Args:
        address: of the robot, host name or IP.
        robot: model of the configured robot.
        settings: motion settings and collision thresholds.

        Raises:
            GenimaError: if the bindings are not installed, or settings are out of range.
        """
        self._franka = import_library("pylibfranka")
        self._address, self._robot, self._settings = address, robot, settings or ArmSettings()
        _require_plausible(self._settings, robot)
        self.stopped = ""  # reason; empty without a stop
        self.refused = ""  # why the last command was rejected; empty if it was followed
        self.missed = 0  # number of robot states that were not read
        self._connection: Any = None
        self._handler: Any = None
        self._state: Any = None

    @property
    def connected(self) -> bool:
        """True while the robot is connected."""
        return self._connection is not None

    @property
    def following(self) -> bool:
        """True while the robot follows set-points."""
        return self._handler is not None

    def connect(self) -> ArmState:
        """Connect to the robot, and check that it is the configured one.

        The process ends if the robot accepts the connection but does not respond: libfranka then waits without end and
        holds the interpreter's lock.

        Raises:
            GenimaError: when it cannot be reached, is of another type, or is controlled by another program.
        """
        policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
        faulthandler.dump_traceback_later(_CONNECT_TIMEOUT, exit=True)
        try:
            # No real-time kernel is needed: the robot's controller generates the motion.
            self._connection = self._franka.Robot(self._address, self._franka.RealtimeConfig.kIgnore)
            self._state = self._connection.read_once()
        except (RuntimeError, self._franka.FrankaException) as error:
            self._connection = None
            raise GenimaError(f"robot {self._address}: {_line(error)}{_remedy(error)}") from None
        finally:
            faulthandler.cancel_dump_traceback_later()
            os.sched_setscheduler(0, policy, priority)  # libfranka raises the thread's priority above all others
        self._require_same_robot()
        self._detect_stop()
        return self._arm_state()

    def read(self) -> ArmState:
        """Return the latest state; waits up to 1 ms for it.

        Raises:
            GenimaError: when the connection is lost.
        """
        if self._connection is None:
            raise GenimaError(self.stopped or f"robot {self._address}: not connected")
        before = self._state.time.to_sec()
        try:
            self._state = self._connection.read_once()
        except (RuntimeError, self._franka.FrankaException) as error:
            self.stopped = f"robot {self._address}: connection lost ({_line(error)})"
            self._release_handler()
            self._connection = None
            raise GenimaError(self.stopped) from None
        self.missed += max(0, round(1000 * (self._state.time.to_sec() - before)) - 1)
        self._detect_stop()
        return self._arm_state()

    def follow(self, command: Command, now: float) -> bool:
        """Set the robot's target; return True if it was accepted, else ``refused`` has the reason.

        The first target must be near the arm, which moves from its measured position.
        """
        self.refused = self._rejection_reason(command, now)
        if self.refused:
            return False
        franka = self._franka
        if self._handler is None and not self._start_control():
            return False
        target = franka.AsyncPositionControlHandler.JointPositionTarget(command.positions.tolist())
        result = self._handler.set_joint_position_target(target)
        if not result.was_successful:
            self._stop(f"robot: command refused ({result.error_message})")
        return bool(result.was_successful)

    def recover(self) -> str:
        """Recover the stopped arm, which must be at rest; it then waits for a command near its position.

        Returns:
            Result, as text.

        Raises:
            GenimaError: when the arm cannot be recovered now; names the remedy.
        """
        reason = self.stopped
        if self._connection is None:
            self.connect()
        elif not reason:
            return "arm: not stopped"
        modes, state = self._franka.RobotMode, self._state
        if state.robot_mode == modes.UserStopped:
            raise GenimaError("arm: the user stop is pressed, or the joints are locked; release them, then recover")
        if state.robot_mode == modes.Guiding:
            raise GenimaError("arm: guided by hand; release it, then recover")
        if np.max(np.abs(state.dq)) > _AT_REST:
            raise GenimaError("arm: still moving; recover when it is at rest")
        try:
            if state.robot_mode == modes.Reflex or state.current_errors:
                self._connection.automatic_error_recovery()
            elif state.robot_mode == modes.Move:  # from before the connection was lost
                self._connection.stop()
            for _ in range(_STOP_STATES):
                self._state = self._connection.read_once()
                if self._state.robot_mode == modes.Idle and not self._state.current_errors:
                    break
            else:
                problem = stop_reason(self._state) or f"mode {self._state.robot_mode.name}"
                raise GenimaError(f"robot: not recovered ({problem})")
        except (RuntimeError, self._franka.FrankaException) as error:
            raise GenimaError(f"robot: not recovered ({_line(error)})") from None
        self._release_handler()
        self.stopped = self.refused = ""
        return f"robot: recovered (it had stopped: {reason}); the next command near the arm moves it"

    def close(self) -> None:
        """Stop, and disconnect."""
        if self._handler is not None and self._connection is not None:
            try:
                # Come to rest before the handler ends: its own stop sends zeros for positions.
                self._connection.stop()
                for _ in range(_STOP_STATES):
                    self._state = self._connection.read_once()
                    if self._state.robot_mode != self._franka.RobotMode.Move:
                        break
            except (RuntimeError, self._franka.FrankaException):  # stopped by itself, or not reachable
                pass
        self._release_handler()
        self._connection = None

    def _require_same_robot(self) -> None:
        """Check the flange pose against the model: the bindings do not report the robot's type."""
        state, robot = self._state, self._robot
        q = np.array(state.q)
        if len(robot.joint_names) != len(q):
            self.close()
            raise GenimaError(f"robot {self._address}: {len(q)} joints; {robot.name} has {len(robot.joint_names)}")
        T_base_tool, T_flange_tool = (np.reshape(T, (4, 4)).T for T in (state.O_T_EE, state.F_T_EE))  # column-major
        T_base_flange = T_base_tool @ np.linalg.inv(T_flange_tool)
        distance = np.linalg.norm(T_base_flange[:3, 3] - robot.link_poses(q)[-2, :3, 3])
        if distance > _FLANGE_TOLERANCE:
            self.close()
            raise GenimaError(
                f"robot {self._address}: not a {robot.arm} (its flange is {1000 * distance:.0f} mm from the model's); "
                "choose another model of config/robots"
            )
        outside = (q < robot.position_min) | (q > robot.position_max)
        if outside.any():
            names = ", ".join(np.array(robot.joint_names)[outside])
            self.close()
            raise GenimaError(
                f"robot {self._address}: outside the range of a {robot.arm} ({names}); move it by hand, or choose "
                "another model of config/robots"
            )

    def _rejection_reason(self, command: Command, now: float) -> str:
        if self.stopped:
            return f"arm: stopped ({self.stopped})"
        if (age := now - command.stamp) > self._settings.late:
            return f"command: late ({age:.2f} s old); holding"
        distances = np.abs(command.positions - np.array(self._state.q))
        limit = self._settings.distance if self.following else self._settings.rejoin
        if not (distance := distances.max()) <= limit:  # also for NaN
            joint = self._robot.joint_names[int(distances.argmax())]
            return (
                f"command: {joint} {distance:.2f} rad from the arm ({limit:g} are allowed); start the teleoperation "
                "or the task again"
            )
        return ""

    def _start_control(self) -> bool:
        """Start the robot's control loop at its position."""
        settings, handlers = self._settings, self._franka.AsyncPositionControlHandler
        try:
            torques, forces = list(settings.collision_torques), list(settings.collision_forces)
            self._connection.set_collision_behavior(torques, torques, forces, forces)
            self._connection.set_joint_impedance(list(settings.stiffness))
        except (RuntimeError, self._franka.FrankaException) as error:
            self._stop(f"robot: settings refused ({_line(error)})")
            return False
        speeds = (settings.speed * self._robot.velocity_max).tolist()
        result = handlers.configure(self._connection, handlers.Configuration(speeds, _GOAL_TOLERANCE))
        if result.error_message is not None:
            self._stop(f"robot: control not started ({_line(result.error_message)})")
            return False
        self._handler = result.handler
        return True

    def _detect_stop(self) -> None:
        """Detect a stop of the robot; idle between two targets is no stop."""
        if not self.stopped and (reason := stop_reason(self._state)):
            self._stop(reason)

    def _stop(self, reason: str) -> None:
        self.stopped = reason
        self._release_handler()

    def _release_handler(self) -> None:
        """Release the control handler: its destructor would stop a finished motion, which is an error."""
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.stop_control()

    def _arm_state(self) -> ArmState:
        state = self._state
        return ArmState(
            np.array(state.q),
            np.array(state.dq),
            np.array(state.tau_J),
            state.time.to_sec(),
            state.robot_mode.name,
            state.control_command_success_rate,
        )


def _require_plausible(settings: ArmSettings, robot: RobotModel) -> None:
    joints, name = len(robot.joint_names), robot.name
    for field, length, most in (
        ("stiffness", joints, 1e4),
        ("collision_torques", joints, 200),
        ("collision_forces", 6, 200),
    ):
        values = np.array(getattr(settings, field), float)
        if values.shape != (length,) or not np.all((values > 0) & (values <= most)):
            raise GenimaError(
                f"franka_arm: {field} must be {length} positive numbers up to {most:g}, not {values.tolist()} ({name})"
            )
    for field, most in (("speed", 1.0), ("late", 0.5), ("distance", 1.0), ("rejoin", 0.5)):
        if not 0 < (value := getattr(settings, field)) <= most:
            raise GenimaError(f"franka_arm: {field} is {value}; it must be more than 0 and at most {most:g}")


def _line(error: object) -> str:
    return " ".join(str(error).removeprefix("libfranka: ").split())


def _remedy(error: Exception) -> str:
    """Return the remedy for a failed connection."""
    text = str(error).lower()
    if "version" in text:
        return "; pylibfranka 0.21 needs an FR3 with system 5.9 or newer, a Panda needs franka_ros2's older libfranka"
    if "timeout" in text or "connection error" in text:
        return "; check the address, that the robot is on, and the cable to its control box"
    return ""
