"""Node that drives a Franka hand, in a process of its own: a motion of the fingers blocks it.

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
from genima_nodes.ros.services import answer_service

_PERIOD = 0.03  # s between two states
_AGAIN = 2.0  # s between attempts to find the hand
_ANSWER = 30.0  # s that homing may take


class FrankaHandNode(Node):
    """Drives one hand."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for parameters that make no sense.
        """
        super().__init__("franka_hand", **options)
        cell = parameters.cell(self, OWN_DRIVER)
        self._robot = cell.robot
        address = parameters.text(self, "robot_ip", cell.require_driver().robot_ip)
        force = parameters.number(self, "force", 30.0, 1.0, 70.0)  # N; 70 is what it can hold
        speed = parameters.number(self, "speed", 0.1, 0.01, 0.2)  # m/s
        self._hand = FrankaHand(address, force, speed)
        self._requests: LatestValue[float] = LatestValue()
        self._homings: LatestValue[Future[str]] = LatestValue()
        self._ending = threading.Event()

        self._diagnostics = DiagnosticUpdater(self)
        self._sent = self._diagnostics.add_topic("gripper/joint_states")
        self._received_at = self._diagnostics.add_topic("joint_command")
        self._states = self.create_publisher(JointState, "gripper/joint_states", qos.JOINT_STATES)
        self.create_subscription(JointState, "joint_command", self._on_command, qos.JOINT_COMMAND)
        self.create_service(Trigger, "franka_hand/home", answer_service(self._home))
        self._thread = threading.Thread(target=self._run, name="hand", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, after the motion that it is at."""
        self._ending.set()
        self._thread.join()

    def _on_command(self, message: JointState) -> None:
        self._received_at.tick()
        try:
            (fraction,) = select_by_name("the command", message.name, message.position, [self._robot.gripper_joint])
            wish = limit_fraction(fraction)
        except GenimaError as error:
            self._received_at.drop()
            self._diagnostics.set_fault("joint_command", str(error))
            return
        self._diagnostics.clear_fault("joint_command")
        self._requests.put(wish)

    def _home(self) -> str:
        answer: Future[str] = Future()
        self._homings.put(answer)
        try:
            return answer.result(_ANSWER)
        except TimeoutError:
            raise GenimaError(f"the hand did not answer within {_ANSWER:g} s") from None

    # The hand's thread.

    def _run(self) -> None:
        while not self._ending.wait(_PERIOD):
            if (answer := self._homings.take(0)) is not None:
                try:
                    answer.set_result(self._hand.home())
                except GenimaError as error:
                    answer.set_exception(error)
            try:
                self._publish(self._hand.measure())
                if (wish := self._requests.take(0)) is not None and self._hand.move_to(wish):
                    self._publish(self._hand.measure())
            except GenimaError as error:
                self._diagnostics.set_fault("hand", str(error))
                self._ending.wait(_AGAIN)
            else:
                self._diagnostics.clear_fault("hand")

    def _publish(self, open_fraction: float) -> None:
        message = JointState(name=[self._robot.gripper_joint])
        message.position = array.array("d", [self._robot.gripper_position(open_fraction)])
        message.header.stamp = messages.time_message(messages.now(self))
        self._states.publish(message)
        self._sent.tick()


main = node_main(FrankaHandNode, CONTROL_NICENESS, role="gripper")
