"""CPU time of other programs during a run."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass

import psutil

_BUSY = 0.2  # share of all cores that is gone


@dataclass(frozen=True)
class MachineLoad:
    """Mean number of cores used during a run."""

    cores: int  # that this process may use
    own: float  # by this process and its children
    others: float  # by other programs
    stolen: float  # by other virtual machines on the same host

    @property
    def busy(self) -> bool:
        """Return whether other processes take a considerable share of the machine."""
        return self.others + self.stolen > _BUSY * self.cores

    def __str__(self) -> str:
        stolen = f" and other virtual machines {self.stolen:.1f}" if self.stolen >= 0.05 else ""
        return f"other programs used {self.others:.1f}{stolen} of {self.cores} cores"

    def to_dict(self) -> dict[str, float]:
        """Return plain JSON types."""
        return {key: round(value, 3) for key, value in asdict(self).items()}

    def remedy(self) -> str:
        """Return the remedy for a busy machine; empty where it is not."""
        if not self.busy:
            return ""
        who = "end them (top lists them)" if self.others >= self.stolen else "use a machine with cores of its own"
        return f"this machine is too busy: {self}; {who}, or run when the machine is quiet"


class LoadMeter:
    """Measurement from its creation on.

    Args:
        process: its CPU time and its children's are the run's own; this process if None.
    """

    def __init__(self, process: psutil.Process | None = None) -> None:
        self._process = process or psutil.Process()
        self._begin, self._times, self._own = time.monotonic(), psutil.cpu_times(), _seconds(self._process)

    def read(self) -> MachineLoad:
        """Return the load since the meter was made; children that ended count once they are waited for."""
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
            total += times.user + times.system + times.children_user + times.children_system  # of those that ended, too
    return total
