"""Ensure a single process per role in a namespace, such as the command guard or the task runner.

Each process announces itself twice a second. The announcements of a killed process end at once, long before DDS removes
it: it does not delay a restart.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from genima.errors import GenimaError
from genima.io.files import shorten
from genima.system.terminal import printable
from genima_nodes.ros.paced_thread import STEADY
from genima_nodes.ros.ros_context import create

_PROFILE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_PERIOD = 0.5  # s between announcements
_DISCOVERY = 0.5  # s of discovery
_ANNOUNCEMENT = 1.5  # s more for the announcement of a discovered process, which may have been killed


@dataclass(frozen=True, order=True)
class Instance:
    """Process with its start time; the older one has priority."""

    started: int  # ns since 1970
    host: str
    process: int

    @classmethod
    def parse(cls, text: str) -> Instance | None:
        """Parse an announcement; return None for any other text."""
        started, _, rest = text.partition(" ")
        process, _, host = rest.partition(" ")
        numbers = (started, process)
        if not host or not all(number.isascii() and number.isdecimal() and len(number) < 20 for number in numbers):
            return None
        return cls(int(started), host, int(process))

    def __str__(self) -> str:
        return f"{self.started} {self.process} {self.host}"


OWN = Instance(time.time_ns(), socket.gethostname(), os.getpid())


def require_single(role: str) -> None:
    """Check, before a node is created, that no other process has its role in this domain and namespace.

    Raises:
        GenimaError: names the host and id of the other process.
    """
    node = create(lambda: rclpy.create_node(f"{role}_start", enable_rosout=False, start_parameter_services=False))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    others: list[Instance] = []

    def on_message(message: String) -> None:
        if (other := Instance.parse(message.data)) is not None and other != OWN:
            others.append(other)

    subscription = node.create_subscription(String, _topic(role), on_message, _PROFILE)
    try:
        begin = time.monotonic()
        deadline = begin + _DISCOVERY
        while not others and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.05)
            if node.count_publishers(subscription.topic_name):
                deadline = begin + _DISCOVERY + _ANNOUNCEMENT
        if others:
            raise refusal(node, role, others[0])
    finally:
        executor.shutdown()
        node.destroy_node()


class SingleInstance:
    """Announce this process, and detect an older one of the same role: two may start at the same time."""

    def __init__(self, node: Node, role: str) -> None:
        self.older: Instance | None = None  # this process must end
        self._publisher = node.create_publisher(String, _topic(role), _PROFILE)
        node.create_subscription(String, _topic(role), self._on_message, _PROFILE)
        node.create_timer(_PERIOD, self._announce, clock=STEADY)
        self._announce()

    def _announce(self) -> None:
        self._publisher.publish(String(data=str(OWN)))

    def _on_message(self, message: String) -> None:
        other = Instance.parse(message.data)
        if other is not None and other < OWN:
            self.older = other


def refusal(node: Node, role: str, other: Instance) -> GenimaError:
    """Return the error that ends the younger process."""
    namespace = node.get_namespace()
    place = f"ROS_DOMAIN_ID {node.context.get_domain_id()}" + (f", namespace {namespace}" if namespace != "/" else "")
    return GenimaError(
        f"{role}: already running on {printable(shorten(other.host))} (process {other.process}) in {place}; end that "
        "process, or start this one in another domain or namespace"
    )


def _topic(role: str) -> str:
    return f"{role}/instance"
