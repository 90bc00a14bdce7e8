"""CPU time of other programs during a run."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass

import psutil

_BUSY = 0.2  # fraction of all cores used by others


@dataclass(frozen=True)
class MachineLoad:
    """Mean number of cores used during a run."""

    cores: int  # available to this process
    own: float  # by this process and its children
    others: float  # by other programs
    stolen: float  # by other virtual machines on the same host

    @property
    def busy(self) -> bool:
        """True if other programs use more than a fifth of the machine."""
        return self.others + self.stolen > _BUSY * self.cores

    def __str__(self) -> str:
        stolen = f" and other virtual machines {self.stolen:.1f}" if self.stolen >= 0.05 else ""
        return f"other programs used {self.others:.1f}{stolen} of {self.cores} cores"

    def to_dict(self) -> dict[str, float]:
        """Return the load as plain JSON types."""
        return {key: round(value, 3) for key, value in asdict(self).items()}

    def remedy(self) -> str:
        """Return the remedy for a busy machine; empty if it is not busy."""
        if not self.busy:
            return ""
        remedy = "end them (top lists them)" if self.others >= self.stolen else "use a machine with dedicated cores"
        return f"machine: too busy ({self}); {remedy}, or run when it is quiet"


class LoadMeter:
    """Meter of the load since its creation.

    Args:
        process: process whose CPU time, with its children's, is the run's own; None: this process.
    """

    def __init__(self, process: psutil.Process | None = None) -> None:
        self._process = process or psutil.Process()
        self._begin, self._times, self._own = time.monotonic(), psutil.cpu_times(), _seconds(self._process)

    def read(self) -> MachineLoad:
        """Return the load since creation; ended children are included once they are waited for."""
        seconds = max(time.monotonic() - self._begin, 1e-3)
        now, own = psutil.cpu_times(), max(0.0, _seconds(self._process) - self._own)
        stolen = getattr(now, "steal", 0.0) - getattr(self._times, "steal", 0.0)
        busy = _busy_seconds(now) - _busy_seconds(self._times)
        return MachineLoad(
            len(os.sched_getaffinity(0)), own / seconds, max(0.0, busy - own) / seconds, max(0.0, stolen) / seconds
        )


def _busy_seconds(times: object) -> float:
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))


def _seconds(parent: psutil.Process) -> float:
    total = 0.0
    for process in (parent, *parent.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system  # with ended children
    return total
