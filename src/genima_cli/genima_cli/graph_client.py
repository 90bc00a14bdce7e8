"""Client of a running ROS graph: wait for its nodes, reset the scene, run tasks."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.action import ActionClient
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger
from tqdm import tqdm

from genima.errors import GenimaError
from genima_cli.machine_load import LoadMeter
from genima_interfaces.action import RunTask
from genima_interfaces.msg import GuardStatus, NodeStatus
from genima_interfaces.srv import ResetScene
from genima_nodes.ros import qos

_DISCOVERY = 30.0  # s for a service to be found
_PATIENCE = 10.0  # s for its answer
_CONFIRMED = 2.0  # s for each answer when a task shall end
_PROGRESS_PERIOD = 5.0  # s between two lines where no terminal shows a live one
_SILENT = 5.0  # s; nodes publish their status every second


class GraphClient(Node):
    """Node without a thread of its own: callbacks run only while its methods wait."""

    def __init__(self, name: str, namespace: str = "") -> None:
        super().__init__(name, namespace=namespace)
        self.health: dict[str, NodeStatus] = {}  # newest by node
        self.guard: GuardStatus | None = None  # newest; None: none yet
        self.complaints: list[str] = []  # all faults so far
        self._heard: dict[str, float] = {}  # monotonic s, by node
        self._load = LoadMeter()
        self._sent: Future | None = None  # the task that was begun last
        self._executor = EventsExecutor()
        self._executor.add_node(self)
        self._callees: dict[str, Any] = {}  # clients by name
        self._run_task = ActionClient(self, RunTask, "run_task")
        self.create_subscription(NodeStatus, "node_status", self._on_node_status, qos.NODE_STATUS)
        self.create_subscription(GuardStatus, "command_guard/status", self._on_guard_status, qos.GUARD_STATUS)

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

        ``a or b`` among the ``nodes`` means one of the two.

        Raises:
            GenimaError: naming the nodes that are not ready, and why.
        """
        begin = time.monotonic()

        def unready() -> list[str]:
            return [f"{name} ({trouble})" for name in nodes if (trouble := self._awaited(name))]

        next_line = begin + 1.0
        with tqdm(bar_format="{desc}", disable=None, leave=False) as line:

            def live() -> None:
                nonlocal next_line
                alive()
                now, awaited = time.monotonic(), unready()
                text = f"{now - begin:.0f} s: {len(nodes) - len(awaited)} of {len(nodes)} nodes are ready"
                text += f"; waiting for {', '.join(awaited)}" if awaited else ""
                if not line.disable:
                    line.set_description_str(text)
                elif now >= next_line:
                    next_line = now + _PROGRESS_PERIOD
                    print(text, flush=True)

            if not self.spin_until(lambda: not unready(), timeout, live):
                raise self._timeout(f"not ready after {timeout:.0f} s: {', '.join(unready())}")

    def _timeout(self, problem: str) -> GenimaError:
        """Return an error that names a machine that is too busy as the likely cause."""
        remedy = self._load.read().remedy()
        return GenimaError(f"{problem}; {remedy}" if remedy else problem)

    def _awaited(self, name: str) -> str:
        """Return why a node, or each of several with ``or`` between, is not ready; empty where one is."""
        troubles = [self.trouble(node) if node in self.health else "starting" for node in name.split(" or ")]
        return "" if "" in troubles else next((each for each in troubles if each != "starting"), "starting")

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
        """Call a std_srvs/Trigger service."""
        return self.call(Trigger, name, Trigger.Request(), alive)

    def call(self, kind: type, name: str, request: Any, alive: Callable[[], None]) -> Any:
        """Call a service and wait for its answer."""
        client = self.callee(kind, name)
        self._require(client.wait_for_service, name)
        return self.answer(client.call_async(request), name, _PATIENCE, alive)

    def callee(self, kind: type, name: str) -> Any:
        """Return the client of a service.

        It is best had long before its first call: this side sees the server a moment before the server sees this side,
        and answers of Fast DDS to clients that it has not discovered are lost.
        """
        if name not in self._callees:
            self._callees[name] = self.create_client(kind, name)
        return self._callees[name]

    def answer(self, future: Future, name: str, timeout: float, alive: Callable[[], None]):  # type: ignore[no-untyped-def]
        """Wait for the answer of a service or an action."""
        if not self.spin_until(future.done, timeout, alive):
            raise self._timeout(f"no answer from {name} within {timeout:.0f} s")
        return future.result()

    def _require(self, wait: Callable[[float], bool], name: str) -> None:
        if not wait(_DISCOVERY):
            raise self._timeout(f"{name}: no server found")

    def faults(self) -> list[str]:
        """Return the present faults of all nodes."""
        return [f"{name}: {status.message}" for name, status in self.health.items() if status.state != NodeStatus.OK]

    def trouble(self, name: str) -> str:
        """Return the fault of a node, or that it publishes no status; empty where it is fine."""
        status = self.health.get(name)
        if status is None or time.monotonic() - self._heard[name] > _SILENT:
            return "silent"
        return str(status.message) if status.state != NodeStatus.OK else ""

    def dropped(self) -> int:
        """Return the number of samples that arrived at any node and were not used."""
        return sum(int(status.dropped) for status in self.health.values())

    def _on_node_status(self, message: NodeStatus) -> None:
        self.health[message.node], self._heard[message.node] = message, time.monotonic()
        if message.state != NodeStatus.OK:
            self.complaints.append(f"{message.node}: {message.message}")

    def _on_guard_status(self, message: GuardStatus) -> None:
        self.guard = message
