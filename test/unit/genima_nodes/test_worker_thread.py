"""Work that callbacks must not wait for."""

from __future__ import annotations

import threading

import pytest

from genima_nodes.ros.worker_thread import WorkerThread


def test_items_are_worked_on_in_order_and_never_more_wait_than_there_is_room() -> None:
    go, done = threading.Event(), []

    def work(item: int) -> None:
        go.wait()
        done.append(item)

    background = WorkerThread(work, 3, "test")
    assert background.take(0)
    while not background._waiting.empty():  # the first is in work now
        pass
    assert [background.take(i) for i in range(1, 6)] == [True] * 3 + [False] * 2
    go.set()
    background.wait()
    assert done == [0, 1, 2, 3]
    assert background.take(6)
    background.close()
    assert done == [0, 1, 2, 3, 6]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_thread_that_failed() -> None:
    background = WorkerThread(lambda item: 1 // item, 5, "test")
    for item in (1, 0, 1, 1):
        background.take(item)
    background.wait()
    background.close()
