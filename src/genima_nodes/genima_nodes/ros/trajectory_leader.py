"""Base class of virtual leaders that play joint trajectories."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState

from genima.control.joint_trajectory import JointTrajectory
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima_interfaces.msg import LeaderStatus
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.paced_thread import STEADY, PacedThread

_POLL = 0.02  # s between checks for the end of a stage

Stage = Callable[[NDArray[np.float64]], JointTrajectory]  # of the leader's joints (n,) rad at the start of the stage


class TrajectoryLeader(Node):
    """Publisher of `leader/joint_states` at a fixed rate; `leader/status` has its state."""

    def __init__(self, name: str) -> None:
        """Raises:
        GenimaError: for a rate out of range.
        """
        super().__init__(name)
        self.robot = self._load_robot()
        rate = parameters.number(self, "rate", 200.0, 20.0, 1000.0)
        self._stages: list[Stage] = []  # queued
        self._busy = False
        self._lock = threading.Lock()  # of the four below
        self._trajectory: JointTrajectory | None = None
        self._begin = 0.0  # of the trajectory, s of the node's clock
        self._rest, self._gripper = self.robot.home.copy(), 1.0
        self._diagnostics = DiagnosticUpdater(self)
        self._published = self._diagnostics.add_topic("leader/joint_states")
        self._diagnostics.add_value("late samples", lambda: self._pace.late)
        self._publisher = self.create_publisher(JointState, "leader/joint_states", qos.JOINT_STATES)
        self._resets = 0  # of the simulator, where there is one
        self._status = self.create_publisher(LeaderStatus, "leader/status", qos.LATCHED)
        self._set_busy(False)
        self.create_timer(_POLL, self._start_next, clock=STEADY)
        self._pace = PacedThread(1 / rate, self._publish, "leader")

    def start(self) -> None:
        """Start the paced thread, once all parameters are accepted: a node that raises must leave no thread behind."""
        self._pace.start()

    def close(self) -> None:
        """End the paced thread."""
        self._pace.close()

    def set_joints(self, positions: NDArray[np.float64], gripper: float) -> None:
        """Stop playing and set the leader to ``positions`` (n,) rad at once."""
        self._stages = []
        with self._lock:
            self._trajectory, self._rest, self._gripper = None, positions, gripper
        self._set_busy(False)

    def play(self, stages: list[Stage]) -> None:
        """Play stages in order.

        Raises:
            GenimaError: while it plays.
        """
        self.require_idle()
        self._stages = stages
        self._set_busy(True)
        self._start_next()

    def require_idle(self) -> None:
        """Raise a GenimaError while it plays."""
        if self._busy:
            raise GenimaError("leader: already playing; wait for its end")

    def is_finished(self) -> bool:
        """Return True to skip the remaining stages."""
        return False

    def _start_next(self) -> None:
        """Start the next stage when the last has ended."""
        if not self._busy or self._trajectory is not None:
            return
        if not self._stages or self.is_finished():
            self._set_busy(False)
            return
        trajectory = self._stages.pop(0)(self._rest)
        with self._lock:
            self._trajectory, self._begin = trajectory, messages.now(self)

    def _set_busy(self, busy: bool) -> None:
        self._busy = busy
        self._publish_status()

    def set_resets(self, resets: int) -> None:
        """Publish the number of resets of the newest SceneStatus in the leader's status."""
        if resets != self._resets:
            self._resets = resets
            self._publish_status()

    def _publish_status(self) -> None:
        status = LeaderStatus(playing=self._busy, resets=self._resets)
        status.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(status)

    def _load_robot(self) -> RobotModel:
        """Load the leader's robot model, by default that of the parameter ``cell``."""
        return parameters.cell(self).robot

    # The paced thread.

    def _publish(self, deadline: float, periods: int) -> bool:
        now = messages.now(self)
        velocities = np.zeros_like(self._rest)
        with self._lock:
            if self._trajectory is not None:
                self._rest, velocities, self._gripper = self._trajectory.at(now - self._begin)
                if now - self._begin >= self._trajectory.seconds:
                    self._trajectory = None
            positions, gripper = self._rest, self._gripper
        message = JointState(name=[*self.robot.joint_names, self.robot.gripper_joint])
        message.header.stamp = messages.time_message(now)
        message.position = [*positions, self.robot.gripper_position(gripper)]
        message.velocity = [*velocities, 0.0]
        self._publisher.publish(message)
        self._published.tick()
        return True
