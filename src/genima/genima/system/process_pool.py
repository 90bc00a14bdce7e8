"""Worker processes that end with their parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, resource_tracker
from types import FrameType, TracebackType
from typing import Any, ParamSpec, TypeVar

from genima.errors import GenimaError
from genima.system.signals import hide_interrupt_traceback, is_importing, postpone_interrupt

_P = ParamSpec("_P")
_R = TypeVar("_R")
_GRACE = 1.0  # s from SIGTERM to SIGKILL


class WorkerPool(ProcessPoolExecutor):
    """Process pool (start method "spawn") that leaves no process behind.

    As a context it waits for its workers at the end. Where the block raises, Ctrl-C included, it ends them at once:
    each gets SIGTERM, which raises SystemExit in the function that it runs, and SIGKILL after ``grace``. A worker whose
    parent was killed ends in the same way. Ctrl-C in a terminal reaches the parent alone.

    A worker that dies raises a GenimaError.
    """

    def __init__(
        self,
        workers: int,
        start: Callable[..., object] | None = None,
        arguments: tuple[Any, ...] = (),
        calls_per_process: int | None = None,
        grace: float = _GRACE,
    ) -> None:
        """Args:
        workers: number of processes; they start with the first call.
        start: called with ``arguments`` in each process before anything else.
        calls_per_process: after these a new process replaces the old one.
        grace: s from SIGTERM to SIGKILL, for functions that save what they have.
        """
        super().__init__(
            workers, multiprocessing.get_context("spawn"), _start_worker, (start, arguments),
            max_tasks_per_child=calls_per_process,
        )  # fmt: skip
        self._grace = grace

    def submit(self, function: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_R]:
        """Submit a call, as the base class does."""
        # Workers inherit the blocked signal from their first instruction on; other threads of this process may take it.
        with postpone_interrupt(), _blocked_interrupt():
            return super().submit(_call, function, args, kwargs)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if kind is None:
            return super().__exit__(kind, error, trace)
        self.end()
        if issubclass(kind, BrokenProcessPool):
            raise GenimaError("worker process: died; see its messages above, it may be out of memory") from None
        return None

    def end(self) -> None:
        """End all workers; calls that have not returned fail."""
        processes = list((self._processes or {}).values())
        self.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + self._grace
        try:
            for process in processes:
                process.join(max(0.0, deadline - time.monotonic()))
        finally:  # also where Ctrl-C comes again
            for process in processes:
                process.kill()
                process.join()


def end_with_parent() -> None:
    """End this worker process as soon as its parent has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "not in a worker"

    def watch() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os._exit(1)

    threading.Thread(target=watch, name="end_with_parent", daemon=True).start()


_ended = False  # by SIGTERM


def _start_worker(start: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    _call(_initialize, (start, arguments), {})  # SIGTERM may come at once: an exception here would be printed


def _initialize(start: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    hide_interrupt_traceback()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # also of a replacement process
    signal.signal(signal.SIGTERM, _end)
    end_with_parent()
    if start is not None:
        start(*arguments)


def _end(_: int, frame: FrameType | None) -> None:
    global _ended
    _ended = True
    if is_importing(frame):
        os._exit(1)  # a library may swallow an exception while it is imported
    raise SystemExit


def _call(function: Callable[..., _R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _R:
    try:
        return function(*args, **kwargs)
    finally:
        if _ended:
            os._exit(1)  # the function has cleaned up; the pool would continue with the next call


@contextlib.contextmanager
def _blocked_interrupt() -> Iterator[None]:
    resource_tracker.ensure_running()  # it unblocks the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
