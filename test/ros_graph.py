"""Run nodes in this process, in a ROS domain of their own, with a probe node of the test."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from genima.robot.model import RobotModel
from genima_interfaces.msg import GuardStatus, NodeStatus
from genima_nodes.ros import messages, qos

PATIENCE = 60.0  # s: the machine may be busy


class Graph:
    """Nodes spun in a thread, with a probe node for the test's own topics and services."""

    def __init__(self) -> None:
        self.probe = rclpy.create_node("probe")
        self.diagnostics: dict[str, DiagnosticStatus] = {}
        self.statuses: dict[str, NodeStatus] = {}
        self.guard = GuardStatus()
        self.nodes: list[Any] = []
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.probe)
        self._error: Exception | None = None  # of a callback; ends the thread
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()
        self.subscribe(DiagnosticArray, "/diagnostics", qos.STATUS, self._on_diagnostics)
        self.subscribe(NodeStatus, "node_status", qos.NODE_STATUS, self._on_node_status)
        self.subscribe(GuardStatus, "command_guard/status", qos.GUARD_STATUS, self._on_guard_status)

    def add(self, node: Any) -> Any:
        """Add a node to the graph."""
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def subscribe(
        self, kind: type, topic: str, profile: QoSProfile, callback: Callable[[Any], None] | None = None
    ) -> list[Any]:
        """Return the growing list of messages received on a topic."""
        received: list[Any] = []
        self.probe.create_subscription(kind, topic, callback or received.append, profile)
        return received

    def publisher(self, kind: type, topic: str, profile: QoSProfile) -> Callable[[Any], None]:
        """Return the publish function of a topic, once the topic has a subscriber."""
        publisher = self.probe.create_publisher(kind, topic, profile)
        self.until(lambda: publisher.get_subscription_count() > 0, f"topic {topic}: no subscriber")
        return publisher.publish

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service and return its response."""
        client = self.probe.create_client(kind, name)
        self.until(client.service_is_ready, f"service {name}: not available")
        future = client.call_async(request)
        self.until(future.done, f"service {name}: no response")
        return future.result()

    def resume(self) -> str:
        """Resume the stopped guard once the arm is at rest; return the response's message."""
        responses: list[Any] = []

        def resumed() -> bool:
            responses.append(self.call(Trigger, "command_guard/resume", Trigger.Request()))
            if not responses[-1].success and "still moving" not in responses[-1].message:
                raise AssertionError(responses[-1].message)
            return bool(responses[-1].success)

        self.until(resumed, "the arm does not come to rest")
        return str(responses[-1].message)

    def execute(self, function: Callable[[], Any]) -> Any:
        """Return the result of a function called in the executor's thread.

        rclpy's action client registers a request after it has sent it: called in another thread, it drops a response
        that comes before ("Ignoring unexpected goal response").
        """
        task = self.executor.create_task(function)
        self.until(task.done, "the executor does not call")
        return task.result()

    def until(self, condition: Callable[[], Any], otherwise: str, meanwhile: Callable[[], None] | None = None) -> None:
        """Wait for a condition; call ``meanwhile`` between checks, and fail with ``otherwise`` after a minute."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self._error is not None:
                raise self._error
            if time.monotonic() > deadline:
                raise TimeoutError(f"{otherwise}; {[s.message for s in self.diagnostics.values()]}")
            if meanwhile is not None:
                meanwhile()
            time.sleep(0.02)

    def reports_fault(self, node: str, text: str) -> Callable[[], bool]:
        """Return a condition: the node's diagnostics are at ERROR and contain ``text``."""

        def condition() -> bool:
            status = self.diagnostics.get(node)
            return status is not None and status.level == DiagnosticStatus.ERROR and text in status.message

        return condition

    def guard_reports(self, reason: int) -> Callable[[], bool]:
        """Return a condition: the command guard's status has this reason."""
        return lambda: bool(self.guard.reason == reason)

    def has_no_fault(self, node: str) -> Callable[[], bool]:
        """Return a condition: the node's diagnostics are at OK."""
        return lambda: node in self.diagnostics and self.diagnostics[node].level == DiagnosticStatus.OK

    def close(self) -> None:
        """Close all nodes and shut ROS down."""
        with contextlib.ExitStack() as stack:  # closes all nodes even after an error, else the next tests fail
            stack.callback(rclpy.shutdown)
            for node in (self.probe, *self.nodes):  # else they remain in a domain of another test
                stack.callback(node.destroy_node)
            stack.callback(self._thread.join)
            stack.callback(self._ending.set)
            for node in reversed(self.nodes):
                stack.callback(node.close)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnostics.update({status.name: status for status in message.status})

    def _on_node_status(self, message: NodeStatus) -> None:
        self.statuses[message.node] = message

    def _on_guard_status(self, message: GuardStatus) -> None:
        self.guard = message

    def _spin(self) -> None:
        try:
            while not self._ending.is_set():
                self.executor.spin_once(timeout_sec=0.1)
        except Exception as error:
            self._error = error


def arm_is_at(states: list[JointState], goal: NDArray[np.float64], robot: RobotModel) -> Callable[[], bool]:
    """Return a condition: the newest joint state has the arm within 0.01 rad of ``goal`` (n,) rad."""
    return lambda: bool(np.allclose(messages.joints_from(states[-1], robot).positions, goal, atol=0.01))


def overrides(**values: Any) -> list[Parameter]:
    """Return parameter overrides of a node."""
    return [Parameter(name, value=value) for name, value in values.items()]


def diagnostic_values(status: DiagnosticStatus) -> dict[str, str]:
    """Return the values of a status on /diagnostics by key."""
    return {pair.key: pair.value for pair in status.values}
