"""An arm that a node moves by itself, through the command guard: taken, led along ways, let go at the first doubt.

A busy machine is no doubt: where the guard holds the arm because words came late, the arm goes on when they come in
time again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import JointState

from genima.control.guard_status import GuardReason, GuardState
from genima.control.joint_trajectory import JointTrajectory
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Command, Joints
from genima_interfaces.srv import SelectSource
from genima_nodes.command_guard import NOBODY
from genima_nodes.ros import messages, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater, own_name, values
from genima_nodes.ros.joint_states import JointStates
from genima_nodes.ros.paced_thread import PacedThread

_RATE = 100.0  # Hz of commands
_LOOK = 0.02  # s
_ANSWER = 3.0  # s for the guard to answer, between its words, and between joint states: it holds the arm much sooner
_APART, _LAG = 0.25, 0.5  # rad between command and arm, s for which it may be: the guard's words need so long at most
_ARRIVED, _ARRIVAL = 0.02, 3.0  # rad, s
_GOING_ON = (GuardState.OK.value, GuardState.LIMITED.value)
_PASSING = {  # of a machine that is too busy for a moment, and what follows from that
    reason.value
    for reason in (
        *(
            GuardReason.COMMAND_LATE,
            GuardReason.COMMAND_LOST,
            GuardReason.STATE_LATE,
            GuardReason.STATE_LOST,
            GuardReason.GUARD_LATE,
        ),
        *(GuardReason.NO_COMMAND, GuardReason.HAND_OVER, GuardReason.REJOIN, GuardReason.JUMP),
    )
}
_BUSY = 10.0  # s that the guard may hold the arm for such a reason
_LEAP = 5  # periods: of a longer pause of the thread that speaks, no more counts, so a way goes on from where it was


class GuardedArm:
    """One source of the command guard. Its methods wait: call them in a thread that may, not in the executor's."""

    def __init__(
        self, node: Node, source: str, robot: RobotModel, joints: JointStates, health: DiagnosticUpdater
    ) -> None:
        self._node, self._source, self._robot, self._joints = node, source, robot, joints
        self._lock = threading.Lock()  # of the three below
        self._command: Command | None = None  # that is in force; None: nothing is said
        self._way: JointTrajectory | None = None
        self._gone = 0.0  # s of the way
        self._asked: float | None = None  # monotonic s, when the guard was asked for the arm; None: not, or let go of
        self._guard: dict[str, str] = {}  # what it last said of itself
        self._guard_heard = 0.0  # monotonic s
        self._silence = 0.0  # s since then, but for those in which this process itself was kept waiting
        self._together = 0.0  # monotonic s at which arm and command were last near each other
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
        self._rejoin(_ANSWER, going_on)

    def go(self, way: JointTrajectory, going_on: Callable[[], None]) -> bool:
        """Follow a way that begins where the arm rests; returns whether to its end.

        Not so where the guard held the arm meanwhile for a reason that has passed: it then rests somewhere on the way.

        Raises:
            GenimaError: when the guard keeps holding the arm, somebody else has taken it, or it does not follow or
                arrive.
        """
        with self._lock:
            self._way, self._gone = way, 0.0
        self._together = time.monotonic()
        goal, _, _ = way.at(way.seconds)
        deadline = time.monotonic() + way.seconds + _ARRIVAL
        while not (self._way is None and np.abs(self._measured().positions - goal).max() < _ARRIVED):
            if not self.stay(going_on):
                return False
            if time.monotonic() > deadline:
                raise GenimaError(f"the arm has not arrived after {way.seconds + _ARRIVAL:.1f} s")
            time.sleep(_LOOK)
        return True

    def stay(self, going_on: Callable[[], None]) -> bool:
        """Look whether the arm is still this source's and follows; returns whether all was well.

        Where the guard holds it for a reason that passes, waits for that, and holds the arm where it has come to rest.

        Raises:
            GenimaError: as :meth:`go`.
        """
        going_on()
        self._require_mine()
        if self._guard.get("verdict") in _GOING_ON:
            self._require_together()
            return True
        self._require_passing()
        with self._lock:
            self._way = None

        def still_passing() -> None:
            going_on()
            self._require_mine()
            self._require_passing()

        self._rejoin(_BUSY, still_passing)
        self._together = time.monotonic()
        return False

    def let_go(self) -> None:
        """Say nothing more, and give the arm to nobody: the guard brings it to rest. Waits for nothing."""
        with self._lock:
            self._command = self._way = None
        asked, self._asked = self._asked, None
        if asked is None or not self._select.service_is_ready():
            return
        if self._guard_heard < asked or self._guard.get("owner") == self._source:  # else it is another's by now
            self._select.call_async(SelectSource.Request(source=NOBODY))

    def _choose(self, source: str, going_on: Callable[[], None]) -> None:
        if not self._select.service_is_ready():
            raise GenimaError("the command guard does not answer: start it, as nothing moves the arm but through it")
        self._asked = time.monotonic()
        future = self._select.call_async(SelectSource.Request(source=source))
        self._until(future.done, _ANSWER, going_on, lambda: "the command guard does not answer")
        if not (answer := future.result()).success:
            raise GenimaError(f"the command guard does not give the arm away: {answer.message}")

    def _rejoin(self, patience: float, going_on: Callable[[], None]) -> None:
        """Hold the arm where it is, and again there after each word that the guard does not follow, until it does."""
        held = -np.inf  # monotonic s

        def follows() -> bool:
            nonlocal held
            if self._guard_heard <= held:
                return False
            mine, verdict = self._guard.get("owner") == self._source, self._guard.get("verdict")
            if mine and verdict in _GOING_ON and held >= 0:
                return True
            measured = self._measured()
            with self._lock:
                rest = np.zeros_like(measured.positions)
                self._command = Command(messages.now(self._node), measured.positions, rest, measured.gripper)
            held = time.monotonic()
            return False

        self._until(follows, patience, going_on, lambda: f"{self._held()}, for {patience:.0f} s")

    def _require_mine(self) -> None:
        if self._guard.get("owner") != self._source:
            raise GenimaError(f"the arm was given to {self._guard.get('owner')}")
        if self._silence > _ANSWER:
            raise GenimaError("the command guard is silent")

    def _require_passing(self) -> None:
        if self._guard.get("verdict") not in _GOING_ON and self._guard.get("reason") not in _PASSING:
            raise GenimaError(self._held())

    def _require_together(self) -> None:
        apart, now = np.abs(self._measured().positions - self.rest.positions), time.monotonic()
        if apart.max() <= _APART:
            self._together = now
        elif now - self._together > _LAG:
            name = self._robot.joint_names[int(np.argmax(apart))]
            raise GenimaError(f"the arm does not follow: {name} is {np.degrees(apart.max()):.0f} deg from its command")

    def _held(self) -> str:
        return f"the command guard holds the arm: {self._words()}"

    def _words(self) -> str:
        return self._guard.get("reason", "") or self._guard.get("verdict", "it says nothing")

    def _measured(self) -> Joints:
        joints = self._joints.newest
        if joints is None or messages.now(self._node) - joints.stamp > _ANSWER:
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
            if own_name(self._node, status) == "command_guard":
                self._guard, self._guard_heard, self._silence = values(status), time.monotonic(), 0.0

    # The paced thread.

    def _speak(self, deadline: float, periods: int) -> bool:
        now, passed = messages.now(self._node), min(periods, _LEAP) / _RATE
        self._silence += passed
        with self._lock:
            if self._command is None:
                return False
            if self._way is None:
                self._command = replace(self._command, stamp=now)
            else:
                self._gone += passed
                self._command = Command(now, *self._way.at(self._gone))
                if self._gone >= self._way.seconds:
                    self._way = None
            command = self._command
        self._publisher.publish(messages.command_message(command, self._robot))
        self._said.tick()
        return True
