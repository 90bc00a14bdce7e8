"""Stand-in for franka_ros2: joint states, one controller, its controller manager and error recovery."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
from lifecycle_msgs.msg import State
from rclpy.action import ActionServer
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from genima.robot.backend import ArmBackend, TargetMessage
from genima_nodes.ros import messages
from genima_nodes.ros.optional_messages import message_type
from standins.arm import CONTROLLERS, TorqueArm

_STATE_PERIOD = 0.1  # s between robot states: the real driver publishes at 1 kHz, which no test needs
_DEPTH_1 = QoSProfile(depth=1)
_TARGETS = QoSProfile(depth=100)  # a real controller reads the latest every millisecond; here some are queued


@dataclass(frozen=True)
class _Target:
    """Received target."""

    due: float  # s: time at which it takes effect
    stamp: float
    positions: np.ndarray
    velocities: np.ndarray | None
    ahead: float  # s


class FrankaDriver:
    """ROS interface of a :class:`TorqueArm`. ``lock`` is held while the arm is accessed.

    A robot's own controller never waits for a processor. To reproduce that, physics catches up lost time, and applies
    each target at the time of its stamp.
    """

    def __init__(
        self,
        node: Node,
        arm: TorqueArm,
        backend: ArmBackend,
        lock: threading.Lock,
        state_every: int = 1,
    ) -> None:
        """``state_every``: period of the joint states in ms; the real driver publishes every millisecond."""
        assert backend.recovery is not None
        self._node, self._arm, self._backend, self._lock = node, arm, backend, lock
        self._names = backend.joint_names(arm.robot)
        self.settings = backend.recovery
        self._state_every, self._steps = state_every, 0
        self.hardware = "active"
        self.controllers = {name: "active" for name in (*self.settings.broadcasters, backend.controller)}
        self._controller = CONTROLLERS[backend.name](arm.robot)
        self.reflexes: list[str] = []
        self.targets: list[tuple[float, np.ndarray]] = []  # all received, with stamps
        self._pending: deque[_Target] = deque()
        self.user_stop = False

        manager = self.settings.manager
        self._list = message_type("controller_manager_msgs/srv/ListControllers")
        self._state_type = message_type("franka_msgs/msg/FrankaRobotState")
        self._recovery = message_type("franka_msgs/action/ErrorRecovery")
        self._controller_state = message_type("controller_manager_msgs/msg/ControllerState")
        set_hardware = message_type("controller_manager_msgs/srv/SetHardwareComponentState")
        switch = message_type("controller_manager_msgs/srv/SwitchController")
        self._states = node.create_publisher(JointState, backend.states, _DEPTH_1)
        self._robot_state = node.create_publisher(self._state_type, self.settings.state, _DEPTH_1)
        kinds = {TargetMessage.JOINT_STATE: JointState, TargetMessage.JOINT_TRAJECTORY: JointTrajectory}
        self._target = node.create_subscription(kinds[backend.message], backend.target, self._on_target, _TARGETS)
        node.create_service(self._list, f"{manager}/list_controllers", self._on_list)
        node.create_service(set_hardware, f"{manager}/set_hardware_component_state", self._on_set_hardware)
        node.create_service(switch, f"{manager}/switch_controller", self._on_switch)
        node.create_service(SetBool, "standin/user_stop", self._on_user_stop)
        node.create_timer(_STATE_PERIOD, self._publish_robot_state)
        self._server = ActionServer(node, self._recovery, self.settings.action, self._on_recover)
        with lock:
            arm.switch(self._controller, messages.now(node))

    # The 1 kHz thread, with the lock held.

    def step(self, now: float) -> JointState | None:
        """Simulate one millisecond at ``now``, s; return the joint_state_broadcaster's message, if due."""
        before = self._arm.error
        while self._pending and self._pending[0].due <= now:
            target = self._pending.popleft()
            self._controller.target(now, target.stamp, target.positions, target.velocities, target.ahead)
        self._arm.step(now)
        if self._arm.error and not before:
            self.enter_reflex(self._arm.error)
        if self._controller.shut_down:
            self._deactivate()
        self._steps += 1
        if self.controllers[self.settings.broadcasters[0]] != "active" or self._steps % self._state_every:
            return None
        message = JointState(name=list(self._names), position=self._arm.q.tolist(), velocity=self._arm.dq.tolist())
        message.header.stamp = messages.time_message(now)
        return message

    def publish(self, message: JointState) -> None:
        """Publish joint states; called without the lock."""
        self._states.publish(message)

    def enter_reflex(self, error: str) -> None:
        """Leave the hardware unconfigured and the controllers inactive, as after a reflex."""
        self.reflexes.append(error)
        self._node.get_logger().error(f"reflex: {error}")
        self._deactivate()

    def restart(self) -> None:
        """Continue the controller at the arm's position after a reset; on a real robot the user does so."""
        self._pending.clear()
        self._arm.switch(self._controller if self.hardware == "active" else None, messages.now(self._node))

    def _deactivate(self) -> None:
        self.hardware = "unconfigured"
        self.controllers = dict.fromkeys(self.controllers, "inactive")

    # ROS.

    def _on_target(self, message: JointState | JointTrajectory) -> None:
        if self._node.count_publishers(self._target.topic_name) > 1:
            return  # as CRISP's; the others would follow both
        now = messages.now(self._node)
        if isinstance(message, JointState):
            stamp, ahead, point = messages.seconds(message.header.stamp), 0.0, (message.position, message.velocity)
            assert len(message.position) == len(self._names), "CRISP writes beyond its own memory"
        else:
            stamp, ahead = now, messages.seconds(message.points[0].time_from_start)
            point = message.points[0].positions, message.points[0].velocities
            assert set(message.joint_names) == set(self._names)
        positions, velocities = np.array(point[0]), np.array(point[1]) if len(point[1]) else None
        self.targets.append((stamp, positions))
        with self._lock:
            if isinstance(message, JointTrajectory) and self._arm.controller is None:
                return  # ignored while it is not active
            self._pending.append(_Target(stamp or now, stamp, positions, velocities, ahead))

    def _on_list(self, request, response):  # type: ignore[no-untyped-def]
        response.controller = [self._controller_state(name=n, state=s) for n, s in self.controllers.items()]
        return response

    def _on_set_hardware(self, request, response):  # type: ignore[no-untyped-def]
        known = request.name == self.settings.hardware and request.target_state.label == "active"
        response.ok = known and not self._arm.error and not self.user_stop
        if response.ok:
            self.hardware = "active"
        response.state = State(label=self.hardware if known else "unknown")
        return response

    def _on_switch(self, request, response):  # type: ignore[no-untyped-def]
        requested = list(request.activate_controllers)
        response.ok = self.hardware == "active" and all(self.controllers.get(name) == "inactive" for name in requested)
        if response.ok:
            self.controllers.update(dict.fromkeys(requested, "active"))
            if self._backend.controller in requested:
                with self._lock:
                    self._arm.switch(self._controller, messages.now(self._node))
        return response

    def _on_user_stop(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Press or release the emergency stop."""
        self.user_stop, response.success = request.data, True
        if request.data:
            with self._lock:
                self._arm.trip("", messages.now(self._node))
                self._deactivate()
        return response

    def _on_recover(self, handle: ServerGoalHandle):  # type: ignore[no-untyped-def]
        if self.user_stop:
            handle.abort()
        else:
            self._arm.error = ""
            handle.succeed()
        return self._recovery.Result()

    def _publish_robot_state(self) -> None:
        if self.controllers[self.settings.broadcasters[-1]] != "active":
            return  # deactivated with its hardware: the reflex is published only afterwards
        state = self._state_type(robot_mode=self._state_type.ROBOT_MODE_MOVE)
        if self._arm.last_error:
            setattr(state.last_motion_errors, self._arm.last_error, True)
        self._robot_state.publish(state)
