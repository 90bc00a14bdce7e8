"""Drives the running graph from outside: waits for its nodes, resets the scene, has tasks run."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.action import ActionClient
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from genima.errors import GenimaError
from genima_cli.machine_load import LoadMeter
from genima_cli.startup_progress import StartupProgress
from genima_interfaces.action import RunTask
from genima_interfaces.srv import ResetScene
from genima_nodes.ros import qos
from genima_nodes.ros.diagnostics import own_name, values

_DISCOVERY = 30.0  # s for a service to be found
_PATIENCE = 10.0  # s for its answer
_CONFIRMED = 2.0  # s for each answer when a task shall end
_SILENT = 5.0  # s; nodes report every second


class GraphClient(Node):
    """Nothing happens in it but while it spins."""

    def __init__(self, name: str, namespace: str = "") -> None:
        super().__init__(name, namespace=namespace)
        self.health: dict[str, DiagnosticStatus] = {}
        self.complaints: list[str] = []  # all that were heard
        self._heard: dict[str, float] = {}  # monotonic s, by node
        self._load = LoadMeter()
        self._sent: Future | None = None  # the task that was begun last
        self._executor = EventsExecutor()
        self._executor.add_node(self)
        self._callees: dict[str, Any] = {}  # clients by name
        self._run_task = ActionClient(self, RunTask, "run_task")
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.STATUS)

    def close(self) -> None:
        """End before ROS does: the executor's wake-up calls would come into the void."""
        self._executor.shutdown()
        self._run_task.destroy()
        self.destroy_node()

    # Waiting is spinning.

    def spin_until(self, done: Callable[[], bool], timeout: float, alive: Callable[[], None]) -> bool:
        """Spin until ``done`` or ``timeout`` seconds; ``alive`` is called a few times a second and may raise."""
        deadline = time.monotonic() + timeout
        checked = 0.0
        while not done():
            now = time.monotonic()
            if now > deadline:
                return False
            if now - checked > 0.2:
                checked = now
                alive()
            try:
                self._executor.spin_once(timeout_sec=0.05)
            except RuntimeError:
                if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # Ctrl-C came while it was about to call back
                    raise KeyboardInterrupt from None
                raise
        return True

    def wait_ready(self, nodes: Sequence[str], timeout: float, alive: Callable[[], None]) -> None:
        """Wait until every node reports and none has a fault; show meanwhile which are ready and which are awaited.

        Raises:
            GenimaError: naming the nodes that are not ready, and why.
        """
        begin = time.monotonic()

        def unready() -> list[str]:
            return [f"{name} ({trouble})" for name in nodes if (trouble := self._awaited(name))]

        with StartupProgress() as line:

            def live() -> None:
                alive()
                line.show(nodes, unready(), time.monotonic() - begin)

            if not self.spin_until(lambda: not unready(), timeout, live):
                raise self._timeout(f"not ready after {timeout:.0f} s: {', '.join(unready())}")

    def _timeout(self, problem: str) -> GenimaError:
        """Return an error that names a machine that is too busy as the likely cause."""
        remedy = self._load.read().remedy()
        return GenimaError(f"{problem}; {remedy}" if remedy else problem)

    def _awaited(self, name: str) -> str:
        """Return why a node is not ready; empty where it is."""
        return self.trouble(name) if name in self.health else "starting"

    # What can be asked of the graph.

    def reset(self, task: str, seed: int, alive: Callable[[], None]) -> str:
        """Start the scene of a task anew; returns its instruction."""
        response = self.call(ResetScene, "sim/reset", ResetScene.Request(task=task, seed=seed), alive)
        if not response.success:
            raise GenimaError(response.message)
        return str(response.instruction)

    def begin_task(self, instruction: str, time_limit: float, alive: Callable[[], None]) -> Future:
        """Put a task in force; the future has its result once it ends."""
        self._require(self._run_task.wait_for_server, "run_task")
        goal = RunTask.Goal(instruction=instruction, time_limit=time_limit)
        self._sent = self._run_task.send_goal_async(goal)
        handle = self.answer(self._sent, "run_task", 10.0, alive)
        if not handle.accepted:
            raise GenimaError(f"the task runner refused {instruction!r}")
        return handle.get_result_async()

    def end_task(self) -> bool:
        """End the task that was begun last, if there is one, heard of or not; returns whether that was confirmed."""
        sent = self._sent
        if sent is None:
            return True
        if not self.spin_until(sent.done, _CONFIRMED, lambda: None):
            return False
        if not sent.result().accepted:
            return True
        answer = sent.result().cancel_goal_async()
        return self.spin_until(answer.done, _CONFIRMED, lambda: None)

    def trigger(self, name: str, alive: Callable[[], None]) -> Trigger.Response:
        """Call a service that takes no words."""
        return self.call(Trigger, name, Trigger.Request(), alive)

    def call(self, kind: type, name: str, request: Any, alive: Callable[[], None]) -> Any:
        """Call a service and wait for its answer."""
        client = self.callee(kind, name)
        self._require(client.wait_for_service, name)
        return self.answer(client.call_async(request), name, _PATIENCE, alive)

    def callee(self, kind: type, name: str) -> Any:
        """The client of a service.

        It is best had long before its first call: this side sees the server a moment before the server sees this side,
        and Fast DDS's answers to who is not seen are lost.
        """
        if name not in self._callees:
            self._callees[name] = self.create_client(kind, name)
        return self._callees[name]

    def answer(self, future: Future, name: str, timeout: float, alive: Callable[[], None]):  # type: ignore[no-untyped-def]
        """Wait for what a service or an action answers."""
        if not self.spin_until(future.done, timeout, alive):
            raise self._timeout(f"no answer from {name} within {timeout:.0f} s")
        return future.result()

    def _require(self, wait: Callable[[float], bool], name: str) -> None:
        if not wait(_DISCOVERY):
            raise self._timeout(f"nobody serves {name}")

    def faults(self) -> list[str]:
        """What the nodes complain about now."""
        return [f"{name}: {s.message}" for name, s in self.health.items() if s.level != DiagnosticStatus.OK]

    def trouble(self, name: str) -> str:
        """What is wrong with a node, which may have fallen silent; empty where it is fine."""
        status = self.health.get(name)
        if status is None or time.monotonic() - self._heard[name] > _SILENT:
            return "silent"
        return str(status.message) if status.level != DiagnosticStatus.OK else ""

    def dropped(self) -> int:
        """Samples that came to any node and were not used."""
        return sum(
            int(value)
            for status in self.health.values()
            for key, value in values(status).items()
            if key.endswith(" dropped") or key.startswith("skipped ")
        )

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if (name := own_name(self, status)) is not None:
                self.health[name], self._heard[name] = status, time.monotonic()
                if status.level != DiagnosticStatus.OK:
                    self.complaints.append(f"{name}: {status.message}")
