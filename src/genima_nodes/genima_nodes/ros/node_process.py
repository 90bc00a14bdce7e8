"""Run a node as a process that logs its start in one line and ends on the first signal."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import psutil
from rclpy.executors import Executor
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.utilities import remove_ros_args

from genima.doctor import ros
from genima.errors import GenimaError
from genima.io.files import shorten
from genima.system.signals import termination_signals
from genima.system.terminal import error_line, printable
from genima_nodes.ros import parameters
from genima_nodes.ros.paced_thread import CALLBACKS, schedule_in_real_time
from genima_nodes.ros.ros_context import create, ros_context
from genima_nodes.ros.single_instance import SingleInstance, refusal, require_single

# Late commands make the motion uneven, late images hold the arm; late chunks reduce the quality of the policy; late
# reports have no effect.
CONTROL_NICENESS, INFERENCE_NICENESS, MONITOR_NICENESS = -10, 5, 10
_SPIN_TIMEOUT = 0.2  # s: longest delay of a signal in an idle process


class ClosableNode(Protocol):
    """Node that ends its threads on request."""

    def close(self) -> None:
        """End all threads; the node is destroyed next."""


def node_main(make_node: Callable[[], ClosableNode], niceness: int = 0, **options: Any) -> Callable[..., int]:
    """Return the entry point of a node's process, and run it at once where the node's module is the program.

    ``options`` as of :func:`run`.
    """

    def main(args: list[str] | None = None) -> int:
        return run(make_node, args, niceness, **options)

    if make_node.__module__ == "__main__":
        sys.exit(main())
    return main


def run(
    make_node: Callable[[], ClosableNode],
    args: list[str] | None = None,
    niceness: int = 0,
    executor: Callable[[], Executor] = EventsExecutor,
    real_time: bool = False,
    role: str = "",
) -> int:
    """Spin a node until a signal ends the process; return its exit code.

    Args:
        make_node: creates the node, once ROS is up.
        args: command line.
        niceness: of the whole process, as all its threads wait for Python's lock.
        executor: creates the executor; the default needs less processor time than rclpy's older ones.
        real_time: schedule callbacks and the threads of DDS in real time, where the system permits it.
        role: unique in a domain and namespace; empty: several processes are allowed.
    """
    sys.setswitchinterval(1e-3)  # s: by default, a thread with a deadline waits 5 ms for Python's lock
    set_niceness(niceness)
    if real_time:  # before any other thread starts: threads inherit it
        schedule_in_real_time(CALLBACKS)
    # rclpy's own handlers end the context at once, while threads still publish
    ending = threading.Event()
    for number in termination_signals():
        signal.signal(number, lambda *_: ending.set())
    failed = _end_on_thread_failure(ending)
    try:
        with ros_context(sys.argv if args is None else args, log_file=True):
            _require_ros_arguments(sys.argv[1:] if args is None else args)
            if role:
                require_single(role)
            closable = create(make_node)
            node = cast(Node, closable)
            single = SingleInstance(node, role) if role else None
            spinner = executor()
            spinner.add_node(node)
            gc.collect()
            gc.freeze()  # never collect these objects: a collection stops every thread, for 0.3 s with torch
            if unknown := parameters.unknown(node):
                node.get_logger().warning(f"parameters: unknown ({', '.join(unknown)}); not used")
            _log_transport(node)
            node.get_logger().info("ready")
            while not ending.is_set() and not (single and single.older):
                spinner.spin_once(timeout_sec=_SPIN_TIMEOUT)
            closable.close()
            spinner.shutdown()
            if single and single.older:
                raise refusal(node, role, single.older)
    except GenimaError as error:
        error_line(error)
        return 2
    finally:
        gc.unfreeze()
    return 1 if failed else 0


def _require_ros_arguments(args: Sequence[str]) -> None:
    """Raise a GenimaError for arguments that ROS ignores, such as ``rate:=50`` without ``--ros-args -p``."""
    if unknown := remove_ros_args(list(args)):
        listed = shorten(printable(" ".join(unknown)))
        raise GenimaError(f"arguments: unknown ({listed}); give parameters as --ros-args -p NAME:=VALUE")


def _log_transport(node: Node) -> None:
    """Log the hosts that can reach this node: this machine alone, or every host of its networks."""
    if not (variable := ros.open_variable(os.environ)):
        profile = os.environ.get(ros.PROFILE, "")
        node.get_logger().info(f"transport: this machine alone{f' ({ros.PROFILE}={profile})' if profile else ''}")
        return
    addresses = [
        address.address
        for entries in psutil.net_if_addrs().values()
        for address in entries
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    first = 7400 + 250 * node.context.get_domain_id()  # first of the 250 ports of a domain
    node.get_logger().warning(
        f"transport: open to the network ({variable}); any host that reaches UDP ports {first} to {first + 249} of "
        f"{', '.join(addresses) or 'this machine'} may command the arm and call command_guard/resume; see "
        "docs/security.md"
    )


def set_niceness(niceness: int) -> None:
    """Set the niceness of this process, where the system permits it."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)


def _end_on_thread_failure(ending: threading.Event) -> list[str]:
    """End the process when a thread fails; return the growing list of failed threads' names."""
    failed: list[str] = []

    def on_error(error: threading.ExceptHookArgs) -> None:
        threading.__excepthook__(error)
        name = error.thread.name if error.thread else "unknown"
        failed.append(name)
        print(f"genima: error: thread {name} failed: {error.exc_value}", file=sys.stderr)
        ending.set()

    threading.excepthook = on_error
    return failed
