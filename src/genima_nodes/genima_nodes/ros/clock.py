"""Stamps for moments of the monotonic clock, which never jumps, on a node's clock, which may."""

from __future__ import annotations

import time

from rclpy.node import Node

from genima_nodes.ros import messages


class StampClock:
    """Knows by how much the two clocks differ, however long the thread is interrupted between reading them."""

    def __init__(self, node: Node) -> None:
        self.step = 0.0  # s by which the node's clock was corrected before the last stamp
        self._node = node
        self._offset = messages.now(node) - time.monotonic()

    def stamp(self, moment: float) -> float:
        """The node's time at ``moment``, monotonic seconds."""
        before = time.monotonic()
        now = messages.now(self._node)
        # The true difference lies between these; as long as the known one does, it stays, and stamps do not jitter.
        offset = min(max(self._offset, now - time.monotonic()), now - before)
        self.step, self._offset = offset - self._offset, offset
        return moment + offset
