"""Node that compares the machines' clocks, on which the alignment by stamps depends.

One instance runs on each machine. Each sends requests, the others respond, and the response with the shortest round
trip counts::

    here   asked ─────────────────────────────► heard       offset = answered - (asked + heard) / 2
    there              ► answered ─────────────►            wrong by half of heard - asked at most

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

_REQUEST_PERIOD = 0.5  # s between questions
_KEPT = 20  # answers of each machine: the best of ten seconds
_SILENT = 5.0  # s after which a machine has gone


@dataclass(frozen=True)
class ClockOffset:
    """Offset of another machine's clock from this one's, and its uncertainty; s."""

    seconds: float
    error: float

    @classmethod
    def of(cls, asked: float, answered: float, heard: float) -> ClockOffset:
        """Compute the offset from the times of one request, on the clocks of both sides."""
        return cls(answered - (asked + heard) / 2, (heard - asked) / 2)


@dataclass
class _Peer:
    answers: deque[ClockOffset] = field(default_factory=lambda: deque(maxlen=_KEPT))
    heard: float = 0.0  # monotonic s

    @property
    def best(self) -> ClockOffset:
        return min(self.answers, key=lambda offset: offset.error)


class ClockWatchNode(Node):
    """Requests and responses on one topic: requests are for all nodes, responses for the requester."""

    def __init__(self, host: str | None = None, **options: Any) -> None:
        """Args:
        host: name of this machine, by which the others know it; its host name if None.
        options: of a node.

        Raises:
            GenimaError: for parameters that make no sense.
        """
        name = re.sub(r"\W", "_", host or socket.gethostname())
        super().__init__(f"clock_watch_{name}", **options)
        self._host = self.get_name().removeprefix("clock_watch_")  # of two machines with one name, one is given another
        self._allowed = parameters.number(self, "allowed", 0.005, apply=partial(setattr, self, "_allowed"))  # s
        self._peers: dict[str, _Peer] = {}
        self._diagnostics = DiagnosticUpdater(self)
        self._answers = self._diagnostics.add_topic("answers")
        self._publisher = self.create_publisher(TimeReference, "/clock_watch", qos.STATUS)
        self.create_subscription(TimeReference, "/clock_watch", self._on_message, qos.STATUS)
        self.create_timer(_REQUEST_PERIOD, self._request, clock=STEADY)
        self._diagnostics.add_check(self._watch)

    def close(self) -> None:
        """Stop; there are no threads."""

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
        if not message.source:  # a question
            self._publish(TimeReference(time_ref=message.header.stamp, source=other))
        elif message.source == self._host:
            self._on_answer(other, messages.seconds(message.time_ref), messages.seconds(message.header.stamp), now)

    def _on_answer(self, other: str, asked: float, answered: float, heard: float) -> None:
        self._answers.tick()
        if heard < asked:  # this machine's clock was set back meanwhile
            self._answers.drop()
            return
        if other not in self._peers:
            self._peers[other] = _Peer()
            self._diagnostics.add_value(f"{other} ahead [ms]", lambda: 1000 * self._peers[other].best.seconds)
            self._diagnostics.add_value(f"{other} ahead, error [ms]", lambda: 1000 * self._peers[other].best.error)
        peer = self._peers[other]
        offset = ClockOffset.of(asked, answered, heard)
        if peer.answers and abs(offset.seconds - peer.best.seconds) > offset.error + peer.best.error:
            peer.answers.clear()  # a clock was set: what was known holds no more
        peer.answers.append(offset)
        peer.heard = time.monotonic()

    def _watch(self) -> None:
        for other, peer in self._peers.items():
            about, offset = f"clock of {other}", peer.best
            if time.monotonic() - peer.heard > _SILENT:
                self._diagnostics.set_fault(about, "no answer: is that machine still there?")
            elif abs(offset.seconds) - offset.error > self._allowed:
                side = "ahead" if offset.seconds > 0 else "behind"
                self._diagnostics.set_fault(
                    about,
                    f"it is {1000 * abs(offset.seconds):.1f} ms {side}, {1000 * self._allowed:g} ms are allowed: "
                    "keep both with chrony (docs/real_robot.md, Two machines)",
                )
            else:
                self._diagnostics.clear_fault(about)


main = node_main(ClockWatchNode)
