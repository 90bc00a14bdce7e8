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

_DISCOVERY = 30.0  # s for a service to be discovered
_TIMEOUT = 10.0  # s for its response
_CANCEL_TIMEOUT = 2.0  # s for each response when a task is ended
_PROGRESS_PERIOD = 5.0  # s between lines where there is no terminal
_STATUS_TIMEOUT = 5.0  # s; nodes publish their status every second


class GraphClient(Node):
    """Client node of a graph, without a thread: callbacks run only while its methods wait."""

    def __init__(self, name: str, namespace: str = "") -> None:
        super().__init__(name, namespace=namespace)
        self.statuses: dict[str, NodeStatus] = {}  # newest by node
        self.guard: GuardStatus | None = None  # newest; None: none yet
        self.faults_so_far: list[str] = []
        self._received: dict[str, float] = {}  # monotonic s of the newest status, by node
        self._load = LoadMeter()
        self._goal: Future | None = None  # goal handle of the last task
        self._executor = EventsExecutor()
        self._executor.add_node(self)
        self._client_cache: dict[str, Any] = {}  # clients by name
        self._run_task = ActionClient(self, RunTask, "run_task")
        self.create_subscription(NodeStatus, "node_status", self._on_node_status, qos.NODE_STATUS)
        self.create_subscription(GuardStatus, "command_guard/status", self._on_guard_status, qos.GUARD_STATUS)

    def close(self) -> None:
        """Shut down executor and node before ROS."""
        self._executor.shutdown()
        self._run_task.destroy()
        self.destroy_node()

    # Waiting

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

    def wait_ready(
        self, nodes: Sequence[str], timeout: float, alive: Callable[[], None], alternatives: Sequence[str] = ()
    ) -> None:
        """Wait until every node has published a status without a fault; show the progress meanwhile.

        Args:
            nodes: names of the nodes.
            timeout: s.
            alive: called a few times a second; may raise.
            alternatives: names of nodes of which one more must be ready; empty: none.

        Raises:
            GenimaError: names the nodes that are not ready, and why.
        """
        begin = time.monotonic()
        needed = [(name,) for name in nodes] + ([tuple(alternatives)] if alternatives else [])

        def unready() -> list[str]:
            return [
                f"{' or '.join(names)} ({problem})" for names in needed if (problem := self._startup_problem(names))
            ]

        next_line = begin + 1.0
        with tqdm(bar_format="{desc}", disable=None, leave=False) as line:

            def live() -> None:
                nonlocal next_line
                alive()
                now, missing = time.monotonic(), unready()
                text = f"{now - begin:.0f} s: {len(needed) - len(missing)} of {len(needed)} nodes are ready"
                text += f"; waiting for {', '.join(missing)}" if missing else ""
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

    def _startup_problem(self, names: Sequence[str]) -> str:
        """Return why none of some nodes is ready; empty if one is."""
        problems = [self.problem(name) if name in self.statuses else "starting" for name in names]
        return "" if "" in problems else next((each for each in problems if each != "starting"), "starting")

    # Requests

    def reset(self, task: str, seed: int, alive: Callable[[], None]) -> str:
        """Reset the scene of a task; return its instruction."""
        response = self.call(ResetScene, "sim/reset", ResetScene.Request(task=task, seed=seed), alive)
        if not response.success:
            raise GenimaError(response.message)
        return str(response.instruction)

    def begin_task(self, instruction: str, time_limit: float, alive: Callable[[], None]) -> Future:
        """Start a task; return the future of its result."""
        self._require(self._run_task.wait_for_server, "run_task")
        goal = RunTask.Goal(instruction=instruction, time_limit=time_limit)
        self._goal = self._run_task.send_goal_async(goal)
        handle = self.wait_for(self._goal, "run_task", 10.0, alive)
        if not handle.accepted:
            raise GenimaError(f"run_task: task refused ({instruction!r})")
        return handle.get_result_async()

    def end_task(self) -> bool:
        """End the last task, if there is one; return False if that was not confirmed."""
        goal = self._goal
        if goal is None:
            return True
        if not self.spin_until(goal.done, _CANCEL_TIMEOUT, lambda: None):
            return False
        if not goal.result().accepted:
            return True
        response = goal.result().cancel_goal_async()
        return self.spin_until(response.done, _CANCEL_TIMEOUT, lambda: None)

    def trigger(self, name: str, alive: Callable[[], None]) -> Trigger.Response:
        """Call a std_srvs/Trigger service."""
        return self.call(Trigger, name, Trigger.Request(), alive)

    def call(self, kind: type, name: str, request: Any, alive: Callable[[], None]) -> Any:
        """Call a service and wait for its response."""
        client = self.client(kind, name)
        self._require(client.wait_for_service, name)
        return self.wait_for(client.call_async(request), name, _TIMEOUT, alive)

    def client(self, kind: type, name: str) -> Any:
        """Return the client of a service.

        Create it some time before its first call: the client discovers the server before the server discovers the
        client, and Fast DDS loses responses to unknown clients.
        """
        if name not in self._client_cache:
            self._client_cache[name] = self.create_client(kind, name)
        return self._client_cache[name]

    def wait_for(self, future: Future, name: str, timeout: float, alive: Callable[[], None]):  # type: ignore[no-untyped-def]
        """Wait for the response of a service or an action."""
        if not self.spin_until(future.done, timeout, alive):
            raise self._timeout(f"{name}: no response within {timeout:.0f} s")
        return future.result()

    def _require(self, wait: Callable[[float], bool], name: str) -> None:
        if not wait(_DISCOVERY):
            raise self._timeout(f"service {name}: not available")

    def faults(self) -> list[str]:
        """Return the present faults of all nodes."""
        return [f"{name}: {status.message}" for name, status in self.statuses.items() if status.state != NodeStatus.OK]

    def problem(self, name: str) -> str:
        """Return the fault of a node, or that it publishes no status; empty without one."""
        status = self.statuses.get(name)
        if status is None or time.monotonic() - self._received[name] > _STATUS_TIMEOUT:
            return "no status"
        return str(status.message) if status.state != NodeStatus.OK else ""

    def require_no_fault(self, name: str) -> None:
        """Raise a GenimaError with the fault of a node."""
        status = self.statuses.get(name)
        if status is not None and status.state != NodeStatus.OK:
            raise GenimaError(f"{name}: {status.message}")

    def dropped(self) -> int:
        """Return the number of samples that arrived at any node and were not used."""
        return sum(int(status.dropped) for status in self.statuses.values())

    def _on_node_status(self, message: NodeStatus) -> None:
        self.statuses[message.node], self._received[message.node] = message, time.monotonic()
        if message.state != NodeStatus.OK:
            self.faults_so_far.append(f"{message.node}: {message.message}")

    def _on_guard_status(self, message: GuardStatus) -> None:
        self.guard = message
