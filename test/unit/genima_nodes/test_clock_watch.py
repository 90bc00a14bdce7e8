"""Clock watch: offset between the clocks of two machines."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import rclpy
from domains import free_domain
from ros_graph import diagnostic_values, overrides
from sensor_msgs.msg import TimeReference

from genima.errors import GenimaError
from genima_nodes.clock_watch import ClockOffset, ClockWatchNode
from genima_nodes.ros import messages, qos


class Machine(ClockWatchNode):
    """Clock watch of another machine, with a shifted clock."""

    shift = 0.0  # s

    def now(self) -> float:
        return time.time() + self.shift


@pytest.mark.parametrize("forward, backward", [(0.0, 0.0), (0.001, 0.004), (0.2, 0.0), (0.0, 0.2)])
@pytest.mark.parametrize("ahead", [-3.0, -0.004, 0.0, 0.006, 100.0])
def test_error_bound_covers_asymmetric_delay(ahead: float, forward: float, backward: float) -> None:
    sent = 1000.0
    offset = ClockOffset.from_round_trip(sent, sent + forward + ahead, sent + forward + backward)
    assert abs(offset.seconds - ahead) <= offset.error + 1e-9
    assert offset.error == pytest.approx((forward + backward) / 2)


def published_offset(graph: Any, node: str, other: str) -> float:
    """Return the published offset in ms; NaN before the first."""
    status = graph.diagnostics.get(node)
    return float(diagnostic_values(status).get(f"{other} ahead [ms]", "nan")) if status else float("nan")


def test_offset_between_two_machines_is_reported(graph) -> None:
    ours, other = graph.add(ClockWatchNode("robot")), graph.add(Machine("gpu-1"))
    graph.until(lambda: abs(published_offset(graph, "clock_watch_robot", "gpu_1")) < 5, "offset of equal clocks not 0")
    assert graph.has_no_fault("clock_watch_robot")()
    other.shift = 0.4
    graph.until(graph.reports_fault("clock_watch_robot", "ms ahead (5 ms are allowed)"), "shift not reported")
    graph.until(
        graph.reports_fault("clock_watch_gpu_1", "ms behind (5 ms are allowed)"),
        "shift not reported by the other machine",
    )
    assert published_offset(graph, "clock_watch_robot", "gpu_1") == pytest.approx(400, abs=50)
    other.shift = 0.0  # the clock is set
    graph.until(graph.has_no_fault("clock_watch_robot"), "fault not cleared")
    assert ours.get_name() == "clock_watch_robot"


def test_slow_response_is_no_fault(graph) -> None:
    """The error of a slow response is large: it is no fault."""
    graph.add(ClockWatchNode("robot"))
    publisher = graph.probe.create_publisher(TimeReference, "/clock_watch", qos.STATUS)

    def respond_late(request: TimeReference) -> None:
        if not request.source and request.header.frame_id == "robot":
            sent = messages.seconds(request.header.stamp)
            response = TimeReference(time_ref=messages.time_message(sent - 0.5), source="robot")  # half a second ago
            response.header.frame_id, response.header.stamp = "far", messages.time_message(sent - 0.1)
            publisher.publish(response)

    graph.subscribe(TimeReference, "/clock_watch", qos.STATUS, respond_late)
    graph.until(lambda: abs(published_offset(graph, "clock_watch_robot", "far")) > 50, "no offset published")
    assert graph.has_no_fault("clock_watch_robot")()


def test_lost_machine_is_reported(graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genima_nodes.clock_watch._TIMEOUT", 1.0)
    graph.add(ClockWatchNode("robot"))
    other = graph.add(Machine("gpu"))
    graph.until(lambda: abs(published_offset(graph, "clock_watch_robot", "gpu")) < 5, "no offset published")
    graph.executor.remove_node(other)
    graph.until(graph.reports_fault("clock_watch_robot", "clock of gpu: no response"), "loss not reported")


def test_own_messages_are_ignored(graph) -> None:
    """Two nodes on one machine have one clock."""
    graph.add(ClockWatchNode("robot"))
    graph.add(ClockWatchNode("robot"))
    graph.until(lambda: "clock_watch_robot" in graph.diagnostics, "no status received")
    assert math.isnan(published_offset(graph, "clock_watch_robot", "robot"))


def test_negative_limit_is_rejected() -> None:
    rclpy.init(domain_id=free_domain())
    try:
        with pytest.raises(GenimaError, match="allowed"):
            ClockWatchNode("robot", parameter_overrides=overrides(allowed=-1.0))
    finally:
        rclpy.shutdown()
