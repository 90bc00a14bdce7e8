"""Conversion of monotonic times to stamps of a node's clock, which may jump."""

from __future__ import annotations

import time

from rclpy.node import Node

from genima_nodes.ros import messages


class StampClock:
    """Offset between the two clocks; an interruption of the thread between reading them does not change it."""

    def __init__(self, node: Node) -> None:
        self.step = 0.0  # s by which the node's clock was corrected before the last stamp
        self._node = node
        self._offset = messages.now(node) - time.monotonic()

    def stamp(self, moment: float) -> float:
        """Return the node's time at ``moment``, monotonic seconds."""
        before = time.monotonic()
        now = messages.now(self._node)
        # The true offset is between these two. The known offset is kept while it is, so that stamps do not jitter.
        offset = min(max(self._offset, now - time.monotonic()), now - before)
        self.step, self._offset = offset - self._offset, offset
        return moment + offset
