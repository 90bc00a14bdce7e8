"""Latest-value mailbox between a callback and a worker thread."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class LatestValue(Generic[T]):
    """Mailbox for one item. A newer item replaces it; replaced items are counted as skipped."""

    def __init__(self) -> None:
        self.skipped = 0
        self._item: T | None = None
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        """Replace the item and wake the waiting thread."""
        with self._changed:
            self.skipped += self._item is not None
            self._item = item
            self._changed.notify()

    def take(self, timeout: float) -> T | None:
        """Remove and return the item; wait up to ``timeout`` seconds for it. None: no item."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None, timeout)
            item, self._item = self._item, None
            return item

    def clear(self) -> None:
        """Drop the item."""
        with self._changed:
            self._item = None
