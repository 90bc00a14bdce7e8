"""From a node class to a process that starts with one clear line and ends on the first signal."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from typing import Protocol, cast

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from genima.errors import GenimaError

_WAKE = 0.2  # s: how long a signal may wait in a process where nothing happens


class ClosableNode(Protocol):
    """A node that ends its threads when told to."""

    def close(self) -> None:
        """End all threads; the node is destroyed next."""


def run(make_node: Callable[[], ClosableNode], args: list[str] | None = None) -> int:
    """Spin a node until the process is told to end; the process's exit code."""
    # rclpy's own handlers end the context at once, below the feet of threads that still publish
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ending.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        closable = make_node()
        node = cast(Node, closable)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        node.get_logger().info("ready")
        while not ending.is_set():
            executor.spin_once(timeout_sec=_WAKE)
        closable.close()
    except GenimaError as error:
        print(f"genima: error: {error}", file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()
    return 0
