"""Signals that end a process."""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType

_LONG_IMPORT = 2.0  # s
_AGAIN = 0.05  # s


def ending_signals() -> list[signal.Signals]:
    """Return SIGINT, SIGTERM, and SIGHUP unless that is ignored, as under nohup."""
    hung_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hung_up]


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first SIGINT, SIGTERM or SIGHUP; ignore those that follow, while the run ends."""
    numbers = ending_signals()
    waiting = _Patience(_LONG_IMPORT)

    def interrupt(number: int, frame: FrameType | None) -> None:
        if waiting.defers(number, frame):
            return
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)
    yield


class _Patience:
    """Puts off a signal while modules are imported: a library may swallow or print an exception then.

    An import that takes longer than ``seconds`` ends the process, unless child processes would be left behind.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def defers(self, number: int, frame: FrameType | None) -> bool:
        """Return whether the signal will come again, since the main thread, at ``frame``, is importing."""
        if not _is_importing(frame):
            return False
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= self._seconds and not _has_children():
            os._exit(130)  # a clean exit would run the destructors of half-imported libraries
        again = threading.Timer(_AGAIN, _thread.interrupt_main, (number,))
        again.daemon = True
        again.start()
        return True


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
        if sys.unraisablehook is sys.__unraisablehook__:
            sys.unraisablehook = _raise_again


def end_by_interrupt() -> None:
    """Let Ctrl-C end the process at once from now on: called when the interpreter is about to end.

    A KeyboardInterrupt in a clean-up at exit would be printed with its traceback, and end nothing.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    if not _Patience(0.0).defers(number, frame):
        raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
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
    """Raise in the main thread a KeyboardInterrupt that came in a destructor or a callback, where it is lost."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    thread = ctypes.c_ulong(threading.main_thread().ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(KeyboardInterrupt))


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if _interrupted or issubclass(kind, KeyboardInterrupt):
        os._exit(130)  # a clean exit would run the destructors of half-imported libraries
    sys.__excepthook__(kind, error, trace)
