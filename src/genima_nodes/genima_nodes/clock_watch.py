"""Node: compare the clocks of several machines, on which the alignment by stamps depends.

One instance runs on each machine. Each sends requests, the others respond, and the response with the shortest round
trip is used::

    this machine    sent ───────────────────────────► received     offset = answered - (sent + received) / 2
    other machine              ► answered ──────────►              error at most (received - sent) / 2

Source of the method: RFC 5905 (NTP), sections 8 and 10, clock filter.
"""

from __future__ import annotations

import re
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import TimeReference

from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.node_process import node_main
from genima_nodes.ros.paced_thread import STEADY

_REQUEST_PERIOD = 0.5  # s between requests
_WINDOW = 20  # responses of each machine, of ten seconds: the best one is used
_TIMEOUT = 5.0  # s without a response after which a machine counts as lost


@dataclass(frozen=True)
class ClockOffset:
    """Offset of another machine's clock from this one's, and its uncertainty; s."""

    seconds: float
    error: float

    @classmethod
    def from_round_trip(cls, sent: float, answered: float, received: float) -> ClockOffset:
        """Compute the offset from the times of one request: sent and received here, answered on the other machine."""
        return cls(answered - (sent + received) / 2, (received - sent) / 2)


@dataclass
class _Peer:
    offsets: deque[ClockOffset] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    received: float = 0.0  # monotonic s of the last response

    @property
    def best(self) -> ClockOffset:
        return min(self.offsets, key=lambda offset: offset.error)


class ClockWatchNode(Node):
    """Clock comparison on one topic: requests are for all nodes, responses for the requester."""

    def __init__(self, host: str | None = None, **options: Any) -> None:
        """Args:
        host: name of this machine on the topic; None: its host name.
        options: of a node.

        Raises:
            GenimaError: for parameters out of range.
        """
        name = re.sub(r"\W", "_", host or socket.gethostname())
        super().__init__(f"clock_watch_{name}", **options)
        self._host = self.get_name().removeprefix("clock_watch_")  # ROS renames one of two nodes with one name
        self._allowed = parameters.number(self, "allowed", 0.005, apply=partial(setattr, self, "_allowed"))  # s
        self._peers: dict[str, _Peer] = {}
        self._diagnostics = DiagnosticUpdater(self)
        self._responses = self._diagnostics.add_topic("responses")
        self._publisher = self.create_publisher(TimeReference, "/clock_watch", qos.STATUS)
        self.create_subscription(TimeReference, "/clock_watch", self._on_message, qos.STATUS)
        self.create_timer(_REQUEST_PERIOD, self._request, clock=STEADY)
        self._diagnostics.add_check(self._watch)

    def close(self) -> None:
        """Do nothing: the node has no threads."""

    def now(self) -> float:
        """Return this machine's time in seconds."""
        return messages.now(self)

    def _request(self) -> None:
        self._publish(TimeReference())

    def _publish(self, message: TimeReference) -> None:
        message.header.frame_id, message.header.stamp = self._host, messages.time_message(self.now())
        self._publisher.publish(message)

    def _on_message(self, message: TimeReference) -> None:
        now, other = self.now(), str(message.header.frame_id)
        if other == self._host:
            return
        if not message.source:  # a request
            self._publish(TimeReference(time_ref=message.header.stamp, source=other))
        elif message.source == self._host:
            self._on_response(other, messages.seconds(message.time_ref), messages.seconds(message.header.stamp), now)

    def _on_response(self, other: str, sent: float, answered: float, received: float) -> None:
        self._responses.tick()
        if received < sent:  # this machine's clock was set back meanwhile
            self._responses.drop()
            return
        if other not in self._peers:
            self._peers[other] = _Peer()
            self._diagnostics.add_value(f"{other} ahead [ms]", lambda: 1000 * self._peers[other].best.seconds)
            self._diagnostics.add_value(f"{other} ahead, error [ms]", lambda: 1000 * self._peers[other].best.error)
        peer = self._peers[other]
        offset = ClockOffset.from_round_trip(sent, answered, received)
        if peer.offsets and abs(offset.seconds - peer.best.seconds) > offset.error + peer.best.error:
            peer.offsets.clear()  # a clock was set: earlier offsets are not valid
        peer.offsets.append(offset)
        peer.received = time.monotonic()

    def _watch(self) -> None:
        for other, peer in self._peers.items():
            key, offset = f"clock of {other}", peer.best
            if time.monotonic() - peer.received > _TIMEOUT:
                self._diagnostics.set_fault(key, f"no response for {_TIMEOUT:g} s; check that machine and its network")
            elif abs(offset.seconds) - offset.error > self._allowed:
                side = "ahead" if offset.seconds > 0 else "behind"
                self._diagnostics.set_fault(
                    key,
                    f"{1000 * abs(offset.seconds):.1f} ms {side} ({1000 * self._allowed:g} ms are allowed); "
                    "synchronise both with chrony (docs/real_robot.md, Two machines)",
                )
            else:
                self._diagnostics.clear_fault(key)


main = node_main(ClockWatchNode)
