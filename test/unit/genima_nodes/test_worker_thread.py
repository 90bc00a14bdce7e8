"""Worker thread: order, capacity, failure."""

from __future__ import annotations

import threading

import pytest

from genima_nodes.ros.worker_thread import WorkerThread


def test_items_are_processed_in_order_within_capacity() -> None:
    go, done = threading.Event(), []

    def work(item: int) -> None:
        go.wait()
        done.append(item)

    worker = WorkerThread(work, 3, "test")
    assert worker.put(0)
    while not worker._queue.empty():  # until the thread has taken the first item
        pass
    assert [worker.put(i) for i in range(1, 6)] == [True] * 3 + [False] * 2
    go.set()
    worker.wait()
    assert done == [0, 1, 2, 3]
    assert worker.put(6)
    worker.close()
    assert done == [0, 1, 2, 3, 6]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_wait_returns_after_failure() -> None:
    worker = WorkerThread(lambda item: 1 // item, 5, "test")
    for item in (1, 0, 1, 1):
        worker.put(item)
    worker.wait()
    worker.close()
