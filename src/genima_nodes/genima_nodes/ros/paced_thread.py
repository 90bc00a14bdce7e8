"""A loop at a fixed rate, in a thread of its own, against absolute deadlines."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rclpy.clock import Clock, ClockType

STEADY = Clock(clock_type=ClockType.STEADY_TIME)  # for timers: the node's own clock stops them when it is set back
LATE = 0.005  # s after its deadline from which a tick counts as late
_SWITCH_INTERVAL = 0.0005  # s: Python's own 5 ms would let another thread delay a tick that long
# Of SCHED_FIFO, 1 to 99: above all that has no deadline, below the kernel's own threads. A thread with a deadline may
# wait for a lock (Python's, DDS's): who holds it in its process must not wait for a processor.
PACED, CALLBACKS, INFERENCE = 10, 5, 1


# Of two processors, the thread that computes in real time has the last, and the one that computes in the background the
# first: a thread in real time runs where it ran before, even if another processor is free and the thread that it
# displaces must wait. Where there are more processors, one is free.
_PROCESSORS = sorted(os.sched_getaffinity(0))


def schedule_in_real_time(priority: int, computing: bool = False) -> bool:
    """Run this thread, and those that it starts, the moment that there is something to do; whether the system grants
    it (CAP_SYS_NICE, or an ``rtprio`` limit).

    Args:
        priority: of SCHED_FIFO.
        computing: for longer than a callback, and in this thread alone.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))  # 0: this thread
    except OSError:
        return False
    if computing:
        _keep_to(-1)
    return True


def schedule_in_background(computing: bool = False) -> None:
    """Run this thread, and those that it starts, by the process's niceness, though its starter is in real time.

    Args:
        computing: all the time, and in this thread alone.
    """
    was_in_real_time = os.sched_getscheduler(0) == os.SCHED_FIFO
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if computing and was_in_real_time:
        _keep_to(0)


def _keep_to(processor: int) -> None:
    if len(_PROCESSORS) == 2:
        os.sched_setaffinity(0, [_PROCESSORS[processor]])


@contextmanager
def starting_in_background() -> Iterator[None]:
    """Threads that are started meanwhile run by the process's niceness, though their starter is in real time."""
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    schedule_in_background()
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameter)


class PacedThread:
    """Calls ``tick(deadline, periods)`` every ``period`` seconds, with the deadline that it is due at in monotonic
    seconds, so many periods after the last call's.

    Deadlines are the multiples of the period on the system's monotonic clock, and ``phase`` of a period after them: the
    threads of all processes of one machine keep step. They never drift. After an overrun, the missed deadlines are
    skipped, not caught up with, and counted as late. A tick returns whether it had anything to do: only then does it
    count.

    The thread is scheduled in real time where the user may ask for it: it then runs the moment that it is due, whatever
    else wants the processor.
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
        self.real_time = False  # whether the system grants it
        self._period, self._tick = period, tick
        self._phase = phase * period  # s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin ticking."""
        sys.setswitchinterval(_SWITCH_INTERVAL)
        self._thread.start()

    def close(self) -> None:
        """End after the current tick."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        self.real_time = schedule_in_real_time(PACED)
        deadline, periods = (time.monotonic() - self._phase) // self._period * self._period + self._phase, 1
        while not self._stop.is_set():
            deadline += self._period
            time.sleep(max(0.0, deadline - time.monotonic()))
            if (slept_over := int((time.monotonic() - deadline) / self._period)) > 0:
                deadline += slept_over * self._period
                periods += slept_over
            worked = self._tick(deadline, periods)
            overrun = time.monotonic() - deadline
            missed = int(overrun / self._period)
            if worked:
                self.ticks += periods
                self.late += periods - 1 + (overrun > LATE)
            deadline += missed * self._period
            periods = 1 + missed
