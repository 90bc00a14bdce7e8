"""Driving a graph from outside, where its nodes fall silent or answer late."""

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


def alive() -> None:
    """Callback that raises nothing."""


def test_a_node_that_falls_silent_is_not_ready(
    graph: Graph, driver: GraphClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STATUS_TIMEOUT", 0.5)
    say = graph.publisher(NodeStatus, "node_status", qos.NODE_STATUS)

    def speak() -> bool:
        say(NodeStatus(node="guard", state=NodeStatus.OK))
        return not driver.problem("guard")

    assert driver.problem("guard") == "no status"
    assert driver.spin_until(speak, 5.0, alive)
    driver.wait_ready(["guard"], 1.0, alive)
    driver.spin_until(lambda: False, 0.7, alive)
    assert driver.problem("guard") == "no status"
    with pytest.raises(GenimaError, match=r"not ready after 0 s: guard \(no status\)"):
        driver.wait_ready(["guard"], 0.1, alive)


def test_a_task_is_ended_also_where_its_begin_was_not_heard_yet(graph: Graph, driver: GraphClient) -> None:
    assert driver.end_task(), "there is none"
    accepted: list[Any] = []
    cancelled: list[Any] = []

    def accept(goal: RunTask.Goal) -> GoalResponse:
        time.sleep(0.3)  # the driver is interrupted before the answer comes
        return GoalResponse.ACCEPT

    def cancel(handle: Any) -> CancelResponse:
        cancelled.append(handle)
        return CancelResponse.ACCEPT

    def never(handle: Any) -> RunTask.Result:
        raise AssertionError("it is accepted, but not begun")

    ActionServer(
        graph.probe, RunTask, "run_task", never,
        goal_callback=accept, handle_accepted_callback=accepted.append, cancel_callback=cancel,
    )  # fmt: skip

    class Interrupted(Exception):
        pass

    def interrupt() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        driver.begin_task("wave", 1.0, interrupt)
    assert not accepted
    assert driver.end_task(), "nobody confirms it"
    assert len(accepted) == len(cancelled) == 1
