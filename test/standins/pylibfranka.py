"""Stand-in for pylibfranka 0.21.3: the same names and arguments (see pylibfranka-0.21.3.json), and a simulated robot.

:func:`add_robot` adds a robot at an address. It moves to targets as an FR3 does: Ruckig within the arm's limits. It
is at least as strict as the real one:

- a target outside a joint's range, or that jumps from the one before, is a reflex;
- a handler that ends without ``stop_control`` after the end of the motion stops a resting robot, which is an error:
  counted in ``needless_stops``;
- recovery is rejected without a reflex, and while the user stop is pressed.

Each ``read_once`` advances the time by a millisecond, and waits for it if ``real_time`` is set.
"""

from __future__ import annotations

import enum
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ruckig import InputParameter, OutputParameter, Result, Ruckig

from genima.robot.model import RobotModel

_STEP = 0.001  # s
_SLACK = 0.12  # rad that a target may be from the last, beyond what the joint's speed allows
_JOINTS = range(7)
_RECORD = json.loads((Path(__file__).parent / "pylibfranka-0.21.3.json").read_text())


class FrankaException(Exception):
    pass


class CommandException(RuntimeError):
    pass


class ControlException(RuntimeError):
    pass


class NetworkException(RuntimeError):
    pass


class RealtimeConfig(enum.Enum):
    kEnforce = 0
    kIgnore = 1


class RobotMode(enum.Enum):
    Other = 0
    Idle = 1
    Move = 2
    Guiding = 3
    Reflex = 4
    UserStopped = 5
    AutomaticErrorRecovery = 6


class Duration:
    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    def to_sec(self) -> float:
        return self._seconds


class Errors:
    """All error flags of the real class."""

    def __init__(self) -> None:
        for name, arguments in _RECORD["Errors"].items():
            if arguments is None:
                setattr(self, name, False)

    def __bool__(self) -> bool:
        return any(vars(self).values())


class RobotState:
    """All attributes of the real class; those not simulated are 0."""

    def __init__(self) -> None:
        for name in _RECORD["RobotState"]:
            setattr(self, name, [0.0] * 7)
        self.cartesian_collision = [0.0] * 6
        self.current_errors, self.last_motion_errors = Errors(), Errors()


class GripperState:
    def __init__(self, width: float, max_width: float, is_grasped: bool) -> None:
        self.width, self.max_width, self.is_grasped = width, max_width, is_grasped
        self.temperature, self.time = 30, Duration()


class _Arm:
    """Simulated robot, with the actions of tests."""

    def __init__(self, robot: RobotModel, positions: np.ndarray, real_time: bool) -> None:
        self.robot, self.real_time = robot, real_time
        self.mode = RobotMode.Idle
        self.cable = self.user_stop = True  # plugged in; released
        self.needless_stops = 0
        self.targets: list[tuple[float, np.ndarray]] = []  # the robot's time in s, rad
        self.motion: list[np.ndarray] = []  # rad, of every ms
        self.settings: list[tuple[str, tuple[Any, ...]]] = []
        self.errors, self.last_errors = Errors(), Errors()
        self.collision = [0.0] * 7
        self.hand = _Hand()
        self._now = 0  # ms
        self._clock = time.monotonic()
        self._start(positions)

    def collide(self, joint: int) -> None:
        """Simulate a collision at a joint, counted from 1."""
        self.collision[joint - 1] = 1.0
        self.reflex("joint_reflex")

    def reflex(self, flag: str) -> None:
        """Stop at once with an error flag."""
        setattr(self.errors, flag, True)
        setattr(self.last_errors, flag, True)
        self.mode, self.speeds = RobotMode.Reflex, None
        self._start(np.array(self._input.current_position))

    def press_user_stop(self, pressed: bool) -> None:
        self.user_stop = not pressed
        self.mode, self.speeds = RobotMode.UserStopped if pressed else RobotMode.Idle, None
        self._start(np.array(self._input.current_position))

    def set_velocity(self, speed: float) -> None:
        """Set the velocity of all joints in rad/s, in any mode."""
        self._input.current_velocity = [speed] * 7

    def move_by_hand(self, positions: np.ndarray) -> None:
        """Move the arm to positions."""
        self._start(np.asarray(positions, float))

    def begin(self, speeds: list[float]) -> None:
        self.speeds = np.array(speeds)
        self._input.max_velocity = speeds

    def set_target(self, target: np.ndarray) -> None:
        robot, seconds = self.robot, 1e-3 * self._now
        before, since = (self.targets[-1][1], seconds - self.targets[-1][0]) if self.targets else (self.q, 0.0)
        if self._fresh:  # a motion that has just begun
            before, since, self._fresh = self.q, 0.0, False
        self.targets.append((seconds, target))
        if np.any((target < robot.position_min) | (target > robot.position_max)):
            self.reflex("joint_motion_generator_position_limits_violation")
        elif np.any(np.abs(target - before) > _SLACK + robot.velocity_max * since):
            self.reflex("joint_motion_generator_velocity_discontinuity")
        else:
            self._input.target_position = target.tolist()
            self.mode = RobotMode.Move

    @property
    def q(self) -> np.ndarray:
        return np.array(self._input.current_position)

    def read(self) -> RobotState:
        if not self.cable:
            raise NetworkException("libfranka: UDP receive: Timeout")
        steps = 1
        if self.real_time:
            time.sleep(max(0.0, self._clock + _STEP - time.monotonic()))
            steps = int((time.monotonic() - self._clock) / _STEP)
            self._clock += steps * _STEP
        for _ in range(steps):
            self._tick()
        state = RobotState()
        state.q = state.q_d = self.q.tolist()
        state.dq = state.dq_d = list(self._input.current_velocity)
        state.robot_mode, state.time = self.mode, Duration(1e-3 * self._now)
        state.current_errors, state.last_motion_errors = self.errors, self.last_errors
        state.joint_collision = list(self.collision)
        state.control_command_success_rate = 1.0 if self.mode is RobotMode.Move else 0.0
        T_flange_tool = np.eye(4)
        T_flange_tool[:3, 3] = 0.0, 0.0, 0.1034
        state.F_T_EE = T_flange_tool.T.ravel().tolist()
        state.O_T_EE = (self.robot.link_poses(self.q)[-2] @ T_flange_tool).T.ravel().tolist()
        return state

    def _start(self, positions: np.ndarray) -> None:
        """Reset the motion to rest at positions."""
        self._input, self._output = InputParameter(7), OutputParameter(7)
        self._ruckig = Ruckig(7, _STEP)
        self._input.current_position = self._input.target_position = positions.tolist()
        self._input.current_velocity = self._input.current_acceleration = [0.0] * 7
        self._input.max_velocity = self.robot.velocity_max.tolist()
        self._input.max_acceleration = self.robot.acceleration_max.tolist()
        self._input.max_jerk = self.robot.jerk_max.tolist()
        self._fresh = True

    def _tick(self) -> None:
        self._now += 1
        if self.mode is RobotMode.Move:
            result = self._ruckig.update(self._input, self._output)
            self._output.pass_to_input(self._input)
            if result == Result.Finished:
                self.mode = RobotMode.Idle
        self.motion.append(self.q)


class _Hand:
    """Simulated hand, with an object between the fingers."""

    def __init__(self) -> None:
        self.width, self.max_width, self.object = 0.08, 0.08, 0.0  # m
        self.done: list[tuple[str, tuple[float, ...]]] = []
        self.fails = False
        self.slow = 0.0  # s that a motion takes


_robots: dict[str, _Arm] = {}


def add_robot(address: str, robot: RobotModel, positions: np.ndarray, real_time: bool = False) -> _Arm:
    """Add a robot at an address."""
    _robots[address] = _Arm(robot, positions, real_time)
    return _robots[address]


def _robot_at(address: str) -> _Arm:
    if address not in _robots or not _robots[address].cable:
        raise NetworkException("libfranka: Connection timeout. Please check your network connection or settings.")
    return _robots[address]


class Robot:
    def __init__(self, robot_ip_address: str, realtime_config: RealtimeConfig = RealtimeConfig.kEnforce) -> None:
        self._arm = _robot_at(robot_ip_address)

    def read_once(self) -> RobotState:
        return self._arm.read()

    def set_collision_behavior(
        self,
        lower_torque_thresholds: list[float],
        upper_torque_thresholds: list[float],
        lower_force_thresholds: list[float],
        upper_force_thresholds: list[float],
    ) -> None:
        forces = lower_force_thresholds, upper_force_thresholds
        self._set("collision", lower_torque_thresholds, upper_torque_thresholds, *forces)

    def set_joint_impedance(self, arg0: list[float]) -> None:
        self._set("impedance", arg0)

    def automatic_error_recovery(self) -> None:
        arm = self._arm
        if not arm.user_stop:
            raise CommandException("libfranka: Automatic Error Recovery command aborted: User Stop pressed!")
        if arm.mode is not RobotMode.Reflex:
            raise CommandException("libfranka: Automatic Error Recovery command rejected: not possible in this mode!")
        arm.errors, arm.collision, arm.mode = Errors(), [0.0] * 7, RobotMode.Idle

    def stop(self) -> None:
        arm = self._arm
        if arm.mode is RobotMode.Move:
            arm.mode = RobotMode.Idle
            arm.move_by_hand(arm.q)

    def _set(self, command: str, *values: Any) -> None:
        if self._arm.mode is not RobotMode.Idle:
            raise CommandException("libfranka: command rejected: not possible in this mode!")
        self._arm.settings.append((command, values))


class AsyncPositionControlHandler:
    class Configuration:
        def __init__(self, maximum_joint_velocities: list[float], goal_tolerance: float) -> None:
            if len(maximum_joint_velocities) != 7:
                raise ValueError("joint_velocities must have exactly7 values")
            self.maximum_joint_velocities, self.goal_tolerance = maximum_joint_velocities, goal_tolerance

    class JointPositionTarget:
        def __init__(self, joint_positions: list[float]) -> None:
            if len(joint_positions) != 7:
                raise ValueError("joint_positions must have exactly7 values")
            self.joint_positions = joint_positions

    def __init__(self, *_: Any) -> None:
        raise TypeError("No constructor defined!")

    @staticmethod
    def configure(arg0: Robot, arg1: Configuration) -> SimpleNamespace:
        arm = arg0._arm
        if arm.mode is not RobotMode.Idle:
            error = "libfranka: Move command rejected: not possible in the current mode!"
            return SimpleNamespace(handler=None, error_message=error)
        handler = object.__new__(AsyncPositionControlHandler)
        handler._arm, handler._ended = arm, False
        arm.begin(arg1.maximum_joint_velocities)
        return SimpleNamespace(handler=handler, error_message=None)

    def set_joint_position_target(self, arg0: JointPositionTarget) -> SimpleNamespace:
        arm = self._arm
        if self._ended or not arm.cable or arm.mode not in (RobotMode.Idle, RobotMode.Move):
            error = "Control interface is in aborted state."
            return SimpleNamespace(motion_uuid=None, was_successful=False, error_message=error)
        arm.set_target(np.array(arg0.joint_positions))
        return SimpleNamespace(motion_uuid="test_uuid", was_successful=True, error_message=None)

    def stop_control(self) -> None:
        self._ended = True
        if self._arm.mode is RobotMode.Move:  # the zeros that it sends are not a valid target
            self._arm.reflex("joint_motion_generator_velocity_discontinuity")

    def __del__(self) -> None:
        if not getattr(self, "_ended", True) and self._arm.cable and self._arm.mode is not RobotMode.Move:
            self._arm.needless_stops += 1


class Gripper:
    def __init__(self, arg0: str) -> None:
        self._hand = _robot_at(arg0).hand

    def read_once(self) -> GripperState:
        hand = self._hand
        return GripperState(hand.width, hand.max_width, 0 < hand.width == hand.object)

    def move(self, arg0: float, arg1: float) -> bool:
        return self._run_command("move", max(arg0, self._hand.object), arg0, arg1)

    def grasp(
        self, width: float, speed: float, force: float, epsilon_inner: float = 0.005, epsilon_outer: float = 0.005
    ) -> bool:
        object_width = self._hand.object
        self._run_command("grasp", object_width, width, speed, force, epsilon_inner, epsilon_outer)
        return width - epsilon_inner < object_width < width + epsilon_outer

    def homing(self) -> bool:
        self._hand.max_width = 0.08
        return self._run_command("homing", 0.08)

    def _run_command(self, command: str, width: float, *arguments: float) -> bool:
        hand = self._hand
        if hand.fails:
            raise CommandException(f"libfranka gripper: {command}: command failed!")
        time.sleep(hand.slow)
        hand.width = width
        hand.done.append((command, arguments))
        return True
