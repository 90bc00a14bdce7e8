"""What a node tells about itself on /diagnostics: rates, ages, drops, latencies, counts and faults.

Once a second, and soon after a fault comes or goes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from genima_nodes.ros import qos
from genima_nodes.ros.paced_thread import STEADY

_RATE_WINDOW = 2.0  # s
_LATENCY_WINDOW = 4096  # samples
_REPEAT = 5.0  # s between log lines of a fault that stays
_PERIOD, _SOONEST = 1.0, 0.1  # s between publications: when nothing changes, and at least


class TopicStats:
    """Counts the samples of one stream."""

    def __init__(self) -> None:
        self.total = 0
        self.dropped = 0  # came, but were not used
        self._times: deque[float] = deque(maxlen=1000)

    def tick(self) -> None:
        """A sample came by."""
        self.total += 1
        self._times.append(time.monotonic())

    def drop(self) -> None:
        """A sample that came was not used."""
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
    """Keeps the newest durations of one kind."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=_LATENCY_WINDOW)

    def add(self, duration: float) -> None:
        """Take note of a duration in seconds."""
        self._samples.append(duration)

    def percentile(self, percent: float) -> float:
        """In seconds; NaN before the first sample."""
        samples = list(self._samples)
        return float(np.percentile(samples, percent)) if samples else float("nan")


class DiagnosticUpdater:
    """Collects a node's meters and faults and publishes them as one DiagnosticStatus."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._meters: dict[str, TopicStats] = {}
        self._latencies: dict[str, LatencyStats] = {}
        self._values: dict[str, Callable[[], object]] = {}
        self._watches: list[Callable[[], None]] = []
        self._faults: dict[str, str] = {}
        self._new: dict[str, str] = {}  # faults since the last publication, also those that have gone
        self._changed = False
        self._published = float("-inf")  # monotonic s
        self._logged: dict[str, tuple[str, float]] = {}
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.STATUS)
        self._timer = node.create_timer(_SOONEST, self._publish_if_due, clock=STEADY)

    def meter(self, name: str) -> TopicStats:
        """A new stream to count; shows as ``<name> rate [Hz]``, ``age [s]``, ``total`` and ``dropped``."""
        return self._meters.setdefault(name, TopicStats())

    def latency(self, name: str) -> LatencyStats:
        """A new kind of duration; shows as ``<name> p50 [ms]`` and ``<name> p99 [ms]``."""
        return self._latencies.setdefault(name, LatencyStats())

    def value(self, name: str, get: Callable[[], object]) -> None:
        """Show what ``get`` returns."""
        self._values[name] = get

    def watch(self, check: Callable[[], None]) -> None:
        """Call ``check`` ten times a second, to set and clear faults."""
        self._watches.append(check)

    def fault(self, about: str, line: str) -> None:
        """Something about ``about`` is wrong, until :meth:`clear`. Logged at once, and again every few seconds."""
        self._changed = self._changed or about not in self._faults
        self._faults[about] = self._new[about] = line
        last_line, last_time = self._logged.get(about, ("", -_REPEAT))
        now = time.monotonic()
        if line != last_line or now - last_time >= _REPEAT:
            self._logged[about] = line, now
            self._node.get_logger().error(f"{about}: {line}")

    def clear(self, about: str) -> None:
        """Nothing is wrong about ``about`` any more."""
        if self._faults.pop(about, None) is not None:
            self._changed = True
            self._logged.pop(about, None)
            self._node.get_logger().info(f"{about}: fine again")

    def problem(self, about: str) -> str:
        """What is wrong about ``about``; empty where nothing is."""
        return self._faults.get(about, "")

    def _publish_if_due(self) -> None:
        for check in self._watches:
            check()
        if self._changed or time.monotonic() - self._published >= _PERIOD - _SOONEST / 2:
            self._publish()

    def _publish(self) -> None:
        self._published, self._changed = time.monotonic(), False
        new, self._new = self._new, {}
        faults = new | dict(self._faults)
        status = DiagnosticStatus(
            level=DiagnosticStatus.ERROR if faults else DiagnosticStatus.OK,
            name=self._node.get_fully_qualified_name().removeprefix("/"),
            message="; ".join(f"{about}: {line}" for about, line in faults.items()) or "ok",
            values=[KeyValue(key=key, value=_text(value)) for key, value in self._rows().items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _rows(self) -> Mapping[str, object]:
        rows: dict[str, object] = {}
        for name, meter in list(self._meters.items()):
            rows[f"{name} rate [Hz]"] = meter.rate
            rows[f"{name} age [s]"] = meter.age
            rows[f"{name} total"] = meter.total
            rows[f"{name} dropped"] = meter.dropped
        for name, latency in list(self._latencies.items()):
            rows[f"{name} p50 [ms]"] = 1000 * latency.percentile(50)
            rows[f"{name} p99 [ms]"] = 1000 * latency.percentile(99)
        return rows | {name: get() for name, get in list(self._values.items())}


def own_name(node: Node, status: DiagnosticStatus) -> str | None:
    """What a status is called in ``node``'s namespace; None for one from outside it.

    Others run arms of their own in the same graph, and all speak on one topic.
    """
    prefix = f"{node.get_namespace()}/".lstrip("/")
    return status.name.removeprefix(prefix) if status.name.startswith(prefix) else None


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def values(status: DiagnosticStatus) -> dict[str, str]:
    """What a status says, by key."""
    return {pair.key: pair.value for pair in status.values}
