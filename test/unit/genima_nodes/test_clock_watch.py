"""How far the clocks of two machines are apart, and what is said of it."""

from __future__ import annotations

import time
from typing import Any

import pytest
import rclpy
from domains import free_domain
from rclpy.parameter import Parameter
from ros_graph import diagnostic_values
from sensor_msgs.msg import TimeReference

from genima.errors import GenimaError
from genima_nodes.clock_watch import ClockOffset, ClockWatchNode
from genima_nodes.ros import messages, qos


class Machine(ClockWatchNode):
    """Another one, whose clock is not ours."""

    shift = 0.0  # s

    def now(self) -> float:
        return time.time() + self.shift


@pytest.mark.parametrize("there, back", [(0.0, 0.0), (0.001, 0.004), (0.2, 0.0), (0.0, 0.2)])
@pytest.mark.parametrize("ahead", [-3.0, -0.004, 0.0, 0.006, 100.0])
def test_the_error_covers_any_asymmetry_of_the_way(ahead: float, there: float, back: float) -> None:
    asked = 1000.0
    heard = asked + there + back
    offset = ClockOffset.of(asked, asked + there + ahead, heard)
    assert abs(offset.seconds - ahead) <= offset.error + 1e-9
    assert offset.error == pytest.approx((there + back) / 2)


def offset_said(graph: Any, node: str, other: str) -> float:
    """In ms; NaN before any."""
    status = graph.diagnostics.get(node)
    return float(diagnostic_values(status).get(f"{other} ahead [ms]", "nan")) if status else float("nan")


def test_two_machines_tell_how_far_apart_they_are(graph) -> None:
    ours, other = graph.add(ClockWatchNode("robot")), graph.add(Machine("gpu-1"))
    graph.until(lambda: abs(offset_said(graph, "clock_watch_robot", "gpu_1")) < 5, "clocks that agree do not")
    assert graph.has_no_fault("clock_watch_robot")()
    other.shift = 0.4
    graph.until(graph.reports_fault("clock_watch_robot", "ms ahead, 5 ms are allowed"), "the shift is not noticed")
    graph.until(graph.reports_fault("clock_watch_gpu_1", "ms behind, 5 ms are allowed"), "nor by the other one")
    assert offset_said(graph, "clock_watch_robot", "gpu_1") == pytest.approx(400, abs=50)
    other.shift = 0.0  # somebody has set it
    graph.until(graph.has_no_fault("clock_watch_robot"), "a clock that was set right is still complained of")
    assert ours.get_name() == "clock_watch_robot"


def test_a_slow_way_is_no_difference(graph) -> None:
    """An answer that took long says little, and what says little is no reason to complain."""
    graph.add(ClockWatchNode("robot"))
    answer = graph.probe.create_publisher(TimeReference, "/clock_watch", qos.STATUS)

    def late_and_off(question: TimeReference) -> None:
        if not question.source and question.header.frame_id == "robot":
            asked = messages.seconds(question.header.stamp)
            reply = TimeReference(time_ref=messages.time_message(asked - 0.5), source="robot")  # half a second ago
            reply.header.frame_id, reply.header.stamp = "far", messages.time_message(asked - 0.1)
            answer.publish(reply)

    graph.subscribe(TimeReference, "/clock_watch", qos.STATUS, late_and_off)
    graph.until(lambda: abs(offset_said(graph, "clock_watch_robot", "far")) > 50, "nothing is said of it")
    assert graph.has_no_fault("clock_watch_robot")()


def test_a_machine_that_went_is_missed(graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genima_nodes.clock_watch._SILENT", 1.0)
    graph.add(ClockWatchNode("robot"))
    other = graph.add(Machine("gpu"))
    graph.until(lambda: abs(offset_said(graph, "clock_watch_robot", "gpu")) < 5, "it is not found")
    graph.executor.remove_node(other)
    graph.until(graph.reports_fault("clock_watch_robot", "clock of gpu: no answer"), "nobody misses it")


def test_its_own_word_is_no_answer(graph) -> None:
    """Two on one machine are one clock."""
    graph.add(ClockWatchNode("robot"))
    graph.add(ClockWatchNode("robot"))
    graph.until(lambda: "clock_watch_robot" in graph.diagnostics, "no status received")
    assert offset_said(graph, "clock_watch_robot", "robot") != offset_said(graph, "clock_watch_robot", "robot")  # NaN


def test_a_bad_limit_is_refused() -> None:
    rclpy.init(domain_id=free_domain())
    try:
        with pytest.raises(GenimaError, match="allowed"):
            ClockWatchNode("robot", parameter_overrides=[Parameter("allowed", value=-1.0)])
    finally:
        rclpy.shutdown()
