"""Node: drive a Franka Research 3 without franka_ros2, `joint_command` in, `joint_states` out.

One thread accesses the robot, a thousand times a second. A stop of the arm also stops the command guard;
`franka_arm/recover`, then `command_guard/resume`, resume operation.
"""

from __future__ import annotations

import array
import time
from concurrent.futures import Future
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from genima.cell import OWN_DRIVER
from genima.errors import GenimaError
from genima.robot.model import select_by_name
from genima.types import Command, Joints
from genima_nodes.drivers.libfranka_arm import ArmSettings, ArmState, FrankaArm
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.latest_value import LatestValue
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_nodes.ros.paced_thread import STEADY, PacedThread
from genima_nodes.ros.services import call_command, trigger_callback

_READ_RATE = 1000.0  # Hz, the robot's own
_RETRY_PERIOD = 3.0  # s between attempts to reconnect
_CHECK_PERIOD = 0.05  # s
_RECOVERY_TIMEOUT = 20.0  # s
_GRIPPER_TIMEOUT = 3.0  # s without a gripper state; it may not publish while it moves


class FrankaArmNode(Node):
    """Driver of one arm."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for parameters out of range, and a robot that does not answer or is not the configured one.
        """
        super().__init__("franka_arm", **options)
        cell = parameters.cell(self, OWN_DRIVER)
        self._robot = cell.robot
        address = parameters.text(self, "robot_ip", cell.require_driver().robot_ip)
        self._period = 1 / parameters.number(self, "state_rate", 200.0, 10.0, _READ_RATE)  # s
        self._has_gripper = parameters.flag(self, "has_gripper", True)
        self._arm = FrankaArm(address, self._robot, parameters.settings(self, ArmSettings()))
        self.get_logger().info(f"robot {address}: connecting; the process ends if it does not answer")
        self._state: ArmState = self._arm.connect()

        self._commands: LatestValue[Command] = LatestValue()
        self._recoveries: LatestValue[Future[str]] = LatestValue()
        self._gripper: float | None = None if self._has_gripper else self._robot.gripper_position(1.0)  # rad
        self._started = time.monotonic()
        self._foreign_publishers = 0  # of joint_command
        self._reported = ""  # reason for which the guard was stopped
        self._next_states = self._next_attempt = 0.0  # monotonic s

        self._diagnostics = DiagnosticUpdater(self)
        self._read = self._diagnostics.add_topic("robot states")
        self._sent = self._diagnostics.add_topic("joint_states")
        self._received = self._diagnostics.add_topic("joint_command")
        self._gripper_received = self._diagnostics.add_topic("gripper/joint_states")
        self._age = self._diagnostics.add_latency("command to robot")
        self._diagnostics.add_value("real-time scheduling", lambda: self._pace.real_time)
        self._diagnostics.add_value("late reads", lambda: self._pace.late)
        self._diagnostics.add_value("robot states missed", lambda: self._arm.missed)
        self._diagnostics.add_value("mode", lambda: self._state.mode)
        self._diagnostics.add_value("following", lambda: self._arm.following)
        self._diagnostics.add_value("command success rate", lambda: self._state.success_rate)
        self._diagnostics.add_check(self._report_stop)

        self._states = self.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self.create_subscription(JointState, "joint_command", self._on_command, qos.JOINT_COMMAND)
        if self._has_gripper:
            self.create_subscription(JointState, "gripper/joint_states", self._on_gripper, qos.JOINT_STATES)
        self.create_service(Trigger, "franka_arm/recover", trigger_callback(self._recover))
        self._guard = self.create_client(Trigger, "command_guard/stop")
        self.create_timer(_CHECK_PERIOD, self._check_graph, clock=STEADY)
        self._pace = PacedThread(1 / _READ_RATE, self._tick, "robot")
        self._pace.start()

    def close(self) -> None:
        """Stop the arm and disconnect from the robot."""
        self._pace.close()
        self._arm.close()

    # Input

    def _on_command(self, message: JointState) -> None:
        self._received.tick()
        try:
            command = messages.command_from(message, self._robot)
            if self._foreign_publishers:
                count = self._foreign_publishers + 1
                raise GenimaError(f"{count} publishers; holding, end all but the command guard")
        except GenimaError as error:
            self._received.drop()
            self._diagnostics.set_fault("joint_command", str(error))
            return
        self._diagnostics.clear_fault("joint_command")
        self._commands.put(command)

    def _on_gripper(self, message: JointState) -> None:
        try:
            (position,) = select_by_name(
                "joint state of the gripper", message.name, message.position, [self._robot.gripper_joint]
            )
            self._robot.open_fraction(position)
        except GenimaError as error:
            self._diagnostics.set_fault("gripper", str(error))
            return
        self._gripper_received.tick()
        self._gripper = float(position)

    def _recover(self) -> str:
        """Recover the robot in the thread that accesses it."""
        result: Future[str] = Future()
        self._recoveries.put(result)
        try:
            return result.result(_RECOVERY_TIMEOUT)
        except TimeoutError:
            raise GenimaError(f"robot: not recovered within {_RECOVERY_TIMEOUT:g} s") from None

    def _check_graph(self) -> None:
        self._foreign_publishers = max(0, self.count_publishers("joint_command") - 1)

    def _report_stop(self) -> None:
        """Report a fault, and stop the guard so that no motion resumes by itself."""
        stopped, refused = self._arm.stopped, self._arm.refused
        self._diagnostics.update_fault(
            "arm", f"{stopped}; resume with {call_command(self, 'resume')}" if stopped else ""
        )
        self._diagnostics.update_fault("following", "" if stopped else refused)
        if self._has_gripper and min(self._gripper_received.age, time.monotonic() - self._started) > _GRIPPER_TIMEOUT:
            never = "no message on gripper/joint_states; start franka_hand or gripper_adapter"
            lost = f"no message on gripper/joint_states for {_GRIPPER_TIMEOUT:g} s"
            self._diagnostics.set_fault("gripper", lost if self._gripper_received.total else never)
        elif self._has_gripper:
            self._diagnostics.clear_fault("gripper")
        if stopped and stopped != self._reported and self._guard.service_is_ready():
            self._guard.call_async(Trigger.Request())
            self._reported = stopped
        elif not stopped:
            self._reported = ""

    # The robot's thread.

    def _tick(self, deadline: float, periods: int) -> bool:
        if (result := self._recoveries.take(0)) is not None:
            try:
                result.set_result(self._arm.recover())
            except GenimaError as error:
                result.set_exception(error)
        try:
            if self._arm.connected:
                self._state = self._arm.read()
            elif deadline < self._next_attempt:
                return False
            else:
                self._state = self._arm.connect()
        except GenimaError:  # _report_stop publishes it
            self._next_attempt = time.monotonic() + _RETRY_PERIOD
            return False
        self._read.tick()
        stamp = messages.now(self)
        if (command := self._commands.take(0)) is not None and self._arm.follow(command, stamp):
            self._age.add(stamp - command.stamp)
        if deadline >= self._next_states:
            due = self._next_states + self._period
            self._next_states = due if due > deadline else deadline + self._period
            self._publish(stamp)
        return True

    def _publish(self, stamp: float) -> None:
        """Publish all joints in one message, once the gripper's is known."""
        if self._gripper is None:
            return
        state = self._state
        message = messages.joints_message(Joints(stamp, state.positions, 1.0), self._robot)
        message.position[-1] = self._gripper
        message.velocity = array.array("d", [*state.velocities, 0.0])
        message.effort = array.array("d", [*state.torques, 0.0])
        self._states.publish(message)
        self._sent.tick()


main = node_main(FrankaArmNode, CONTROL_NICENESS, real_time=True, role="robot")
