"""Node that converts `joint_command` for an arm's controller, and the driver's joint states to `joint_states`.

The controller's interface is read from ``config/backends``. Without valid commands, the arm comes to rest and stays.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState

from genima.cell import ROS_DRIVER
from genima.control.setpoint_follower import PERIOD, SetpointFollower
from genima.errors import GenimaError
from genima.robot.backend import ArmBackend
from genima.robot.model import select_by_name
from genima.types import Command, Joints
from genima_nodes.drivers.controller_messages import controller_target
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_nodes.ros.paced_thread import STEADY
from genima_nodes.ros.services import call_command

_TARGET = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
_STATES = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # compatible with reliable drivers, too
_KEEP_ALIVE = 0.02  # s between targets for a controller with a time-out
_EARLY = 0.5e-3  # s: samples of a driver at 1 kHz jitter
_SILENT = 0.1  # s that a set-point may be old, and without the arm's joints
_STOPPING = 1.0  # s, more than the arm needs to come to rest
_GONE = 0.5  # s without the arm's joints, after which it may be anywhere
_GRIPPER_SILENT = 1.0  # s; some grippers publish at 15 Hz, and pause while they are busy
_NEAR = 0.1  # rad between a set-point and the arm, or what it holds, to begin to follow: as the guard's rejoin
_PATIENCE = 5.0  # s until a controller subscribes


class ArmAdapterNode(Node):
    """Forwards every valid set-point, and stops smoothly when they end; the first one must be near the arm.

    It is not a guard: it only ensures that the controller receives what the guard publishes.
    """

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for a backend that does not exist or does not fit the robot.
        """
        super().__init__("arm_adapter", **options)
        cell = parameters.cell(self, ROS_DRIVER)
        self._robot = cell.robot
        self._backend = backend = ArmBackend.load(parameters.text(self, "backend", cell.require_driver().arm or ""))
        self._names = backend.joint_names(self._robot)
        self._period = 1 / parameters.number(self, "state_rate", 200.0, 20.0, 1000.0)  # s between joint states
        self._target = controller_target(backend, self._names)
        self._measured: NDArray[np.float64] | None = None  # (n,) rad, newest of the arm
        self._measured_at = self._published_at = self._sent_at = self._gripper_at = float("-inf")  # monotonic s
        self._gripper = 0.0  # open fraction, once it is told
        self._stamped = True  # whether the driver stamps its joints
        self._follower = SetpointFollower(self._robot)
        self._ahead = messages.now(self) - time.monotonic()  # s by which the commands' clock is ahead of the monotonic
        self._rivals = ""  # foreign publishers of the robot's commands
        self._started = time.monotonic()

        self._diagnostics = DiagnosticUpdater(self)
        self._diagnostics.add_value("backend", lambda: backend.name)
        self._diagnostics.add_value(
            "stamps", lambda: "the driver's" if self._stamped else "of arrival: the driver gives none"
        )
        self._diagnostics.add_value("following", lambda: self._follower.is_following)  # else the arm holds
        self._received_at = self._diagnostics.add_topic("joint_command")
        self._sent = self._diagnostics.add_topic("target")
        self._states = self._diagnostics.add_topic("arm joints")
        self._age = self._diagnostics.add_latency("guard to controller")
        self._publisher = self.create_publisher(self._target.kind, backend.target, _TARGET)
        self._joint_states = self.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self.create_subscription(JointState, "joint_command", self._on_command, qos.JOINT_COMMAND)
        self.create_subscription(JointState, backend.states, self._on_arm, _STATES)
        self.create_subscription(JointState, "gripper/joint_states", self._on_gripper, _STATES)
        self.create_timer(PERIOD, self._tick, clock=STEADY)
        self._diagnostics.add_check(self._check_publishers)

    def close(self) -> None:
        """Bring the arm to rest."""
        self._follower.hold()
        deadline = time.monotonic() + _STOPPING
        while not self._follower.at_rest and time.monotonic() < deadline:
            time.sleep(PERIOD)
            self._tick()

    # Driver input

    def _on_arm(self, message: JointState) -> None:
        if set(message.name).isdisjoint(self._names):
            return  # a gripper's, on the same topic
        self._states.tick()
        try:
            measured = select_by_name("the driver's joint state", message.name, message.position, self._names)
            self._robot.require_in_range(measured)
        except GenimaError as error:
            self._states.drop()
            self._diagnostics.set_fault("driver", str(error))
            return
        self._measured = measured
        self._diagnostics.clear_fault("driver")
        now = time.monotonic()
        if now - self._measured_at > _GONE:
            self._follower.forget()  # unknown it did: after a reflex, its controller begins anew
        self._measured_at = now
        if now - self._published_at < self._period - _EARLY or now - self._gripper_at > _GRIPPER_SILENT:
            return
        self._published_at = now
        stamp = messages.seconds(message.header.stamp)
        self._stamped = stamp > 0
        joints = Joints(stamp if self._stamped else messages.now(self), measured, self._gripper)
        self._joint_states.publish(messages.joints_message(joints, self._robot))

    def _on_gripper(self, message: JointState) -> None:
        if list(message.name) != [self._robot.gripper_joint] or len(message.position) != 1:
            return
        try:
            self._gripper = self._robot.open_fraction(message.position[0])
        except GenimaError as error:
            self._diagnostics.set_fault("gripper's joint", str(error))
            return
        self._diagnostics.clear_fault("gripper's joint")
        self._gripper_at = time.monotonic()

    # Guard input

    def _on_command(self, message: JointState) -> None:
        self._received_at.tick()
        try:
            command = messages.command_from(message, self._robot)
            self._require_valid(command)
        except GenimaError as error:
            self._received_at.drop()
            self._diagnostics.set_fault("joint_command", f"{error}; the arm holds")
            self._follower.hold()
            return
        self._diagnostics.clear_fault("joint_command")
        self._ahead = command.stamp - time.monotonic()
        if (target := self._follower.follow(command)) is not None:
            self._send(target)
            self._age.add(messages.now(self) - command.stamp)

    def _require_valid(self, command: Command) -> None:
        if self._rivals:
            raise GenimaError(self._rivals)
        if abs(age := messages.now(self) - command.stamp) > _SILENT:
            side = "old" if age > 0 else "ahead"
            raise GenimaError(f"its stamps are {abs(age):.2f} s {side}: it comes late, or two machines' clocks differ")
        if self._measured is None or time.monotonic() - self._measured_at > _SILENT:
            raise GenimaError("it cannot be followed without the arm's joint states")
        if self._follower.is_following:
            return
        told = self._follower.position
        if told is None:
            # A controller that is switched on goes to what it heard last: that must be where the arm is.
            self._rest_at(told := self._measured)
        places = [self._measured, told]
        away = min(float(np.abs(command.positions - place).max()) for place in places)
        if away > _NEAR:
            raise GenimaError(
                f"it is {away:.2f} rad from the arm, which stopped by itself: {call_command(self, 'resume')}"
            )

    # Controller output

    def _tick(self) -> None:
        follower, now = self._follower, time.monotonic()
        silent = now - self._measured_at > _SILENT
        if silent or follower.overdue(now + self._ahead):
            follower.hold()
        if (target := follower.advance(now + self._ahead)) is not None:
            self._send(target)
        elif follower.position is None:
            if self._measured is not None and not silent:
                self._rest_at(self._measured)
        elif self._backend.keep_alive and follower.at_rest and now - self._sent_at > _KEEP_ALIVE:
            self._rest_at(follower.position)

    def _rest_at(self, positions: NDArray[np.float64]) -> None:
        self._send(self._follower.rest_at(messages.now(self), positions))

    def _send(self, target: Command) -> None:
        self._publisher.publish(self._target.make(target.stamp, target.positions, target.velocities))
        self._sent_at = time.monotonic()
        self._sent.tick()

    def _check_publishers(self) -> None:
        now, topic = time.monotonic(), self._publisher.topic_name
        waited = now - self._started
        rivals = []
        if others := self._foreign_publishers("joint_command", "command_guard"):
            rivals.append(f"{others} commands the robot besides the command guard")
        if others := self._foreign_publishers(topic, self.get_name()):
            rivals.append(f"{others} publishes to the controller on {topic}, bypassing the command guard")
        self._rivals = " and ".join(rivals)
        self._publish_diagnostics("rivals", f"{self._rivals}; the arm holds: end it" if rivals else "")
        deaf = self._publisher.get_subscription_count() == 0 and waited > _PATIENCE
        words = f"no subscriber on {topic}: is it active, and in this namespace?"
        self._publish_diagnostics(f"controller {self._backend.controller}", words if deaf else "")
        silent = now - self._measured_at > (_PATIENCE if self._measured is None else _SILENT) and waited > _PATIENCE
        self._publish_diagnostics("arm", "no joint states from its driver" if silent else "")
        silent = now - self._gripper_at > _GRIPPER_SILENT and waited > _PATIENCE
        self._publish_diagnostics("gripper", "silent; without it there are no joint_states" if silent else "")
        others = self._foreign_publishers("joint_states", self.get_name())
        self._publish_diagnostics("joint_states", f"{others} publishes it, too: remap that" if others else "")

    def _foreign_publishers(self, topic: str, rightful: str) -> str:
        """Return the unexpected publishers of the controller's topic; empty without any."""
        if self.count_publishers(topic) <= 1:
            return ""
        found = self.get_publishers_info_by_topic(topic)
        names = [f"{each.node_namespace.rstrip('/')}/{each.node_name}" for each in found]
        mine = f"{self.get_namespace().rstrip('/')}/{rightful}"
        if mine in names:
            names.remove(mine)  # once: a second one of that name is another
        return ", ".join(sorted(names))

    def _publish_diagnostics(self, about: str, line: str) -> None:
        if line:
            self._diagnostics.set_fault(about, line)
        else:
            self._diagnostics.clear_fault(about)


main = node_main(ArmAdapterNode, CONTROL_NICENESS, real_time=True, role="robot")
