"""The measured joints as a node hears them; what is malformed is told and left out."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from sensor_msgs.msg import JointState

from genima.errors import GenimaError
from genima.observation import Joints
from genima.robot.model import RobotModel
from genima_nodes import messages, qos
from genima_nodes.health import Health

_AHEAD = 0.1  # s: a stamp that is later than now by more was made before the clock was set back


class JointStates:
    """Passes on the good samples of `joint_states`, in the order of their stamps."""

    def __init__(self, node: Node, health: Health, robot: RobotModel, on_joints: Callable[[Joints], None]) -> None:
        """``on_joints`` is called with every good sample, in the executor's thread."""
        self._node, self._health, self._robot, self._on_joints = node, health, robot, on_joints
        self._newest = float("-inf")  # stamp
        self._meter = health.meter("joint_states")
        node.create_subscription(JointState, "joint_states", self._on_message, qos.JOINT_STATES)

    def _on_message(self, message: JointState) -> None:
        self._meter.tick()
        try:
            joints = messages.joints_from(message, self._robot)
            back = self._newest - joints.stamp
            if back > 0 and self._newest <= messages.now(self._node) + _AHEAD:
                raise GenimaError(f"joint state is stamped {back:.3f} s before the one that came before it")
        except GenimaError as error:
            self._meter.drop()
            self._health.fault("joint_states", str(error))
            return
        self._health.clear("joint_states")
        self._newest = joints.stamp
        self._on_joints(joints)
