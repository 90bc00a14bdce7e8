"""Node: convert `joint_command` for an arm's controller, and the driver's joint states to `joint_states`.

The controller's interface is read from ``config/backends``. Without valid commands, the arm comes to rest and holds.
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
_KEEP_ALIVE = 0.02  # s between targets for a controller with a time-out
_EARLY = 0.5e-3  # s: samples of a driver at 1 kHz jitter
_STALE = 0.1  # s: maximum age of a set-point and of the arm's joints
_STOP_TIME = 1.0  # s, more than the arm needs to come to rest
_LOST = 0.5  # s without the arm's joints, after which it may have moved
_GRIPPER_TIMEOUT = 1.0  # s; some grippers publish at 15 Hz, and pause while they are busy
_REJOIN = 0.1  # rad between the first set-point and the arm, or its last target: as the guard's rejoin
_START_TIMEOUT = 5.0  # s until a controller subscribes


class ArmAdapterNode(Node):
    """Forward every valid set-point, and stop smoothly when they end; the first one must be near the arm.

    Limits are the guard's: this node only ensures that the controller receives the guard's set-points.
    """

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for an unknown backend, or one that does not fit the robot.
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
        self._gripper = 0.0  # open fraction, once it is received
        self._stamped = True  # False: the driver does not set stamps
        self._follower = SetpointFollower(self._robot)
        self._clock_offset = messages.now(self) - time.monotonic()  # s from the monotonic to the commands' clock
        self._conflict = ""  # foreign publishers of the robot's commands
        self._started = time.monotonic()

        self._diagnostics = DiagnosticUpdater(self)
        self._diagnostics.add_value("backend", lambda: backend.name)
        self._diagnostics.add_value(
            "stamps", lambda: "published" if self._stamped else "time of arrival (none published)"
        )
        self._diagnostics.add_value("following", lambda: self._follower.is_following)  # False: the arm holds
        self._received = self._diagnostics.add_topic("joint_command")
        self._sent_targets = self._diagnostics.add_topic("target")
        self._states = self._diagnostics.add_topic("arm joints")
        self._age = self._diagnostics.add_latency("guard to controller")
        self._publisher = self.create_publisher(self._target.kind, backend.target, _TARGET)
        self._joint_states = self.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self.create_subscription(JointState, "joint_command", self._on_command, qos.JOINT_COMMAND)
        self.create_subscription(JointState, backend.states, self._on_arm, qos.DRIVER_STATES)
        self.create_subscription(JointState, "gripper/joint_states", self._on_gripper, qos.DRIVER_STATES)
        self.create_timer(PERIOD, self._tick, clock=STEADY)
        self._diagnostics.add_check(self._check_publishers)

    def close(self) -> None:
        """Bring the arm to rest."""
        self._follower.hold()
        deadline = time.monotonic() + _STOP_TIME
        while not self._follower.at_rest and time.monotonic() < deadline:
            time.sleep(PERIOD)
            self._tick()

    # Driver input

    def _on_arm(self, message: JointState) -> None:
        if set(message.name).isdisjoint(self._names):
            return  # message of a gripper on the same topic
        self._states.tick()
        try:
            measured = select_by_name("joint state of the driver", message.name, message.position, self._names)
            self._robot.require_in_range(measured)
        except GenimaError as error:
            self._states.drop()
            self._diagnostics.set_fault("driver", str(error))
            return
        self._measured = measured
        self._diagnostics.clear_fault("driver")
        now = time.monotonic()
        if now - self._measured_at > _LOST:
            self._follower.forget()  # after a reflex, the controller starts again from where the arm is
        self._measured_at = now
        if now - self._published_at < self._period - _EARLY or now - self._gripper_at > _GRIPPER_TIMEOUT:
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
            self._diagnostics.set_fault("gripper joint", str(error))
            return
        self._diagnostics.clear_fault("gripper joint")
        self._gripper_at = time.monotonic()

    # Guard input

    def _on_command(self, message: JointState) -> None:
        self._received.tick()
        try:
            command = messages.command_from(message, self._robot)
            self._require_valid(command)
        except GenimaError as error:
            self._received.drop()
            self._diagnostics.set_fault("joint_command", f"{error}; holding")
            self._follower.hold()
            return
        self._diagnostics.clear_fault("joint_command")
        self._clock_offset = command.stamp - time.monotonic()
        if (target := self._follower.follow(command)) is not None:
            self._send(target)
            self._age.add(messages.now(self) - command.stamp)

    def _require_valid(self, command: Command) -> None:
        if self._conflict:
            raise GenimaError(self._conflict)
        if abs(age := messages.now(self) - command.stamp) > _STALE:
            side = "old" if age > 0 else "ahead"
            raise GenimaError(f"stamp {abs(age):.2f} s {side}; check the network, and the clocks of two machines")
        if self._measured is None or time.monotonic() - self._measured_at > _STALE:
            raise GenimaError("no joint states of the arm; start its driver")
        if self._follower.is_following:
            return
        target = self._follower.position
        if target is None:
            # A controller that is switched on moves to its last target, which must be where the arm is.
            self._rest_at(target := self._measured)
        distance = min(float(np.abs(command.positions - start).max()) for start in (self._measured, target))
        if distance > _REJOIN:
            remedy = call_command(self, "resume")
            raise GenimaError(f"{distance:.2f} rad from the arm, which stopped by itself; resume with {remedy}")

    # Controller output

    def _tick(self) -> None:
        follower, now = self._follower, time.monotonic()
        stale = now - self._measured_at > _STALE
        if stale or follower.overdue(now + self._clock_offset):
            follower.hold()
        if (target := follower.advance(now + self._clock_offset)) is not None:
            self._send(target)
        elif follower.position is None:
            if self._measured is not None and not stale:
                self._rest_at(self._measured)
        elif self._backend.keep_alive and follower.at_rest and now - self._sent_at > _KEEP_ALIVE:
            self._rest_at(follower.position)

    def _rest_at(self, positions: NDArray[np.float64]) -> None:
        self._send(self._follower.rest_at(messages.now(self), positions))

    def _send(self, target: Command) -> None:
        self._publisher.publish(self._target.make(target.stamp, target.positions, target.velocities))
        self._sent_at = time.monotonic()
        self._sent_targets.tick()

    def _check_publishers(self) -> None:
        now, topic = time.monotonic(), self._publisher.topic_name
        started = now - self._started > _START_TIMEOUT
        conflicts = []
        if others := self._foreign_publishers("joint_command", "command_guard"):
            conflicts.append(f"{others} publishes on joint_command, too")
        if others := self._foreign_publishers(topic, self.get_name()):
            conflicts.append(f"{others} publishes on {topic}, bypassing the command guard")
        self._conflict = " and ".join(conflicts)
        self._diagnostics.update_fault("publishers", f"{self._conflict}; holding, end that node" if conflicts else "")
        text = f"no subscriber on {topic}; check that it is active and in this namespace"
        unsubscribed = self._publisher.get_subscription_count() == 0 and started
        self._diagnostics.update_fault(f"controller {self._backend.controller}", text if unsubscribed else "")
        lost = now - self._measured_at > (_START_TIMEOUT if self._measured is None else _STALE) and started
        self._diagnostics.update_fault("arm", "no joint states from its driver" if lost else "")
        lost = now - self._gripper_at > _GRIPPER_TIMEOUT and started
        self._diagnostics.update_fault("gripper", "no joint state; joint_states need it" if lost else "")
        others = self._foreign_publishers("joint_states", self.get_name())
        self._diagnostics.update_fault("joint_states", f"{others} publishes it, too; remap its topic" if others else "")

    def _foreign_publishers(self, topic: str, owner: str) -> str:
        """Return the publishers of a topic except the node ``owner``, as text; empty without any."""
        if self.count_publishers(topic) <= 1:
            return ""
        found = self.get_publishers_info_by_topic(topic)
        names = [f"{each.node_namespace.rstrip('/')}/{each.node_name}" for each in found]
        owner = f"{self.get_namespace().rstrip('/')}/{owner}"
        if owner in names:
            names.remove(owner)  # once: a second node of that name is foreign
        return ", ".join(sorted(names))


main = node_main(ArmAdapterNode, CONTROL_NICENESS, real_time=True, role="robot")
