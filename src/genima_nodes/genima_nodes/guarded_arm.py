"""An arm that a node moves by itself, through the command guard: taken, led along ways, let go at the first doubt."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import JointState

from genima.errors import GenimaError
from genima.guard import Verdict
from genima.observation import Command, Joints
from genima.robot.model import RobotModel
from genima.teleop.way import Way
from genima_interfaces.srv import SelectSource
from genima_nodes import messages, qos
from genima_nodes.command_guard import NOBODY
from genima_nodes.health import Health, values
from genima_nodes.joint_states import JointStates
from genima_nodes.pacing import PacedThread

_RATE = 100.0  # Hz of commands
_LOOK = 0.02  # s
_STALE = 1.0  # s: older joints are no joints; the guard holds the arm much sooner
_ANSWER = 3.0  # s for the guard to answer, and between its words
_APART = 0.25  # rad between command and arm
_ARRIVED, _ARRIVAL = 0.02, 3.0  # rad, s
_GOING_ON = (Verdict.OK.value, Verdict.LIMITED.value)


class GuardedArm:
    """One source of the command guard. Its methods wait: call them in a thread that may, not in the executor's."""

    def __init__(self, node: Node, source: str, robot: RobotModel, joints: JointStates, health: Health) -> None:
        self._node, self._source, self._robot, self._joints = node, source, robot, joints
        self._lock = threading.Lock()  # of the three below
        self._command: Command | None = None  # that is in force; None: nothing is said
        self._way: Way | None = None
        self._begin = 0.0  # of the way, s by the node's clock
        self._guard: dict[str, str] = {}  # what it last said of itself
        self._guard_heard = 0.0  # monotonic s
        self._guard_name = f"{node.get_namespace()}/command_guard".replace("//", "/").removeprefix("/")
        self._said = health.meter(f"{source}/command")
        self._publisher = node.create_publisher(JointState, f"{source}/command", qos.SOURCE_COMMAND)
        self._select = node.create_client(SelectSource, "command_guard/select")
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.STATUS)
        self._pace = PacedThread(1 / _RATE, self._speak, source)
        self._pace.start()

    def close(self) -> None:
        """Say nothing more."""
        self._pace.close()

    @property
    def rest(self) -> Joints:
        """Where the arm was last told to be, or is: what the next way begins from.

        Raises:
            GenimaError: without joint states.
        """
        measured = self._measured()
        with self._lock:
            command = self._command
        return measured if command is None else Joints(measured.stamp, command.positions, command.gripper)

    def take(self, going_on: Callable[[], None]) -> None:
        """Have the guard give the arm to this source, and hold it where it is.

        Args:
            going_on: is called again and again; ends the waiting by raising.

        Raises:
            GenimaError: when the guard does not answer, or does not give it.
        """
        self._choose(self._source, going_on)
        measured = self._measured()
        with self._lock:
            rest = np.zeros_like(measured.positions)
            self._command = Command(measured.stamp, measured.positions, rest, measured.gripper)
        chosen = time.monotonic()

        def follows() -> bool:
            guard = self._guard if self._guard_heard > chosen else {}
            return guard.get("owner") == self._source and guard.get("verdict") in _GOING_ON

        self._until(follows, _ANSWER, going_on, lambda: f"the command guard holds the arm: {self._words()}")

    def go(self, way: Way, going_on: Callable[[], None]) -> None:
        """Follow a way that begins where the arm rests, to its end.

        Raises:
            GenimaError: when the guard holds the arm, somebody else has taken it, or it does not follow or arrive.
        """
        with self._lock:
            self._way, self._begin = way, messages.now(self._node)
        goal, _, _ = way.at(way.seconds)

        def arrived() -> bool:
            self._require_following()
            return self._way is None and np.abs(self._measured().positions - goal).max() < _ARRIVED

        late = way.seconds + _ARRIVAL
        self._until(arrived, late, going_on, lambda: f"the arm has not arrived after {late:.1f} s")

    def require_held(self) -> None:
        """Raise a GenimaError unless the arm is still this source's and follows."""
        self._require_following()

    def let_go(self) -> None:
        """Say nothing more, and give the arm to nobody: the guard brings it to rest. Waits for nothing."""
        with self._lock:
            said, self._command, self._way = self._command, None, None
        if said is not None and self._guard.get("owner") == self._source and self._select.service_is_ready():
            self._select.call_async(SelectSource.Request(source=NOBODY))

    def _choose(self, source: str, going_on: Callable[[], None]) -> None:
        if not self._select.service_is_ready():
            raise GenimaError("the command guard does not answer: start it, as nothing moves the arm but through it")
        future = self._select.call_async(SelectSource.Request(source=source))
        self._until(future.done, _ANSWER, going_on, lambda: "the command guard does not answer")
        if not (answer := future.result()).success:
            raise GenimaError(f"the command guard does not give the arm away: {answer.message}")

    def _require_following(self) -> None:
        if self._guard.get("owner") != self._source:
            raise GenimaError(f"the arm was given to {self._guard.get('owner')}")
        if self._guard.get("verdict") not in _GOING_ON:
            raise GenimaError(f"the command guard holds the arm: {self._words()}")
        if time.monotonic() - self._guard_heard > _ANSWER:
            raise GenimaError("the command guard is silent")
        apart = np.abs(self._measured().positions - self.rest.positions)
        if apart.max() > _APART:
            name = self._robot.joint_names[int(np.argmax(apart))]
            raise GenimaError(f"the arm does not follow: {name} is {np.degrees(apart.max()):.0f} deg from its command")

    def _words(self) -> str:
        return self._guard.get("reason", "") or self._guard.get("verdict", "it says nothing")

    def _measured(self) -> Joints:
        joints = self._joints.newest
        if joints is None or messages.now(self._node) - joints.stamp > _STALE:
            raise GenimaError("no good joint states come")
        return joints

    @staticmethod
    def _until(
        done: Callable[[], bool], seconds: float, going_on: Callable[[], None], otherwise: Callable[[], str]
    ) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            going_on()
            if time.monotonic() > deadline:
                raise GenimaError(otherwise())
            time.sleep(_LOOK)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._guard_name:
                self._guard, self._guard_heard = values(status), time.monotonic()

    # The paced thread.

    def _speak(self, deadline: float, periods: int) -> bool:
        now = messages.now(self._node)
        with self._lock:
            if self._command is None:
                return False
            if self._way is None:
                self._command = replace(self._command, stamp=now)
            else:
                self._command = Command(now, *self._way.at(now - self._begin))
                if now - self._begin >= self._way.seconds:
                    self._way = None
            command = self._command
        self._publisher.publish(messages.command_message(command, self._robot))
        self._said.tick()
        return True
