"""Node: convert the open fraction in `joint_command` to a gripper's action, and its joint to a fraction.

The gripper's interface is read from ``config/backends``. A goal is sent when the fraction has changed; a newer one
replaces it at once. No goal is sent before the guard's first command: the gripper does not move when the stack starts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient, get_action_names_and_types
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState

from genima.cell import ROS_DRIVER
from genima.errors import GenimaError
from genima.robot.backend import GripperAction, GripperBackend
from genima.robot.model import limit_fraction
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_nodes.ros.optional_messages import message_type
from genima_nodes.ros.paced_thread import STEADY

_GOAL_PERIOD = 0.05  # s between checks of the commanded fraction, and thus between goals
_STATE_PERIOD = 0.009  # s between joint states, if the driver's rate is higher
_MIN_CHANGE = 0.03  # of the open fraction; a smaller change is no new goal, except to fully open or closed
_SERVER_TIMEOUT = 2.0  # s until a server must be available or must have responded
_STATE_TIMEOUT = 1.0  # s without the joint


@dataclass
class _Goal:
    """Last goal of the gripper."""

    fraction: float
    closing: bool
    sent: float  # monotonic s
    handle: Any = None  # once it is accepted
    ended: bool = False

    @property
    def refused(self) -> bool:
        """True if the server rejected the goal."""
        return self.ended and self.handle is None


class GripperAdapterNode(Node):
    """Client of a gripper's action server that never blocks: responses arrive in callbacks."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for an unknown backend, or one whose messages are not installed.
        """
        super().__init__("gripper_adapter", **options)
        cell = parameters.cell(self, ROS_DRIVER)
        self._robot = cell.robot
        gripper = cell.require_driver().gripper or ""
        self._backend = GripperBackend.load(parameters.text(self, "backend", gripper))
        self._actions: dict[str, ActionClient] = {}  # by the action's name
        self._problem = self._no_server()  # while there is no server
        self._kind = self._backend.kind
        if self._kind is not GripperAction.AUTO:
            self._make_clients()
        self._commanded: float | None = None  # open fraction
        self._measured: float | None = None
        self._goal: _Goal | None = None
        self._started = time.monotonic()
        self._published_at = self._measured_at = float("-inf")  # monotonic s

        self._diagnostics = DiagnosticUpdater(self)
        self._diagnostics.add_value("backend", lambda: self._backend.name)
        self._diagnostics.add_value("action", lambda: self._kind.value)
        self._diagnostics.add_value("commanded", lambda: self._commanded)
        self._diagnostics.add_value("measured", lambda: self._measured)
        self._goals = self._diagnostics.add_topic("goals")
        self._publisher = self.create_publisher(JointState, "gripper/joint_states", qos.JOINT_STATES)
        self.create_subscription(JointState, "joint_command", self._on_command, qos.JOINT_COMMAND)
        self.create_subscription(JointState, self._backend.states, self._on_state, qos.DRIVER_STATES)
        self.create_timer(_GOAL_PERIOD, self._update_goal, clock=STEADY)
        self._diagnostics.add_check(self._check_server)

    def close(self) -> None:
        """Do nothing: the gripper keeps its grasp."""

    # Messages

    def _on_command(self, message: JointState) -> None:
        try:
            self._commanded = limit_fraction(messages.command_from(message, self._robot).gripper)
        except GenimaError as error:
            self._diagnostics.set_fault("joint_command", str(error))
            return
        self._diagnostics.clear_fault("joint_command")

    def _on_state(self, message: JointState) -> None:
        joint, now = self._backend.joint, time.monotonic()
        if joint not in message.name or len(message.position) != len(message.name):
            return  # message of other joints on the same topic
        position = message.position[list(message.name).index(joint)]
        try:
            self._measured, self._measured_at = self._backend.fraction(position), now
        except GenimaError as error:
            self._diagnostics.set_fault("joint state", str(error))
            return
        self._diagnostics.clear_fault("joint state")
        if now - self._published_at < _STATE_PERIOD:
            return
        self._published_at = now
        state = JointState(name=[self._robot.gripper_joint])
        state.header.stamp = message.header.stamp
        state.position = [self._robot.gripper_position(self._measured)]
        self._publisher.publish(state)

    # Goals

    def _update_goal(self) -> None:
        if self._kind is GripperAction.AUTO and not self._find_kind():
            return
        if self._commanded is None or self._measured is None or not self._are_ready():
            return
        goal = self._goal
        if goal is None:
            if abs(self._commanded - self._measured) >= _MIN_CHANGE:
                self._send(self._commanded)
            return
        if goal.refused and time.monotonic() - goal.sent > _SERVER_TIMEOUT:
            self._goal = None  # send it again
            return
        at_end = self._commanded in (0.0, 1.0) and self._commanded != goal.fraction
        # A gripper that is closed around an object and commanded to its present opening keeps holding the object.
        present = self._measured if goal.closing else goal.fraction
        if min(abs(self._commanded - goal.fraction), abs(self._commanded - present)) < _MIN_CHANGE and not at_end:
            return
        if self._kind is GripperAction.FRANKA and not goal.ended:  # its server would execute both at once
            if goal.handle is not None:
                goal.handle.cancel_goal_async()
            return
        self._send(self._commanded)  # the server replaces the previous goal

    def _send(self, fraction: float) -> None:
        closing = fraction == 0 or (self._measured is not None and fraction < self._measured)
        self._goal = goal = _Goal(fraction, closing, time.monotonic())
        self._goals.tick()
        client, request = self._request(goal)
        client.send_goal_async(request).add_done_callback(partial(self._on_response, goal))

    def _request(self, goal: _Goal) -> tuple[ActionClient, Any]:
        backend, position = self._backend, self._backend.position(goal.fraction)
        if self._kind is GripperAction.FRANKA:
            width = 2 * position
            name = "grasp" if goal.closing else "move"
            client = self._actions[f"{backend.action}/{name}"]
            request = message_type(f"franka_msgs/action/{name.capitalize()}").Goal(width=width, speed=backend.speed)
            if goal.closing:  # an object of any width counts as grasped
                request.force = backend.effort
                request.epsilon.inner = request.epsilon.outer = 2 * abs(backend.opened - backend.closed)
            return client, request
        client = self._actions[backend.action]
        request = message_type(self._kind.value).Goal()
        if self._kind is GripperAction.PARALLEL:
            request.command = JointState(name=[backend.joint], position=[position], effort=[backend.effort])
        else:
            request.command.position, request.command.max_effort = position, backend.effort
        return client, request

    def _on_response(self, goal: _Goal, response: Future) -> None:
        handle = response.result()
        if handle is None or not handle.accepted:
            goal.ended = True
            if goal is self._goal:
                self._diagnostics.set_fault("goal", f"rejected by the gripper ({goal.fraction:.0%} open)")
            return
        goal.handle = handle
        handle.get_result_async().add_done_callback(partial(self._on_result, goal))

    def _on_result(self, goal: _Goal, response: Future) -> None:
        goal.ended = True
        if goal is not self._goal or response.result() is None:
            return  # replaced by a newer goal
        status, result = response.result().status, response.result().result
        stalled = getattr(result, "stalled", False)
        if status == GoalStatus.STATUS_SUCCEEDED and not stalled or stalled and goal.closing:  # it holds an object
            self._diagnostics.clear_fault("goal")
        elif status != GoalStatus.STATUS_CANCELED:
            reason = "stalled" if stalled else getattr(result, "error", "") or "aborted by its server"
            opening = f"{self._measured:.0%} open" if self._measured is not None else "opening unknown"
            self._diagnostics.set_fault("goal", f"{goal.fraction:.0%} open not reached ({opening}): {reason}")

    # Server

    def _no_server(self) -> str:
        return f"action {self.resolve_topic_name(self._backend.action)}: not available; start the gripper's driver"

    def _find_kind(self) -> bool:
        """Set the action type from the server's; return True if it is known."""
        name = self.resolve_topic_name(self._backend.action)
        kinds = dict(get_action_names_and_types(self)).get(name, [])
        for kind in (GripperAction.PARALLEL, GripperAction.POSITION):
            if kind.value in kinds:
                try:
                    message_type(kind.value)
                except GenimaError as error:
                    self._problem = str(error)
                    return False
                self._kind = kind
                self._make_clients()
                return True
        self._problem = f"action {name}: type not supported ({', '.join(kinds)})" if kinds else self._no_server()
        return False

    def _make_clients(self) -> None:
        name = self._backend.action
        kinds = {name: self._kind.value}
        if self._kind is GripperAction.FRANKA:
            kinds = {f"{name}/{part}": f"franka_msgs/action/{part.capitalize()}" for part in ("move", "grasp")}
        self._actions = {name: ActionClient(self, message_type(kind), name) for name, kind in kinds.items()}

    def _are_ready(self) -> bool:
        return bool(self._actions) and all(client.server_is_ready() for client in self._actions.values())

    def _check_server(self) -> None:
        now = time.monotonic()
        waited = now - self._started > _SERVER_TIMEOUT
        if ready := self._are_ready():
            self._diagnostics.clear_fault("server")
        elif waited:
            self._goal = None  # sent again when the server is available
            self._diagnostics.set_fault("server", self._problem)
        if now - self._measured_at > _STATE_TIMEOUT and waited:
            self._diagnostics.set_fault("joint", f"no message with {self._backend.joint} on {self._backend.states}")
        else:
            self._diagnostics.clear_fault("joint")
        goal = self._goal
        pending = ready and goal is not None and goal.handle is None and not goal.ended
        if pending and goal is not None and now - goal.sent > _SERVER_TIMEOUT:
            self._diagnostics.set_fault("goal", f"no response from the gripper's server for {_SERVER_TIMEOUT:g} s")
            self._goal = None


main = node_main(GripperAdapterNode, CONTROL_NICENESS, role="gripper")
