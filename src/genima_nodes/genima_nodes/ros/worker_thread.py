"""Background thread for work that would block a callback."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from genima_nodes.ros.paced_thread import starting_in_background

T = TypeVar("T")
_POLL = 0.005  # s


class WorkerThread(Generic[T]):
    """Thread that processes items in the order of their arrival."""

    def __init__(self, work: Callable[[T], None], capacity: int, name: str) -> None:
        """``capacity`` is the number of items that may wait."""
        self._work = work
        self._queue: queue.Queue[T | None] = queue.Queue(capacity)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        with starting_in_background():
            self._thread.start()

    def put(self, item: T) -> bool:
        """Add an item; return False if the queue is full."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            return False
        return True

    def wait(self) -> None:
        """Wait until all items are processed, or the thread has failed."""
        while self._queue.unfinished_tasks and self._thread.is_alive():
            time.sleep(_POLL)

    def close(self) -> None:
        """Process all waiting items, then end the thread."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._work(item)
            finally:
                self._queue.task_done()
