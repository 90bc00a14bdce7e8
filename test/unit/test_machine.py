"""Measurement of the machine's load for tests with deadlines."""

from __future__ import annotations

import time

import pytest
from machine import LONGEST, MachineWatch, WakeUpProbe

from genima_cli import machine_load
from genima_cli.machine_load import MachineLoad

QUIET, BUSY = MachineLoad(2, 1.5, 0.1, 0.0), MachineLoad(2, 0.5, 1.4, 0.0)


class Probe:
    """Wake-up probe with a fixed delay."""

    def __init__(self, late: float) -> None:
        self.late = late

    def reset(self) -> None:
        pass

    def longest(self) -> float:
        return self.late


@pytest.mark.parametrize(
    ("load", "late", "expected"),
    [
        (QUIET, 0.02, ""),
        (BUSY, 0.02, "other programs used 1.4 of 2 cores; a process woke up to 0.02 s late"),
        (QUIET, LONGEST, "a process woke up to 0.10 s late"),
    ],
)
def test_busy_machine_is_reported_with_measurements(
    load: MachineLoad, late: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_load.LoadMeter, "read", lambda self: load)
    output = MachineWatch(Probe(late)).busy()  # type: ignore[arg-type]
    assert expected in output and bool(output) is bool(expected)


def test_probe_measures_until_closed() -> None:
    probe = WakeUpProbe()
    deadline = time.monotonic() + 60
    while not probe.longest():  # no sleep ends exactly on time
        assert time.monotonic() < deadline
        time.sleep(0.01)
    probe.close()
    assert probe._process.poll() is not None
    probe.reset()
    assert probe.longest() == 0
