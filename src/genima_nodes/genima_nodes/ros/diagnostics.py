"""Publish rates, latencies, counters and faults of a node.

On /diagnostics for people and on `node_status` for programs, once a second and within 0.1 s of a change of the faults.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from genima_interfaces.msg import NodeStatus
from genima_nodes.ros import qos
from genima_nodes.ros.paced_thread import STEADY

_RATE_WINDOW = 2.0  # s
_LATENCY_WINDOW = 4096  # samples
_REPEAT = 5.0  # s between log lines about one fault; texts are not compared, they contain numbers
_PERIOD, _MIN_PERIOD = 1.0, 0.1  # s between publications: without a change, and with changes


class TopicStats:
    """Rate, age and counters of one topic."""

    def __init__(self) -> None:
        self.total = 0
        self.dropped = 0  # arrived, but not used
        self._times: deque[float] = deque(maxlen=1000)

    def tick(self) -> None:
        """Count a sample."""
        self.total += 1
        self._times.append(time.monotonic())

    def drop(self) -> None:
        """Count a sample that is not used."""
        self.dropped += 1

    @property
    def rate(self) -> float:
        """Hz over the last two seconds."""
        now = time.monotonic()
        recent = [t for t in list(self._times) if now - t < _RATE_WINDOW]
        return len(recent) / _RATE_WINDOW

    @property
    def age(self) -> float:
        """Seconds since the last sample; infinite before the first."""
        return time.monotonic() - self._times[-1] if self._times else float("inf")


class LatencyStats:
    """Percentiles of the newest durations of one kind."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=_LATENCY_WINDOW)

    def add(self, duration: float) -> None:
        """Add a duration in seconds."""
        self._samples.append(duration)

    def percentile(self, percent: float) -> float:
        """Return a percentile in seconds; NaN before the first sample."""
        samples = list(self._samples)
        return float(np.percentile(samples, percent)) if samples else float("nan")


class DiagnosticUpdater:
    """Statistics and faults of a node, published as one DiagnosticStatus and one NodeStatus."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._topics: dict[str, TopicStats] = {}
        self._latencies: dict[str, LatencyStats] = {}
        self._values: dict[str, Callable[[], object]] = {}
        self._skipped: dict[str, Callable[[], int]] = {}
        self._watches: list[Callable[[], None]] = []
        self._faults: dict[str, str] = {}
        self._codes: dict[str, str] = {}
        self._new: dict[str, str] = {}  # faults since the last publication, also cleared ones
        self._changed = False
        self._published = float("-inf")  # monotonic s
        self._logged: dict[tuple[str, str], float] = {}  # monotonic s of the last line, by key and code
        self._open: set[str] = set()  # faults that were logged, and whose end was not logged
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.STATUS)
        self._status = node.create_publisher(NodeStatus, "node_status", qos.LATCHED)
        self._timer = node.create_timer(_MIN_PERIOD, self._publish_if_due, clock=STEADY)

    def add_topic(self, name: str) -> TopicStats:
        """Return the statistics of a topic; shown as ``<name> rate [Hz]``, ``age [s]``, ``total`` and ``dropped``."""
        return self._topics.setdefault(name, TopicStats())

    def add_latency(self, name: str) -> LatencyStats:
        """Return the statistics of a duration; shown as ``<name> p50 [ms]`` and ``<name> p99 [ms]``."""
        return self._latencies.setdefault(name, LatencyStats())

    def add_value(self, name: str, get: Callable[[], object]) -> None:
        """Show what ``get`` returns."""
        self._values[name] = get

    def add_skipped(self, name: str, get: Callable[[], int]) -> None:
        """Show a counter of unused samples as ``skipped <name>``; it counts as dropped."""
        self._skipped[f"skipped {name}"] = get

    def add_check(self, check: Callable[[], None]) -> None:
        """Call ``check`` ten times a second, to set and clear faults."""
        self._watches.append(check)

    def set_fault(self, key: str, text: str, code: str = "") -> None:
        """Set the fault ``key`` until :meth:`clear_fault`.

        Logged at once, then at most every five seconds, also when the fault is cleared and set again.

        Args:
            key: subject of the fault, a constant.
            text: for people; may contain numbers.
            code: kind of fault, where one key has several; each is logged and throttled separately.
        """
        self._changed = self._changed or key not in self._faults
        self._faults[key] = self._new[key] = text
        self._codes[key] = code
        self._log_if_due(key, text, code)

    def _log_if_due(self, key: str, text: str, code: str) -> None:
        now = time.monotonic()
        if now - self._logged.get((key, code), -_REPEAT) >= _REPEAT:
            self._logged[key, code] = now
            self._open.add(key)
            self._node.get_logger().error(f"{key}: {text}")

    def clear_fault(self, key: str) -> None:
        """Clear the fault ``key``."""
        if self._faults.pop(key, None) is not None:
            self._changed = True
            if key in self._open:
                self._open.discard(key)
                self._node.get_logger().info(f"{key}: OK")

    def update_fault(self, key: str, text: str) -> None:
        """Set the fault ``key``, or clear it if ``text`` is empty."""
        if text:
            self.set_fault(key, text)
        else:
            self.clear_fault(key)

    def fault_text(self, key: str) -> str:
        """Return the text of the fault ``key``; empty where it is not set."""
        return self._faults.get(key, "")

    def _publish_if_due(self) -> None:
        for check in self._watches:
            check()
        for key, text in list(self._faults.items()):  # faults whose log line was throttled
            if key not in self._open:
                self._log_if_due(key, text, self._codes.get(key, ""))
        if self._changed or time.monotonic() - self._published >= _PERIOD - _MIN_PERIOD / 2:
            self._publish()

    def _publish(self) -> None:
        self._published, self._changed = time.monotonic(), False
        new, self._new = self._new, {}
        faults = new | dict(self._faults)
        text = "; ".join(f"{key}: {line}" for key, line in faults.items())
        rows, stamp = self._rows(), self._node.get_clock().now().to_msg()
        status = DiagnosticStatus(
            level=DiagnosticStatus.ERROR if faults else DiagnosticStatus.OK,
            name=self._node.get_fully_qualified_name().removeprefix("/"),
            message=text or "ok",
            values=[KeyValue(key=name, value=_text(value)) for name, value in rows.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = stamp
        self._publisher.publish(message)
        numbers = {name: float(value) for name, value in rows.items() if isinstance(value, int | float)}
        report = NodeStatus(
            node=self._node.get_name(),
            state=NodeStatus.FAULT if faults else NodeStatus.OK,
            message=text,
            dropped=sum(stats.dropped for stats in list(self._topics.values()))
            + sum(get() for get in list(self._skipped.values())),
            measurements=list(numbers),
            values=list(numbers.values()),
        )
        report.header.stamp = stamp
        self._status.publish(report)

    def _rows(self) -> Mapping[str, object]:
        rows: dict[str, object] = {}
        for name, stats in list(self._topics.items()):
            rows[f"{name} rate [Hz]"] = stats.rate
            rows[f"{name} age [s]"] = stats.age
            rows[f"{name} total"] = stats.total
            rows[f"{name} dropped"] = stats.dropped
        for name, latency in list(self._latencies.items()):
            rows[f"{name} p50 [ms]"] = 1000 * latency.percentile(50)
            rows[f"{name} p99 [ms]"] = 1000 * latency.percentile(99)
        return rows | {name: get() for name, get in [*self._values.items(), *self._skipped.items()]}


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def measurements(status: NodeStatus) -> dict[str, float]:
    """Return a node's measurements by name."""
    return dict(zip(status.measurements, status.values, strict=True))
