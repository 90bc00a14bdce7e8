"""Tracing of nodes by PYTHONPATH: times of each message's publication and of its callback's start.

These are the tracepoints `rclcpp_publish` and `callback_start` of ros2_tracing, which needs LTTng and is not among
ROS 2's wheels. Each process appends to `<program>-<pid>.trace` in the folder GENIMA_TRACE, a line each: nanoseconds of
the monotonic clock (one for all processes of a machine), the event, the topic, the message's stamp in nanoseconds. Only
messages on the topics in GENIMA_TRACED, with a stamp.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class _Trace:
    def __init__(self, folder: Path, topics: list[str]) -> None:
        self._folder, self._topics, self._file = folder, frozenset(topics), -1

    def __call__(self, event: str, topic: str, message: Any) -> None:
        if topic not in self._topics:
            return
        now, stamp = time.monotonic_ns(), message.header.stamp
        if self._file < 0:
            name = f"{Path(sys.argv[0]).stem}-{os.getpid()}.trace"
            self._file = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(self._file, f"{now} {event} {topic} {stamp.sec * 10**9 + stamp.nanosec}\n".encode())


def _install(trace: _Trace) -> None:
    from rclpy.node import Node
    from rclpy.publisher import Publisher

    publish, create_subscription = Publisher.publish, Node.create_subscription

    def traced_publish(self: Publisher, message: Any) -> None:
        trace("publish", self.topic_name, message)
        publish(self, message)

    def traced_subscription(
        self: Node, kind: Any, topic: str, callback: Callable[[Any], None], *arguments: Any, **more: Any
    ) -> Any:
        name = self.resolve_topic_name(topic)

        def on_message(message: Any) -> None:
            trace("callback", name, message)
            callback(message)

        return create_subscription(self, kind, topic, on_message, *arguments, **more)

    Publisher.publish, Node.create_subscription = traced_publish, traced_subscription  # type: ignore[method-assign,assignment]


if folder := os.environ.get("GENIMA_TRACE"):
    _install(_Trace(Path(folder), os.environ["GENIMA_TRACED"].split(":")))
