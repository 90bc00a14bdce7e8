"""Node that converts the open fraction in `joint_command` to a gripper's action, and its joint to a fraction.

The gripper's interface is read from ``config/backends``. A goal is sent when the fraction has changed; a newer one
replaces it at once. Nothing is sent before the guard's first command: the gripper does not move when the stack starts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient, get_action_names_and_types
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
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

_STATES = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # compatible with reliable drivers, too
_GOAL_PERIOD = 0.05  # s between checks at what is wanted: at most so often is a goal replaced
_STATE_PERIOD = 0.009  # s between joint states, whatever the driver's rate
_CHANGE = 0.03  # of the way: less is no new goal, except to be wide open or closed
_PATIENCE = 2.0  # s until a server must have answered, or be there
_SILENT = 1.0  # s without the joint


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
        """Return whether the server rejected the goal."""
        return self.ended and self.handle is None


class GripperAdapterNode(Node):
    """Never blocks: every response of the server arrives in a callback."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for a backend that does not exist, or whose messages are not installed.
        """
        super().__init__("gripper_adapter", **options)
        cell = parameters.cell(self, ROS_DRIVER)
        self._robot = cell.robot
        gripper = cell.require_driver().gripper or ""
        self._backend = GripperBackend.load(parameters.text(self, "backend", gripper))
        self._actions: dict[str, ActionClient] = {}  # by the action's name
        self._problem = f"nobody serves {self.resolve_topic_name(self._backend.action)}"  # while there is no server
        self._kind = self._backend.kind
        if self._kind is not GripperAction.AUTO:
            self._make_clients()
        self._wanted: float | None = None  # open fraction
        self._measured: float | None = None
        self._goal: _Goal | None = None
        self._started = time.monotonic()
        self._published_at = self._measured_at = float("-inf")  # monotonic s

        self._diagnostics = DiagnosticUpdater(self)
        self._diagnostics.add_value("backend", lambda: self._backend.name)
        self._diagnostics.add_value("action", lambda: self._kind.value)
        self._diagnostics.add_value("wanted", lambda: self._wanted)
        self._diagnostics.add_value("measured", lambda: self._measured)
        self._goals = self._diagnostics.add_topic("goals")
        self._publisher = self.create_publisher(JointState, "gripper/joint_states", qos.JOINT_STATES)
        self.create_subscription(JointState, "joint_command", self._on_command, qos.JOINT_COMMAND)
        self.create_subscription(JointState, self._backend.states, self._on_state, _STATES)
        self.create_timer(_GOAL_PERIOD, self._update_goal, clock=STEADY)
        self._diagnostics.add_check(self._check_server)

    def close(self) -> None:
        """Stop; the gripper keeps its grasp."""

    # Messages.

    def _on_command(self, message: JointState) -> None:
        try:
            self._wanted = limit_fraction(messages.command_from(message, self._robot).gripper)
        except GenimaError as error:
            self._diagnostics.set_fault("joint_command", str(error))
            return
        self._diagnostics.clear_fault("joint_command")

    def _on_state(self, message: JointState) -> None:
        joint, now = self._backend.joint, time.monotonic()
        if joint not in message.name or len(message.position) != len(message.name):
            return  # other joints, on the same topic
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

    # Goals.

    def _update_goal(self) -> None:
        if self._kind is GripperAction.AUTO and not self._find_kind():
            return
        if self._wanted is None or self._measured is None or not self._are_ready():
            return
        goal = self._goal
        if goal is None:
            if abs(self._wanted - self._measured) >= _CHANGE:
                self._send(self._wanted)
            return
        if goal.refused and time.monotonic() - goal.sent > _PATIENCE:
            self._goal = None  # once more
            return
        at_end = self._wanted in (0.0, 1.0) and self._wanted != goal.fraction
        # Closed around something and wanted as far open as it is, it goes on holding that.
        as_it_is = self._measured if goal.closing else goal.fraction
        if min(abs(self._wanted - goal.fraction), abs(self._wanted - as_it_is)) < _CHANGE and not at_end:
            return
        if self._kind is GripperAction.FRANKA and not goal.ended:  # its server would work at both at once
            if goal.handle is not None:
                goal.handle.cancel_goal_async()
            return
        self._send(self._wanted)  # the server lets a newer goal take the place of the one before

    def _send(self, fraction: float) -> None:
        closing = fraction == 0 or (self._measured is not None and fraction < self._measured)
        self._goal = goal = _Goal(fraction, closing, time.monotonic())
        self._goals.tick()
        client, request = self._request(goal)
        client.send_goal_async(request).add_done_callback(partial(self._on_answer, goal))

    def _request(self, goal: _Goal) -> tuple[ActionClient, Any]:
        backend, position = self._backend, self._backend.position(goal.fraction)
        if self._kind is GripperAction.FRANKA:
            width = 2 * position
            name = "grasp" if goal.closing else "move"
            client = self._actions[f"{backend.action}/{name}"]
            request = message_type(f"franka_msgs/action/{name.capitalize()}").Goal(width=width, speed=backend.speed)
            if goal.closing:  # whatever is between the fingers counts as grasped
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

    def _on_answer(self, goal: _Goal, answer: Future) -> None:
        handle = answer.result()
        if handle is None or not handle.accepted:
            goal.ended = True
            if goal is self._goal:
                self._diagnostics.set_fault("goal", f"gripper: goal rejected ({goal.fraction:.0%} open)")
            return
        goal.handle = handle
        handle.get_result_async().add_done_callback(partial(self._on_result, goal))

    def _on_result(self, goal: _Goal, answer: Future) -> None:
        goal.ended = True
        if goal is not self._goal or answer.result() is None:
            return  # a newer one has taken its place
        status, result = answer.result().status, answer.result().result
        stalled = getattr(result, "stalled", False)
        if status == GoalStatus.STATUS_SUCCEEDED and not stalled or stalled and goal.closing:  # it holds something
            self._diagnostics.clear_fault("goal")
        elif status != GoalStatus.STATUS_CANCELED:
            why = "stalled" if stalled else getattr(result, "error", "") or "its server aborted"
            there = f"{self._measured:.0%}" if self._measured is not None else "unknown opening"
            self._diagnostics.set_fault(
                "goal", f"the gripper is {there} open, {goal.fraction:.0%} was asked for: {why}"
            )

    # The server.

    def _find_kind(self) -> bool:
        """Return whether the server's action type is known."""
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
        self._problem = f"{name} takes {', '.join(kinds)}, which is not known" if kinds else f"nobody serves {name}"
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
        waited = now - self._started > _PATIENCE
        if ready := self._are_ready():
            self._diagnostics.clear_fault("server")
        elif waited:
            self._goal = None  # the goal is sent again when the server is back
            self._diagnostics.set_fault("server", self._problem)
        if now - self._measured_at > _SILENT and waited:
            self._diagnostics.set_fault("joint", f"no message with {self._backend.joint} on {self._backend.states}")
        else:
            self._diagnostics.clear_fault("joint")
        goal = self._goal
        unanswered = ready and goal is not None and goal.handle is None and not goal.ended
        if unanswered and goal is not None and now - goal.sent > _PATIENCE:
            self._diagnostics.set_fault("goal", "the gripper's server does not answer")
            self._goal = None


main = node_main(GripperAdapterNode, CONTROL_NICENESS, role="gripper")
