"""Subscription to the measured joints; malformed samples are dropped and reported."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rclpy.node import Node
from sensor_msgs.msg import JointState

from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Joints
from genima_nodes.ros import messages, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater

_HISTORY = 5000  # samples kept, seconds even at 1 kHz: to find the joints at the stamp of an image
_MAX_AHEAD = 0.1  # s: a stamp further in the future is from before the clock was set back


class JointStates:
    """Valid samples of `joint_states` in the order of their stamps. Thread-safe."""

    def __init__(
        self,
        node: Node,
        diagnostics: DiagnosticUpdater,
        robot: RobotModel,
        on_joints: Callable[[Joints], None] | None = None,
    ) -> None:
        """``on_joints`` is called with every valid sample, in the executor's thread."""
        self._node, self._diagnostics, self._robot, self._on_joints = node, diagnostics, robot, on_joints
        self._samples: deque[Joints] = deque(maxlen=_HISTORY)
        self._stats = diagnostics.add_topic("joint_states")
        node.create_subscription(JointState, "joint_states", self._on_message, qos.JOINT_STATES)

    @property
    def newest(self) -> Joints | None:
        """Newest sample; None before the first."""
        return self._samples[-1] if self._samples else None

    def at(self, stamp: float, tolerance: float) -> Joints | None:
        """Return the sample nearest to ``stamp``; None where none is within ``tolerance`` seconds."""
        nearest = None
        for joints in reversed(list(self._samples)):  # from the newest: requests are for recent samples
            if nearest is None or abs(joints.stamp - stamp) < abs(nearest.stamp - stamp):
                nearest = joints
            if joints.stamp <= stamp:
                break
        return nearest if nearest is not None and abs(nearest.stamp - stamp) <= tolerance else None

    def _on_message(self, message: JointState) -> None:
        self._stats.tick()
        try:
            joints = messages.joints_from(message, self._robot)
            last = self.newest.stamp if self.newest else float("-inf")
            back = last - joints.stamp
            if back > 0 and last <= messages.now(self._node) + _MAX_AHEAD:
                raise GenimaError(f"joint state: stamp {back:.3f} s before that of the previous one; dropped")
        except GenimaError as error:
            self._stats.drop()
            self._diagnostics.set_fault("joint_states", str(error))
            return
        self._diagnostics.clear_fault("joint_states")
        self._samples.append(joints)
        if self._on_joints is not None:
            self._on_joints(joints)
