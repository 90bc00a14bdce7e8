"""What franka_ros2 shows of an arm: joint states, one controller, its controller manager, and error recovery."""

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

_STATE_PERIOD = 0.1  # s between robot states: the real one tells 1000 times a second, which nothing here needs
_DEPTH_1 = QoSProfile(depth=1)
_TARGETS = QoSProfile(depth=100)  # a real controller looks at its newest every millisecond; here some wait


@dataclass(frozen=True)
class _Target:
    """As it came."""

    due: float  # s: from when on it is in force
    stamp: float
    positions: np.ndarray
    velocities: np.ndarray | None
    ahead: float  # s


class FrankaDriver:
    """The ROS side of a :class:`TorqueArm`. ``lock`` is held while the arm is touched.

    A robot's own controller is never kept waiting for a processor. So that it looks so here, too, physics makes up for
    the time that it lost, and meets each target in it at the moment that the target is stamped with.
    """

    def __init__(
        self,
        node: Node,
        arm: TorqueArm,
        backend: ArmBackend,
        lock: threading.Lock,
        state_every: int = 1,
    ) -> None:
        """``state_every`` ms a joint state is told; the real driver does so every millisecond."""
        assert backend.recovery is not None
        self._node, self._arm, self._backend, self._lock = node, arm, backend, lock
        self._names = backend.joint_names(arm.robot)
        self.settings = backend.recovery
        self._state_every, self._steps = state_every, 0
        self.hardware = "active"
        self.controllers = {name: "active" for name in (*self.settings.broadcasters, backend.controller)}
        self._controller = CONTROLLERS[backend.name](arm.robot)
        self.reflexes: list[str] = []
        self.targets: list[tuple[float, np.ndarray]] = []  # every one that came, with its stamp
        self._coming: deque[_Target] = deque()
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
        node.create_timer(_STATE_PERIOD, self._tell_state)
        self._server = ActionServer(node, self._recovery, self.settings.action, self._on_recover)
        with lock:
            arm.switch(self._controller, messages.now(node))

    # The 1 kHz thread, with the lock held.

    def step(self, now: float) -> JointState | None:
        """One millisecond at ``now``, s; what the joint_state_broadcaster then says."""
        before = self._arm.error
        while self._coming and self._coming[0].due <= now:
            target = self._coming.popleft()
            self._controller.target(now, target.stamp, target.positions, target.velocities, target.ahead)
        self._arm.step(now)
        if self._arm.error and not before:
            self.collapse(self._arm.error)
        if self._controller.dead:
            self._off()
        self._steps += 1
        if self.controllers[self.settings.broadcasters[0]] != "active" or self._steps % self._state_every:
            return None
        message = JointState(name=list(self._names), position=self._arm.q.tolist(), velocity=self._arm.dq.tolist())
        message.header.stamp = messages.time_message(now)
        return message

    def publish(self, message: JointState) -> None:
        """Outside of the lock."""
        self._states.publish(message)

    def collapse(self, error: str) -> None:
        """What a reflex leaves: hardware without configuration, and no controller."""
        self.reflexes.append(error)
        self._node.get_logger().error(f"reflex: {error}")
        self._off()

    def restart(self) -> None:
        """After the arm was reset: its controller goes on where it is; a user would have to do so by hand."""
        self._coming.clear()
        self._arm.switch(self._controller if self.hardware == "active" else None, messages.now(self._node))

    def _off(self) -> None:
        self.hardware = "unconfigured"
        self.controllers = dict.fromkeys(self.controllers, "inactive")

    # ROS.

    def _on_target(self, message: JointState | JointTrajectory) -> None:
        if self._node.count_publishers(self._target.topic_name) > 1:
            return  # CRISP's; the others would obey both
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
            self._coming.append(_Target(stamp or now, stamp, positions, velocities, ahead))

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
        wanted = list(request.activate_controllers)
        response.ok = self.hardware == "active" and all(self.controllers.get(name) == "inactive" for name in wanted)
        if response.ok:
            self.controllers.update(dict.fromkeys(wanted, "active"))
            if self._backend.controller in wanted:
                with self._lock:
                    self._arm.switch(self._controller, messages.now(self._node))
        return response

    def _on_user_stop(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """The emergency stop is pressed, or released."""
        self.user_stop, response.success = request.data, True
        if request.data:
            with self._lock:
                self._arm.trip("", messages.now(self._node))
                self._off()
        return response

    def _on_recover(self, handle: ServerGoalHandle):  # type: ignore[no-untyped-def]
        if self.user_stop:
            handle.abort()
        else:
            self._arm.error = ""
            handle.succeed()
        return self._recovery.Result()

    def _tell_state(self) -> None:
        if self.controllers[self.settings.broadcasters[-1]] != "active":
            return  # deactivated with its hardware: it never tells of the reflex itself, only afterwards
        state = self._state_type(robot_mode=self._state_type.ROBOT_MODE_MOVE)
        if self._arm.last_error:
            setattr(state.last_motion_errors, self._arm.last_error, True)
        self._robot_state.publish(state)
