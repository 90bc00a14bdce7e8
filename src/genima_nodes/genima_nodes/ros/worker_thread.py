"""Background worker for work that would block a callback."""

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

    def __init__(self, work: Callable[[T], None], room: int, name: str) -> None:
        """``room`` is the number of items that may wait."""
        self._work = work
        self._waiting: queue.Queue[T | None] = queue.Queue(room)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        with starting_in_background():
            self._thread.start()

    def take(self, item: T) -> bool:
        """Add an item; return False where the queue is full."""
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            return False
        return True

    def wait(self) -> None:
        """Wait until all items are processed, or the thread has failed."""
        while self._waiting.unfinished_tasks and self._thread.is_alive():
            time.sleep(_POLL)

    def close(self) -> None:
        """Process all waiting items, then end the thread."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                self._work(item)
            finally:
                self._waiting.task_done()
