"""Paced thread: deadlines, late periods, real-time scheduling."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from genima_nodes.ros import paced_thread as pacing
from genima_nodes.ros.paced_thread import INFERENCE, PacedThread, schedule_in_background, schedule_in_real_time

pytestmark = pytest.mark.real_time


def run_paced(tick: Callable[[float, int], bool], seconds: float) -> PacedThread:
    thread = PacedThread(0.02, tick, "test")
    thread.start()
    time.sleep(seconds)
    thread.close()
    return thread


def test_deadlines_do_not_drift() -> None:
    due: list[float] = []

    def tick(deadline: float, periods: int) -> bool:
        due.append(deadline)
        time.sleep(0.004)
        return True

    thread = run_paced(tick, 0.5)
    steps = [(later - earlier) / 0.02 for earlier, later in zip(due, due[1:], strict=False)]
    assert all(step > 0.5 and abs(step - round(step)) < 0.05 for step in steps)  # whole periods, missed ones left out
    assert thread.ticks >= 20


def test_deadlines_follow_phase() -> None:
    due: dict[float, list[float]] = {0.0: [], 0.4: []}
    threads = [PacedThread(0.02, lambda at, _, all=all: bool(all.append(at)), "test", phase=phase)
               for phase, all in due.items()]  # fmt: skip
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    for thread in threads:
        thread.close()
    for phase, deadlines in due.items():
        assert len(deadlines) > 3
        steps = np.array(deadlines) / 0.02 - phase
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-5)


def test_overrun_counts_missed_deadlines() -> None:
    slow = iter([0.07])
    calls: list[tuple[float, int]] = []

    def tick(deadline: float, periods: int) -> bool:
        calls.append((deadline, periods))
        time.sleep(next(slow, 0.0))
        return True

    thread = run_paced(tick, 0.2)
    assert calls[0][1] == 1 and calls[1][1] >= 4
    for (earlier, _), (later, periods) in zip(calls, calls[1:], strict=False):
        assert abs((later - earlier) / 0.02 - periods) < 0.05
    assert thread.late >= 4  # three were skipped, and the slow one itself ended late
    assert thread.ticks == sum(periods for _, periods in calls)


def test_ticks_without_work_are_not_counted() -> None:
    thread = run_paced(lambda deadline, periods: False, 0.1)
    assert thread.ticks == thread.late == 0


@pytest.mark.parametrize("permitted", [True, False])
def test_real_time_scheduling_is_optional(monkeypatch: pytest.MonkeyPatch, permitted: bool) -> None:
    threads_scheduled: list[str] = []

    def schedule(pid: int, policy: int, parameters: os.sched_param) -> None:
        assert (pid, policy) == (0, os.SCHED_FIFO)
        threads_scheduled.append(threading.current_thread().name)
        if not permitted:
            raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", schedule)
    thread = run_paced(lambda deadline, periods: True, 0.1)
    assert threads_scheduled == ["test"] and thread.real_time is permitted and thread.ticks > 0
    assert os.sched_getscheduler(0) == os.SCHED_OTHER  # this thread is unchanged


@pytest.mark.parametrize("two_processors", [True, False])
def test_inference_threads_are_pinned_on_two_processors(monkeypatch: pytest.MonkeyPatch, two_processors: bool) -> None:
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        pytest.skip("one processor only")
    monkeypatch.setattr(pacing, "_PROCESSORS", processors[:2] if two_processors else [*processors[:2], 1000])
    affinities: dict[str, list[int]] = {}

    def note(when: str, computing: bool) -> None:
        def work() -> None:
            if schedule_in_real_time(INFERENCE, computing and when == "real time"):
                if when == "background":
                    schedule_in_background(computing)
                affinities[f"{when}, {computing}"] = sorted(os.sched_getaffinity(0))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    for when in ("real time", "background"):
        for computing in (False, True):
            note(when, computing)
    if not affinities:
        pytest.skip("this user may not schedule in real time")
    assert affinities == {
        "real time, False": processors,
        "real time, True": processors[1:2] if two_processors else processors,
        "background, False": processors,
        "background, True": processors[:1] if two_processors else processors,
    }
    assert sorted(os.sched_getaffinity(0)) == processors, "this thread is unchanged"
