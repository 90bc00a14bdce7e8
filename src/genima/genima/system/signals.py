"""Signals that end a process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType

_LONG_IMPORT = 2.0  # s
_AGAIN = 0.05  # s


def termination_signals() -> list[signal.Signals]:
    """Return SIGINT, SIGTERM, and SIGHUP unless that is ignored, as under nohup."""
    hung_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hung_up]


@contextlib.contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first SIGINT, SIGTERM or SIGHUP, and ignore later ones."""
    numbers = termination_signals()
    waiting = _ImportDelay(_LONG_IMPORT)

    def interrupt(number: int, frame: FrameType | None) -> None:
        if waiting.defers(number, frame):
            return
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)
    yield


_postponed = 0  # contexts that are open


@contextlib.contextmanager
def postpone_interrupt() -> Iterator[None]:
    """Postpone signals in the main thread during an indivisible step."""
    global _postponed
    _postponed += 1
    try:
        yield
    finally:
        _postponed -= 1


class _ImportDelay:
    """Postpone a signal while modules are imported: libraries may swallow the exception.

    An import that takes longer than ``seconds`` ends the process, unless child processes would be left behind.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def defers(self, number: int, frame: FrameType | None) -> bool:
        """Return whether the signal will come again: the main thread, at ``frame``, imports or is postponed."""
        if _postponed:
            _send_again(number)
            return True
        if not is_importing(frame):
            return False
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= self._seconds and not _has_children():
            os._exit(130)  # a clean exit would run the destructors of half-imported libraries
        _send_again(number)
        return True


_interrupted = False  # by SIGINT, with this module's handler


def was_interrupted() -> bool:
    """Return whether SIGINT was received: libraries turn a KeyboardInterrupt in their import into other errors."""
    return _interrupted


def hide_interrupt_traceback() -> None:
    """End a process that Ctrl-C interrupts while it imports modules without a traceback, with exit code 130.

    Programs call it in their first module. It changes nothing in a process with its own handler.
    """
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)
        if sys.excepthook is sys.__excepthook__:
            sys.excepthook = _show
        if sys.unraisablehook is sys.__unraisablehook__:
            sys.unraisablehook = _raise_again


def interrupt_on_termination() -> None:
    """Raise KeyboardInterrupt at each SIGTERM or SIGHUP from now on, as at Ctrl-C."""
    for number in termination_signals():
        if number != signal.SIGINT:
            signal.signal(number, _interrupt)


def end_by_interrupt() -> None:
    """End the process at once on Ctrl-C from now on: the interpreter is exiting.

    A KeyboardInterrupt in a clean-up at exit would only be printed with its traceback.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    if not _ImportDelay(0.0).defers(number, frame):
        raise KeyboardInterrupt


def is_importing(frame: FrameType | None) -> bool:
    """Return whether a frame or one of its callers imports a module."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _raise_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Raise again a KeyboardInterrupt that was lost in a destructor or a callback."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not (in_main_thread and issubclass(unraisable.exc_type, KeyboardInterrupt)):
        sys.__unraisablehook__(unraisable)
        return
    former = signal.getsignal(signal.SIGINT)  # by now it may be ignored

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, former)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    _send_again(signal.SIGINT)


def _send_again(number: int) -> None:
    """Send a signal again to the main thread after a delay; it interrupts a system call, too."""
    thread = threading.main_thread().ident
    assert thread is not None
    again = threading.Timer(_AGAIN, signal.pthread_kill, (thread, number))
    again.daemon = True
    again.start()


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if _interrupted or issubclass(kind, KeyboardInterrupt):
        os._exit(130)  # a clean exit would run the destructors of half-imported libraries
    sys.__excepthook__(kind, error, trace)
