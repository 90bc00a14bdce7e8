"""A leader without an arm, which plays motions: what the nodes have in common that do so."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool

from genima.control.joint_trajectory import JointTrajectory
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.paced_thread import STEADY, PacedThread

_LOOK = 0.02  # s between looks at whether a stage has ended

Stage = Callable[[NDArray[np.float64]], JointTrajectory]  # from where the leader stands; made when its turn comes


class TrajectoryLeader(Node):
    """Speaks on `leader/joint_states` all the time, 200 times a second; `leader/playing` tells whether it moves."""

    def __init__(self, name: str) -> None:
        """Raises:
        GenimaError: for a rate out of range.
        """
        super().__init__(name)
        self.robot = RobotModel.load(parameters.text(self, "robot", "panda"))
        rate = parameters.number(self, "rate", 200.0, 20.0, 1000.0)
        self._stages: list[Stage] = []  # still to come
        self._busy = False
        self._lock = threading.Lock()  # of the four below
        self._way: JointTrajectory | None = None
        self._begin = 0.0  # of the way, s by the node's clock
        self._rest, self._gripper = self.robot.home.copy(), 1.0
        self._health = DiagnosticUpdater(self)
        self._said = self._health.meter("leader/joint_states")
        self._health.value("late samples", lambda: self._pace.late)
        self._publisher = self.create_publisher(JointState, "leader/joint_states", qos.JOINT_STATES)
        self._playing = self.create_publisher(Bool, "leader/playing", qos.TASK)
        self._say_busy(False)
        self.create_timer(_LOOK, self._go_on, clock=STEADY)
        self._pace = PacedThread(1 / rate, self._speak, "leader")

    def start(self) -> None:
        """Start the paced thread, once all parameters are accepted: a refused node must leave no thread behind."""
        self._pace.start()

    def close(self) -> None:
        """End the paced thread."""
        self._pace.close()

    def stand(self, positions: NDArray[np.float64], gripper: float) -> None:
        """End what is played and be at ``positions`` (n,) rad at once: it has no weight."""
        self._stages = []
        with self._lock:
            self._way, self._rest, self._gripper = None, positions, gripper
        self._say_busy(False)

    def play(self, stages: list[Stage]) -> None:
        """Play one stage after the other.

        Raises:
            GenimaError: when it plays already.
        """
        self.require_idle()
        self._stages = stages
        self._say_busy(True)
        self._go_on()

    def require_idle(self) -> None:
        """Raise a GenimaError when it plays."""
        if self._busy:
            raise GenimaError("it plays already")

    def enough(self) -> bool:
        """Whether the stages to come are not needed any more."""
        return False

    def _go_on(self) -> None:
        """Begin the next stage when the last has ended."""
        if not self._busy or self._way is not None:
            return
        if not self._stages or self.enough():
            self._say_busy(False)
            return
        way = self._stages.pop(0)(self._rest)
        with self._lock:
            self._way, self._begin = way, messages.now(self)

    def _say_busy(self, busy: bool) -> None:
        self._busy = busy
        self._playing.publish(Bool(data=busy))

    # The paced thread.

    def _speak(self, deadline: float, periods: int) -> bool:
        now = messages.now(self)
        velocities = np.zeros_like(self._rest)
        with self._lock:
            if self._way is not None:
                self._rest, velocities, self._gripper = self._way.at(now - self._begin)
                if now - self._begin >= self._way.seconds:
                    self._way = None
            positions, gripper = self._rest, self._gripper
        message = JointState(name=[*self.robot.joint_names, self.robot.gripper_joint])
        message.header.stamp = messages.time_message(now)
        message.position = [*positions, self.robot.gripper_position(gripper)]
        message.velocity = [*velocities, 0.0]
        self._publisher.publish(message)
        self._said.tick()
        return True
