"""Node: drive a Franka hand, in a process of its own: a motion of the fingers blocks it.

It subscribes to the gripper's part of `joint_command`, and publishes the gripper's position on `gripper/joint_states`.
"""

from __future__ import annotations

import array
import threading
from concurrent.futures import Future
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from genima.cell import OWN_DRIVER
from genima.errors import GenimaError
from genima.robot.model import limit_fraction, select_by_name
from genima_nodes.drivers.libfranka_hand import FrankaHand
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.latest_value import LatestValue
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_nodes.ros.services import trigger_callback

_PERIOD = 0.03  # s between states
_RETRY_PERIOD = 2.0  # s between attempts to connect to the hand
_HOMING_TIMEOUT = 30.0  # s


class FrankaHandNode(Node):
    """Driver of one hand."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for parameters out of range.
        """
        super().__init__("franka_hand", **options)
        cell = parameters.cell(self, OWN_DRIVER)
        self._robot = cell.robot
        address = parameters.text(self, "robot_ip", cell.require_driver().robot_ip)
        force = parameters.number(self, "force", 30.0, 1.0, 70.0)  # N; 70 is its maximum continuous force
        speed = parameters.number(self, "speed", 0.1, 0.01, 0.2)  # m/s
        self._hand = FrankaHand(address, force, speed)
        self._requests: LatestValue[float] = LatestValue()
        self._homings: LatestValue[Future[str]] = LatestValue()
        self._ending = threading.Event()

        self._diagnostics = DiagnosticUpdater(self)
        self._sent = self._diagnostics.add_topic("gripper/joint_states")
        self._received = self._diagnostics.add_topic("joint_command")
        self._states = self.create_publisher(JointState, "gripper/joint_states", qos.JOINT_STATES)
        self.create_subscription(JointState, "joint_command", self._on_command, qos.JOINT_COMMAND)
        self.create_service(Trigger, "franka_hand/home", trigger_callback(self._home))
        self._thread = threading.Thread(target=self._run, name="hand", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread after its current motion."""
        self._ending.set()
        self._thread.join()

    def _on_command(self, message: JointState) -> None:
        self._received.tick()
        try:
            (value,) = select_by_name("command", message.name, message.position, [self._robot.gripper_joint])
            fraction = limit_fraction(value)
        except GenimaError as error:
            self._received.drop()
            self._diagnostics.set_fault("joint_command", str(error))
            return
        self._diagnostics.clear_fault("joint_command")
        self._requests.put(fraction)

    def _home(self) -> str:
        result: Future[str] = Future()
        self._homings.put(result)
        try:
            return result.result(_HOMING_TIMEOUT)
        except TimeoutError:
            raise GenimaError(f"hand: not homed within {_HOMING_TIMEOUT:g} s") from None

    # The hand's thread.

    def _run(self) -> None:
        while not self._ending.wait(_PERIOD):
            if (result := self._homings.take(0)) is not None:
                try:
                    result.set_result(self._hand.home())
                except GenimaError as error:
                    result.set_exception(error)
            try:
                self._publish(self._hand.measure())
                if (fraction := self._requests.take(0)) is not None and self._hand.move_to(fraction):
                    self._publish(self._hand.measure())
            except GenimaError as error:
                self._diagnostics.set_fault("hand", str(error))
                self._ending.wait(_RETRY_PERIOD)
            else:
                self._diagnostics.clear_fault("hand")

    def _publish(self, open_fraction: float) -> None:
        message = JointState(name=[self._robot.gripper_joint])
        message.position = array.array("d", [self._robot.gripper_position(open_fraction)])
        message.header.stamp = messages.time_message(messages.now(self))
        self._states.publish(message)
        self._sent.tick()


main = node_main(FrankaHandNode, CONTROL_NICENESS, role="gripper")
