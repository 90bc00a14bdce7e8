"""The paced thread: deadlines, what counts as late, and real-time scheduling."""

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


def paced(tick: Callable[[float, int], bool], seconds: float) -> PacedThread:
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

    thread = paced(tick, 0.5)
    steps = [(later - earlier) / 0.02 for earlier, later in zip(due, due[1:], strict=False)]
    assert all(step > 0.5 and abs(step - round(step)) < 0.05 for step in steps)  # whole periods, missed ones left out
    assert thread.ticks >= 20


def test_all_threads_of_a_machine_keep_step_by_their_phases() -> None:
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


def test_an_overrun_counts_every_deadline_that_it_missed_and_the_next_tick_is_told() -> None:
    slow = iter([0.07])
    told: list[tuple[float, int]] = []

    def tick(deadline: float, periods: int) -> bool:
        told.append((deadline, periods))
        time.sleep(next(slow, 0.0))
        return True

    thread = paced(tick, 0.2)
    assert told[0][1] == 1 and told[1][1] >= 4
    for (earlier, _), (later, periods) in zip(told, told[1:], strict=False):
        assert abs((later - earlier) / 0.02 - periods) < 0.05
    assert thread.late >= 4  # three were skipped, and the slow one itself ended late
    assert thread.ticks == sum(periods for _, periods in told)


def test_ticks_without_work_do_not_count() -> None:
    thread = paced(lambda deadline, periods: False, 0.1)
    assert thread.ticks == thread.late == 0


@pytest.mark.parametrize("permitted", [True, False])
def test_a_paced_thread_asks_for_real_time_and_does_without_if_refused(
    monkeypatch: pytest.MonkeyPatch, permitted: bool
) -> None:
    asked: list[str] = []

    def schedule(pid: int, policy: int, parameters: os.sched_param) -> None:
        assert (pid, policy) == (0, os.SCHED_FIFO)
        asked.append(threading.current_thread().name)
        if not permitted:
            raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", schedule)
    thread = paced(lambda deadline, periods: True, 0.1)
    assert asked == ["test"] and thread.real_time is permitted and thread.ticks > 0
    assert os.sched_getscheduler(0) == os.SCHED_OTHER  # this thread is as it was


@pytest.mark.parametrize("few", [True, False])
def test_of_two_processors_what_computes_in_real_time_has_the_one_and_what_computes_in_the_background_the_other(
    monkeypatch: pytest.MonkeyPatch, few: bool
) -> None:
    all_of_them = sorted(os.sched_getaffinity(0))
    if len(all_of_them) < 2:
        pytest.skip("one processor only")
    monkeypatch.setattr(pacing, "_PROCESSORS", all_of_them[:2] if few else [*all_of_them[:2], 1000])
    seen: dict[str, list[int]] = {}

    def note(when: str, computing: bool) -> None:
        def work() -> None:
            if schedule_in_real_time(INFERENCE, computing and when == "real time"):
                if when == "background":
                    schedule_in_background(computing)
                seen[f"{when}, {computing}"] = sorted(os.sched_getaffinity(0))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    for when in ("real time", "background"):
        for computing in (False, True):
            note(when, computing)
    if not seen:
        pytest.skip("this user may not schedule in real time")
    assert seen == {
        "real time, False": all_of_them,
        "real time, True": all_of_them[1:2] if few else all_of_them,
        "background, False": all_of_them,
        "background, True": all_of_them[:1] if few else all_of_them,
    }
    assert sorted(os.sched_getaffinity(0)) == all_of_them, "this thread is as it was"
