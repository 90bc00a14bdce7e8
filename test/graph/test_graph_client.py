"""Graph client with nodes that stop publishing or respond late."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from ros_graph import Graph

from genima.errors import GenimaError
from genima_cli import graph_client as module
from genima_cli.graph_client import GraphClient
from genima_interfaces.action import RunTask
from genima_interfaces.msg import NodeStatus
from genima_nodes.ros import qos


@pytest.fixture
def driver(graph: Graph) -> Iterator[GraphClient]:
    driver = GraphClient("driver")
    yield driver
    driver.close()


def raise_nothing() -> None:
    """Callback that raises nothing."""


def test_silent_node_is_not_ready(graph: Graph, driver: GraphClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STATUS_TIMEOUT", 0.5)
    publish = graph.publisher(NodeStatus, "node_status", qos.NODE_STATUS)

    def publish_status() -> bool:
        publish(NodeStatus(node="guard", state=NodeStatus.OK))
        return not driver.problem("guard")

    assert driver.problem("guard") == "no status"
    assert driver.spin_until(publish_status, 5.0, raise_nothing)
    driver.wait_ready(["guard"], 1.0, raise_nothing)
    driver.spin_until(lambda: False, 0.7, raise_nothing)
    assert driver.problem("guard") == "no status"
    with pytest.raises(GenimaError, match=r"not ready after 0 s: guard \(no status\)"):
        driver.wait_ready(["guard"], 0.1, raise_nothing)


def test_fault_of_required_node_is_raised(graph: Graph, driver: GraphClient) -> None:
    publish = graph.publisher(NodeStatus, "node_status", qos.NODE_STATUS)

    def publish_fault() -> bool:
        publish(NodeStatus(node="sim_node", state=NodeStatus.FAULT, message="task: failed"))
        driver.require_no_fault("command_guard")  # without a status
        return bool(driver.problem("sim_node") == "task: failed")

    assert driver.spin_until(publish_fault, 5.0, raise_nothing)
    with pytest.raises(GenimaError, match="sim_node: task: failed"):
        driver.require_no_fault("sim_node")


def test_task_is_ended_before_its_goal_is_accepted(graph: Graph, driver: GraphClient) -> None:
    assert driver.end_task(), "no task is running"
    accepted: list[Any] = []
    cancelled: list[Any] = []

    def accept(goal: RunTask.Goal) -> GoalResponse:
        time.sleep(0.3)  # the driver is interrupted before the response
        return GoalResponse.ACCEPT

    def cancel(handle: Any) -> CancelResponse:
        cancelled.append(handle)
        return CancelResponse.ACCEPT

    def execute(handle: Any) -> RunTask.Result:
        raise AssertionError("the goal is accepted, but not executed")

    ActionServer(
        graph.probe, RunTask, "run_task", execute,
        goal_callback=accept, handle_accepted_callback=accepted.append, cancel_callback=cancel,
    )  # fmt: skip

    class Interrupted(Exception):
        pass

    def interrupt() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        driver.begin_task("wave", 1.0, interrupt)
    assert not accepted
    assert driver.end_task(), "the cancellation is not confirmed"
    assert len(accepted) == len(cancelled) == 1
