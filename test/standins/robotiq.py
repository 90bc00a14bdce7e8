"""Stand-in for ros2_robotiq_gripper with a 2F-140: joint states, and the action of Jazzy's or Humble's controllers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from sensor_msgs.msg import JointState

from genima.robot.backend import GripperAction, GripperBackend
from genima_nodes.ros import messages
from genima_nodes.ros.optional_messages import message_type
from genima_nodes.ros.paced_thread import STEADY

_TICK = 0.02  # s
_TOLERANCE = 0.02  # rad, goal_tolerance
_STALL_SPEED, _STALL_TIME = 0.05, 0.1  # rad/s, s


class RobotiqDriver:
    """Driver of a gripper by its open fraction; awaits ticks in the executor's thread."""

    def __init__(
        self,
        node: Node,
        backend: GripperBackend,
        read: Callable[[], float],
        move: Callable[[float], None],
        kind: GripperAction = GripperAction.PARALLEL,
    ) -> None:
        """``read`` returns the open fraction, ``move`` sets it; both access the simulation under its lock."""
        self._node, self._backend, self._read, self._move = node, backend, read, move
        self._kind, self._type = kind, message_type(kind.value)
        self.goals: list[float] = []  # rad, accepted
        self.rejects_goals = False
        self._goal_number = 0
        self._tick: Future = Future()
        self._states = node.create_publisher(JointState, backend.states, QoSProfile(depth=1))
        self._server = ActionServer(
            node,
            self._type,
            backend.action,
            self._execute,
            goal_callback=self._on_goal,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
        )
        node.create_timer(_TICK, self._on_tick, clock=STEADY)

    @property
    def _position(self) -> float:
        return self._backend.position(self._read())

    def _on_tick(self) -> None:
        message = JointState(name=[self._backend.joint], position=[self._position], velocity=[0.0])
        message.header.stamp = messages.time_message(messages.now(self._node))
        self._states.publish(message)
        tick, self._tick = self._tick, Future()
        tick.set_result(None)

    def _on_goal(self, goal: Any) -> GoalResponse:
        if self.rejects_goals or (self._kind is GripperAction.PARALLEL and len(goal.command.position) != 1):
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> Any:
        self._goal_number += 1
        goal_number, command = self._goal_number, handle.request.command
        goal = command.position[0] if self._kind is GripperAction.PARALLEL else command.position
        self.goals.append(goal)
        self._move(self._backend.fraction(goal))
        last_motion, before = time.monotonic(), self._position
        while True:
            await self._tick
            position, now = self._position, time.monotonic()
            if goal_number != self._goal_number or handle.is_cancel_requested:
                if handle.is_cancel_requested:
                    handle.canceled()
                else:
                    handle.abort()  # replaced by a newer goal
                return self._result(position, False, False)
            if abs(position - goal) < _TOLERANCE:
                handle.succeed()
                return self._result(position, True, False)
            if abs(position - before) / _TICK > _STALL_SPEED:
                last_motion = now
            elif now - last_motion > _STALL_TIME:
                handle.succeed()  # allow_stalling
                return self._result(position, False, True)
            before = position

    def _result(self, position: float, reached: bool, stalled: bool) -> Any:
        result = self._type.Result(reached_goal=reached, stalled=stalled)
        if self._kind is GripperAction.PARALLEL:
            result.state = JointState(name=[self._backend.joint], position=[position])
        else:
            result.position = position
        return result


class FreeGripper:
    """Gripper without a simulation: its open fraction, and an optional object between the fingers."""

    def __init__(self, speed: float = 2.0) -> None:
        """``speed``: open fraction per second, 1/s."""
        self.fraction, self.blocked_below = 1.0, 0.0
        self._goal, self._speed, self._updated = 1.0, speed, time.monotonic()
        self._lock = threading.Lock()

    def read(self) -> float:
        """Return the present open fraction."""
        with self._lock:
            now = time.monotonic()
            max_step, self._updated = self._speed * (now - self._updated), now
            step = min(max(self._goal - self.fraction, -max_step), max_step)
            self.fraction = max(self.fraction + step, self.blocked_below)
            return self.fraction

    def move(self, fraction: float) -> None:
        """Set the goal of the open fraction."""
        self.read()
        self._goal = fraction
