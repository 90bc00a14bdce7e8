"""Client of the command guard: acquire the arm, follow joint trajectories, release it on a fault.

A busy machine is no fault: when the guard holds the arm because commands were late, the motion continues as soon as
they are in time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState

from genima.control.guard_status import TRANSIENT, GuardReason
from genima.control.joint_trajectory import JointTrajectory
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Command, Joints
from genima_interfaces.msg import GuardStatus
from genima_interfaces.srv import SelectSource
from genima_nodes.ros import messages, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.joint_states import JointStates
from genima_nodes.ros.paced_thread import PacedThread

_RATE = 100.0  # Hz of commands
_POLL = 0.02  # s
_TIMEOUT = 3.0  # s for the guard's response, its statuses and joint states; the guard itself holds the arm much sooner
_TRACKING_ERROR, _TRACKING_TIME = 0.25, 0.5  # rad between command and arm; s for which it may last
_GOAL_TOLERANCE, _GOAL_TIMEOUT = 0.02, 3.0  # rad; s after the end of the trajectory
_FOLLOWING = (GuardStatus.OK, GuardStatus.LIMITED)
_HELD_TIMEOUT = 10.0  # s that the guard may hold the arm for a transient reason
_MAX_PERIODS = 5  # periods by which the trajectory advances after a pause of the command thread, at most


class GuardedArm:
    """Source of the command guard. Methods block: call them from a thread that is not the executor's."""

    def __init__(
        self, node: Node, source: str, robot: RobotModel, joints: JointStates, diagnostics: DiagnosticUpdater
    ) -> None:
        self._node, self._source, self._robot, self._joints = node, source, robot, joints
        self._lock = threading.Lock()  # of the three below
        self._command: Command | None = None  # None: nothing is published
        self._trajectory: JointTrajectory | None = None
        self._elapsed = 0.0  # s of the trajectory
        self._request_time: float | None = None  # monotonic s of the request for the arm; None: released
        self._guard: GuardStatus | None = None  # newest status
        self._guard_time = 0.0  # monotonic s of its arrival
        self._guard_age = 0.0  # s since then, without pauses of this process
        self._tracking_time = 0.0  # monotonic s at which arm and command were last near each other
        self._commands = diagnostics.add_topic(f"{source}/command")
        self._publisher = node.create_publisher(JointState, f"{source}/command", qos.SOURCE_COMMAND)
        self._select = node.create_client(SelectSource, "command_guard/select")
        node.create_subscription(GuardStatus, "command_guard/status", self._on_guard_status, qos.GUARD_STATUS)
        self._pace = PacedThread(1 / _RATE, self._publish, source)
        self._pace.start()

    def close(self) -> None:
        """Stop publishing commands."""
        self._pace.close()

    @property
    def start_joints(self) -> Joints:
        """Start of the next trajectory: the last commanded joints, else the measured ones.

        Raises:
            GenimaError: without joint states.
        """
        measured = self._measured()
        with self._lock:
            command = self._command
        return measured if command is None else Joints(measured.stamp, command.positions, command.gripper)

    def acquire(self, check: Callable[[], None]) -> None:
        """Become the arm's owner and hold it where it is.

        Args:
            check: called while waiting; an exception ends the wait.

        Raises:
            GenimaError: when the guard does not respond, or refuses.
        """
        if not self._select.service_is_ready():
            raise GenimaError("command_guard/select: service not available; start the command guard")
        self._request_time = time.monotonic()
        future = self._select.call_async(SelectSource.Request(source=self._source))
        self._wait(future.done, _TIMEOUT, check, lambda: f"command_guard/select: no response within {_TIMEOUT:.0f} s")
        if not (response := future.result()).success:
            raise GenimaError(f"command_guard: request of the arm for {self._source} refused ({response.message})")
        self._rejoin(_TIMEOUT, check)

    def follow(self, trajectory: JointTrajectory, check: Callable[[], None]) -> bool:
        """Follow a trajectory that starts at :attr:`start_joints`; return True at its end.

        Return False after the guard has held the arm for a transient reason: it is then at rest on the trajectory.

        Raises:
            GenimaError: when the guard keeps holding the arm, another source owns it, or it does not reach the goal.
        """
        with self._lock:
            self._trajectory, self._elapsed = trajectory, 0.0
        self._tracking_time = time.monotonic()
        goal, _, _ = trajectory.at(trajectory.seconds)
        deadline = time.monotonic() + trajectory.seconds + _GOAL_TIMEOUT
        while not (self._trajectory is None and np.abs(self._measured().positions - goal).max() < _GOAL_TOLERANCE):
            if not self.check_following(check):
                return False
            if time.monotonic() > deadline:
                raise GenimaError(f"arm: goal not reached within {trajectory.seconds + _GOAL_TIMEOUT:.1f} s")
            time.sleep(_POLL)
        return True

    def check_following(self, check: Callable[[], None]) -> bool:
        """Check that this source owns the arm and that the arm follows; return True if so.

        If the guard holds the arm for a transient reason, wait until it ends, hold the arm there and return False.

        Raises:
            GenimaError: as :meth:`follow`.
        """
        check()
        self._require_owner()
        if self._is_following():
            self._require_tracking()
            return True
        self._require_transient()
        with self._lock:
            self._trajectory = None

        def require_transient() -> None:
            check()
            self._require_owner()
            self._require_transient()

        self._rejoin(_HELD_TIMEOUT, require_transient)
        self._tracking_time = time.monotonic()
        return False

    def release(self) -> None:
        """Stop publishing commands and release the arm: the guard brings it to rest. Does not block."""
        with self._lock:
            self._command = self._trajectory = None
        request_time, self._request_time = self._request_time, None
        if request_time is None or not self._select.service_is_ready():
            return
        if self._guard_time < request_time or self._owner() == self._source:  # else another source owns it
            self._select.call_async(SelectSource.Request(source=SelectSource.Request.NONE))

    def _rejoin(self, timeout: float, check: Callable[[], None]) -> None:
        """Command the measured joints, again after each status with the arm held, until the guard follows."""
        command_time = -np.inf  # monotonic s

        def has_rejoined() -> bool:
            nonlocal command_time
            if self._guard_time <= command_time:
                return False
            if self._owner() == self._source and self._is_following() and command_time >= 0:
                return True
            measured = self._measured()
            with self._lock:
                velocities = np.zeros_like(measured.positions)
                self._command = Command(messages.now(self._node), measured.positions, velocities, measured.gripper)
            command_time = time.monotonic()
            return False

        self._wait(has_rejoined, timeout, check, lambda: f"{self._held_text()}, for {timeout:.0f} s")

    def _owner(self) -> str:
        return self._guard.owner if self._guard is not None else ""

    def _is_following(self) -> bool:
        return self._guard is not None and self._guard.state in _FOLLOWING

    def _require_owner(self) -> None:
        if (owner := self._owner()) != self._source:
            raise GenimaError(
                f"command_guard: the owner of the arm is {owner or SelectSource.Request.NONE}, not {self._source}"
            )
        if self._guard_age > _TIMEOUT:
            raise GenimaError(f"command_guard: no status for {_TIMEOUT:.0f} s")

    def _require_transient(self) -> None:
        if not self._is_following() and (self._guard is None or GuardReason(self._guard.reason) not in TRANSIENT):
            raise GenimaError(self._held_text())

    def _require_tracking(self) -> None:
        error, now = np.abs(self._measured().positions - self.start_joints.positions), time.monotonic()
        if error.max() <= _TRACKING_ERROR:
            self._tracking_time = now
        elif now - self._tracking_time > _TRACKING_TIME:
            name = self._robot.joint_names[int(np.argmax(error))]
            raise GenimaError(f"arm: does not follow ({name} is {np.degrees(error.max()):.0f} deg from its command)")

    def _held_text(self) -> str:
        return f"command_guard: holding ({self._guard.text if self._guard is not None else 'no status yet'})"

    def _measured(self) -> Joints:
        joints = self._joints.newest
        if joints is None or messages.now(self._node) - joints.stamp > _TIMEOUT:
            raise GenimaError(f"joint_states: no valid sample for {_TIMEOUT:.0f} s")
        return joints

    @staticmethod
    def _wait(done: Callable[[], bool], seconds: float, check: Callable[[], None], problem: Callable[[], str]) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            check()
            if time.monotonic() > deadline:
                raise GenimaError(problem())
            time.sleep(_POLL)

    def _on_guard_status(self, message: GuardStatus) -> None:
        self._guard, self._guard_time, self._guard_age = message, time.monotonic(), 0.0

    # The paced thread.

    def _publish(self, deadline: float, periods: int) -> bool:
        now, passed = messages.now(self._node), min(periods, _MAX_PERIODS) / _RATE
        self._guard_age += passed
        with self._lock:
            if self._command is None:
                return False
            if self._trajectory is None:
                self._command = replace(self._command, stamp=now)
            else:
                self._elapsed += passed
                self._command = Command(now, *self._trajectory.at(self._elapsed))
                if self._elapsed >= self._trajectory.seconds:
                    self._trajectory = None
            command = self._command
        self._publisher.publish(messages.command_message(command, self._robot))
        self._commands.tick()
        return True
