"""Measure the machine's load during a test with deadlines."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
import tempfile

import psutil

from genima_cli.machine_load import LoadMeter

LONGEST = 0.1  # s: nodes hold the arm when their inputs are older
_PROBE = """
import mmap, os, struct, sys, time

with open(sys.argv[1], "r+b") as file:
    shared = mmap.mmap(file.fileno(), 8)
print(flush=True)  # the file is no longer needed by its name
parent = os.getppid()
while os.getppid() == parent:
    due = time.monotonic() + 0.01
    time.sleep(0.01)
    late = time.monotonic() - due
    if late > struct.unpack("d", shared[:])[0]:
        shared[:] = struct.pack("d", late)
"""


class WakeUpProbe:
    """Process that repeatedly sleeps 10 ms: independent of the lock of the tests' interpreter."""

    def __init__(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(8))
            file.flush()
            self._shared = mmap.mmap(file.fileno(), 8)
            command = [sys.executable, "-S", "-E", "-c", _PROBE, file.name]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert self._process.stdout is not None
            self._process.stdout.readline()

    def reset(self) -> None:
        """Forget the delays until now."""
        self._shared[:] = bytes(8)

    def longest(self) -> float:
        """Return the longest delay of a wake-up since the last reset, in seconds."""
        return float(struct.unpack("d", self._shared[:])[0])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


class MachineWatch:
    """The machine's load from now on."""

    def __init__(self, probe: WakeUpProbe) -> None:
        # parallel tests have a common parent, pytest-xdist's: their load is excluded
        parent = psutil.Process().parent() if "PYTEST_XDIST_WORKER" in os.environ else None
        self._probe, self._load = probe, LoadMeter(parent)
        probe.reset()

    def busy(self) -> str:
        """Return what was measured where the machine was too busy for a verdict, else an empty text."""
        load, late = self._load.read(), self._probe.longest()
        if not load.busy and late < LONGEST:
            return ""
        return f"machine: too busy for a verdict ({load}; a process woke up to {late:.2f} s late)"
