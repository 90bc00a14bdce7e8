"""Node: virtual leader moved by a gamepad (`joy`) or a twist (`leader/jog`), published on `leader/joint_states`.

It stays at the follower's joints until the follower mirrors it, and moves from there.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from geometry_msgs.msg import TwistStamped
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Float32

from genima.errors import GenimaError
from genima.robot.model import limit_fraction
from genima.teleop.cartesian_jog import CartesianJog
from genima.teleop.gamepad import Gamepad
from genima.teleop.leader_mapping import toggle_gripper
from genima_interfaces.msg import TeleopStatus
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.joint_states import JointStates
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_nodes.ros.paced_thread import STEADY

_STALE = 0.2  # s after which a twist expires
_LINEAR, _ANGULAR = 0.5, 1.5  # m/s, rad/s: a faster twist is scaled down, in its direction
_ZERO_TWIST = np.zeros(6)


class JogNode(Node):
    """Publisher of the virtual leader's joints at a fixed rate, also without a twist."""

    def __init__(self) -> None:
        """Raises:
        GenimaError: for an invalid parameter or gamepad file.
        """
        super().__init__("jog")
        self._robot = parameters.cell(self).robot
        self._period = 1 / parameters.number(self, "rate", 100.0, 20.0, 200.0)
        file = parameters.text(self, "gamepad", "")
        self._gamepad = Gamepad.load(Path(file) if file else None)
        self._jog = CartesianJog(self._robot)
        self._twist: NDArray[np.float64] = _ZERO_TWIST
        self._twist_time = float("-inf")  # monotonic s
        self._gripper: float | None = None  # open fraction; None: not commanded, the follower's gripper does not move
        self._gripper_button = False
        self._state = TeleopStatus.IDLE  # of the follower

        self._diagnostics = DiagnosticUpdater(self)
        self._published = self._diagnostics.add_topic("leader/joint_states")
        self._joints = JointStates(self, self._diagnostics, self._robot)
        self._publisher = self.create_publisher(JointState, "leader/joint_states", qos.JOINT_STATES)
        self.create_subscription(TeleopStatus, "teleop/status", self._on_status, qos.STATUS)
        self.create_subscription(TwistStamped, "leader/jog", self._on_twist, qos.JOINT_COMMAND)
        self.create_subscription(Float32, "leader/jog/gripper", self._on_gripper, qos.JOINT_COMMAND)
        self.create_subscription(Joy, "joy", self._on_joy, qos.JOINT_STATES)
        self.create_timer(self._period, self._publish, clock=STEADY)

    def close(self) -> None:
        """Do nothing: the node has no threads."""

    def _on_status(self, message: TeleopStatus) -> None:
        if message.state == TeleopStatus.IDLE != self._state:
            self._gripper = None  # another source may have moved it by the next start
        self._state = message.state

    def _on_twist(self, message: TwistStamped) -> None:
        linear, angular = message.twist.linear, message.twist.angular
        self._set_twist(np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z]))

    def _on_gripper(self, message: Float32) -> None:
        try:
            self._gripper = limit_fraction(message.data)
        except GenimaError as error:
            self._diagnostics.set_fault("leader/jog/gripper", str(error))
        else:
            self._diagnostics.clear_fault("leader/jog/gripper")

    def _on_joy(self, message: Joy) -> None:
        try:
            self._set_twist(self._gamepad.twist(message.axes, message.buttons))
        except GenimaError as error:
            self._diagnostics.set_fault("joy", str(error))
            self._twist = _ZERO_TWIST
            return
        self._diagnostics.clear_fault("joy")
        pressed = bool(message.buttons[self._gamepad.gripper_button])
        if pressed and not self._gripper_button:
            self._gripper = toggle_gripper(self._gripper, self._joints.newest)
        self._gripper_button = pressed

    def _set_twist(self, twist: NDArray[np.float64]) -> None:
        if not np.all(np.isfinite(twist)):
            self._diagnostics.set_fault("leader/jog", "twist not finite; the tip stops")
            self._twist = _ZERO_TWIST
            return
        linear, angular = float(np.linalg.norm(twist[:3])), float(np.linalg.norm(twist[3:]))
        excess = max(linear / _LINEAR, angular / _ANGULAR, 1.0)
        if excess > 1.0:
            self._diagnostics.set_fault(
                "leader/jog",
                f"twist too fast ({linear:.2g} m/s, {angular:.2g} rad/s); "
                f"scaled down to {_LINEAR:g} m/s, {_ANGULAR:g} rad/s",
            )
        else:
            self._diagnostics.clear_fault("leader/jog")
        self._twist, self._twist_time = twist / excess, time.monotonic()

    def _publish(self) -> None:
        if self._state not in (TeleopStatus.ALIGNING, TeleopStatus.MIRRORING):
            if self._joints.newest is None:
                return  # no joints to start from
            self._jog.reset(self._joints.newest.positions)
        else:
            twist = self._twist if time.monotonic() - self._twist_time < _STALE else _ZERO_TWIST
            self._jog.move(twist[:3], twist[3:], self._period)
        message = JointState(name=list(self._robot.joint_names))
        message.header.stamp = messages.time_message(messages.now(self))
        message.position, message.velocity = list(self._jog.positions), list(self._jog.velocities)
        if self._gripper is not None:
            message.name.append(self._robot.gripper_joint)
            message.position.append(self._robot.gripper_position(self._gripper))
            message.velocity.append(0.0)
        self._publisher.publish(message)
        self._published.tick()


main = node_main(JogNode, CONTROL_NICENESS)
