"""Signals that end a process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import TracebackType


def ending_signals() -> list[signal.Signals]:
    """Return SIGINT, SIGTERM, and SIGHUP unless that is ignored, as under nohup."""
    hung_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hung_up]


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first SIGINT, SIGTERM or SIGHUP; ignore those that follow, while the run ends."""
    numbers = ending_signals()

    def interrupt(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)
    yield


_interrupted = False  # by SIGINT, while our handler was in place


def was_interrupted() -> bool:
    """Return whether SIGINT has come: libraries turn a KeyboardInterrupt during their import into other errors."""
    return _interrupted


def hide_interrupt_traceback() -> None:
    """End a process that Ctrl-C interrupts while it imports modules without a traceback, with exit code 130.

    Programs call it in the first module that they import. It changes nothing for a process that has a handler of
    its own.
    """
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)
        if sys.excepthook is sys.__excepthook__:
            sys.excepthook = _show


def _interrupt(*_: object) -> None:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if _interrupted or issubclass(kind, KeyboardInterrupt):
        os._exit(130)  # a clean exit would run the destructors of half-imported libraries
    sys.__excepthook__(kind, error, trace)
