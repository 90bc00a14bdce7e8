"""Periodic thread against absolute deadlines."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rclpy.clock import Clock, ClockType

STEADY = Clock(clock_type=ClockType.STEADY_TIME)  # for timers: on the node's clock they stop when it is set back
LATE = 0.005  # s after its deadline from which a period counts as late
_SWITCH_INTERVAL = 0.0005  # s: Python's own 5 ms would let another thread delay a tick that long
# Priorities of SCHED_FIFO, 1 to 99: above all threads without a deadline, below the kernel's own. A thread with a
# deadline may wait for a lock (of Python or DDS): the thread that holds the lock must not wait for a processor.
PACED, CALLBACKS, INFERENCE = 10, 5, 1


# On a machine with two processors, the real-time inference thread is pinned to the last one and the background
# inference thread to the first: Linux keeps a real-time thread on its processor even if another one is idle.
_PROCESSORS = sorted(os.sched_getaffinity(0))


def schedule_in_real_time(priority: int, computing: bool = False) -> bool:
    """Schedule this thread, and those that it starts, in real time; return False if the system refuses it.

    Needs CAP_SYS_NICE or an ``rtprio`` limit.

    Args:
        priority: of SCHED_FIFO.
        computing: True where this thread alone computes for longer than a callback.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))  # 0: this thread
    except OSError:
        return False
    if computing:
        _pin(-1)
    return True


def schedule_in_background(computing: bool = False) -> None:
    """Schedule this thread, and those that it starts, by the process's niceness, not in real time.

    Args:
        computing: True where this thread alone computes all the time.
    """
    was_in_real_time = os.sched_getscheduler(0) == os.SCHED_FIFO
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if computing and was_in_real_time:
        _pin(0)


def _pin(processor: int) -> None:
    if len(_PROCESSORS) == 2:
        os.sched_setaffinity(0, [_PROCESSORS[processor]])


@contextmanager
def starting_in_background() -> Iterator[None]:
    """Schedule threads that are started in this context by the process's niceness, not in real time."""
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    schedule_in_background()
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameter)


class PacedThread:
    """Thread that calls ``tick(deadline, periods)`` every ``period`` seconds.

    ``deadline`` is in monotonic seconds, ``periods`` after that of the last call.

    Deadlines are multiples of the period on the monotonic clock, plus ``phase`` of a period: the threads of all
    processes of one machine are in phase, without drift. After an overrun, missed deadlines are skipped and counted as
    late. A tick returns True if it had work; others are not counted.

    The thread is scheduled in real time where the system permits it.
    """

    def __init__(
        self,
        period: float,
        tick: Callable[[float, int], bool],
        name: str,
        phase: float = 0.0,
    ) -> None:
        self.ticks = 0
        self.late = 0
        self.real_time = False  # the system permits it
        self._period, self._tick = period, tick
        self._phase = phase * period  # s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        sys.setswitchinterval(_SWITCH_INTERVAL)
        self._thread.start()

    def close(self) -> None:
        """End the thread after the current tick."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        self.real_time = schedule_in_real_time(PACED)
        deadline, periods = (time.monotonic() - self._phase) // self._period * self._period + self._phase, 1
        while not self._stop.is_set():
            deadline += self._period
            time.sleep(max(0.0, deadline - time.monotonic()))
            if (overslept := int((time.monotonic() - deadline) / self._period)) > 0:  # periods
                deadline += overslept * self._period
                periods += overslept
            had_work = self._tick(deadline, periods)
            overrun = time.monotonic() - deadline
            missed = int(overrun / self._period)
            if had_work:
                self.ticks += periods
                self.late += periods - 1 + (overrun > LATE)
            deadline += missed * self._period
            periods = 1 + missed
