"""Nodes in this process, in a ROS domain of their own, and a probe to talk to them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile

from genima_interfaces.msg import GuardStatus, NodeStatus
from genima_nodes.ros import qos

PATIENCE = 60.0  # s: the machine may be busy


class Graph:
    """Spins nodes in a thread; hears and says things on their topics."""

    def __init__(self) -> None:
        self.probe = rclpy.create_node("probe")
        self.health: dict[str, DiagnosticStatus] = {}
        self.statuses: dict[str, NodeStatus] = {}
        self.guard = GuardStatus()
        self.nodes: list[Any] = []
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.probe)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()
        self.hear(DiagnosticArray, "/diagnostics", qos.STATUS, self._on_diagnostics)
        self.hear(NodeStatus, "node_status", qos.NODE_STATUS, self._on_node_status)
        self.hear(GuardStatus, "command_guard/status", qos.GUARD_STATUS, self._on_guard_status)

    def add(self, node: Any) -> Any:
        """Take a node into the graph."""
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def hear(
        self, kind: type, topic: str, profile: QoSProfile, callback: Callable[[Any], None] | None = None
    ) -> list[Any]:
        """Everything that comes on a topic from now on, in a list that grows."""
        heard: list[Any] = []
        self.probe.create_subscription(kind, topic, callback or heard.append, profile)
        return heard

    def speak(self, kind: type, topic: str, profile: QoSProfile) -> Callable[[Any], None]:
        """A function that publishes, once somebody listens."""
        publisher = self.probe.create_publisher(kind, topic, profile)
        self.until(lambda: publisher.get_subscription_count() > 0, f"nobody listens to {topic}")
        return publisher.publish

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """The response of a service."""
        client = self.probe.create_client(kind, name)
        self.until(client.service_is_ready, f"service {name}: not available")
        future = client.call_async(request)
        self.until(future.done, f"{name} does not answer")
        return future.result()

    def until(self, condition: Callable[[], Any], otherwise: str, meanwhile: Callable[[], None] | None = None) -> None:
        """Wait for a condition, doing something again and again if asked to."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{otherwise}; {[s.message for s in self.health.values()]}"
            if meanwhile is not None:
                meanwhile()
            time.sleep(0.02)

    def complains(self, node: str, words: str) -> Callable[[], bool]:
        """A condition: the node's diagnostics are at ERROR and have these words."""

        def condition() -> bool:
            status = self.health.get(node)
            return status is not None and status.level == DiagnosticStatus.ERROR and words in status.message

        return condition

    def guard_reports(self, reason: int) -> Callable[[], bool]:
        """A condition: the command guard's state has this reason of GuardStatus."""
        return lambda: bool(self.guard.reason == reason)

    def is_fine(self, node: str) -> Callable[[], bool]:
        """A condition: the node's diagnostics are at OK."""
        return lambda: node in self.health and self.health[node].level == DiagnosticStatus.OK

    def close(self) -> None:
        """End everything."""
        for node in self.nodes:
            node.close()
        self._ending.set()
        self._thread.join()
        for node in (*self.nodes, self.probe):  # else they live on, in a domain that another test may be given
            node.destroy_node()
        rclpy.shutdown()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.health.update({status.name: status for status in message.status})

    def _on_node_status(self, message: NodeStatus) -> None:
        self.statuses[message.node] = message

    def _on_guard_status(self, message: GuardStatus) -> None:
        self.guard = message

    def _spin(self) -> None:
        while not self._ending.is_set():
            self.executor.spin_once(timeout_sec=0.1)


def diagnostic_values(status: DiagnosticStatus) -> dict[str, str]:
    """Values of a status on /diagnostics, by key."""
    return {pair.key: pair.value for pair in status.values}
