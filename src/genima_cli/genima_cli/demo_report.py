"""Report of a demo run, for people and as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from genima.io.files import atomic_write
from genima.types import TaskOutcome
from genima_cli.machine_load import MachineLoad

_MIN_REAL_TIME_FACTOR = 0.9
_MAX_LATE = 0.05  # fraction of commands


@dataclass(frozen=True)
class EpisodeResult:
    """Result of an episode."""

    task: str
    seed: int
    outcome: TaskOutcome
    reason: str
    elapsed: float  # s
    drawn_targets: int

    @property
    def success(self) -> bool:
        """Return whether the simulator judged it a success."""
        return self.outcome is TaskOutcome.SUCCEEDED


@dataclass(frozen=True)
class Measurements:
    """Rates and delays over all episodes; NaN: not measured."""

    drawing_hz: float
    command_hz: float
    late_fraction: float  # of commands more than 5 ms after their deadline
    latency_ms: dict[str, float]  # p50, p99 from an image's stamp to the first command that uses it
    real_time_factor: float  # mean
    first_drawn_target_s: float  # from the start of the program


@dataclass
class Report:
    """Report of a run."""

    tasks: Sequence[str]  # in turn
    requested: int  # number of episodes
    results: list[EpisodeResult] = field(default_factory=list)
    measurements: Measurements | None = None
    interrupted: bool = False
    load: MachineLoad | None = None
    perturbations: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON types; what was not measured is None."""
        measured = asdict(self.measurements) if self.measurements else {}
        return {
            "tasks": list(self.tasks),
            "perturbations": self.perturbations,
            "episodes": len(self.results),
            "episodes_requested": self.requested,
            "successes": sum(result.success for result in self.results),
            "seeds": [result.seed for result in self.results],
            "interrupted": self.interrupted,
            **{key: _nullable(value) for key, value in measured.items()},
            "results": [asdict(result) | {"outcome": result.outcome.name} for result in self.results],
            "machine": machine(),
            "load": self.load.to_dict() if self.load else None,
        }

    def write(self, path: Path) -> None:
        """Write a JSON file atomically.

        Raises:
            GenimaError: when it cannot be written.
        """
        atomic_write(path, (json.dumps(self.to_dict(), indent=2) + "\n").encode())

    def text(self) -> str:
        """Return the report as text."""
        lines = [f"success             {self._successes(task)} ({task})" for task in self.tasks]
        if (m := self.measurements) is not None and m.drawing_hz > 0:
            lines += [
                f"policy              {m.drawing_hz:.1f} Hz",
                f"commands            {m.command_hz:.1f} Hz, {100 * m.late_fraction:.2f}% late by more than 5 ms",
                f"camera to command   p50 {m.latency_ms['p50']:.0f} ms, p99 {m.latency_ms['p99']:.0f} ms",
                f"real-time factor    {m.real_time_factor:.2f}",
                f"first prediction    {m.first_drawn_target_s:.1f} s after the start",
            ]
        if self.interrupted:
            lines.append(f"interrupted after {len(self.results)} of {self.requested} episodes")
        if advice := self.advice():
            lines.append(advice)
        return "\n".join(lines)

    def _successes(self, task: str) -> str:
        outcomes = [result.success for result in self.results if result.task == task]
        return f"{sum(outcomes)} of {len(outcomes)}"

    def advice(self) -> str:
        """Return the message for a run on a machine that was too busy or slow; empty if it was not."""
        m, failed = self.measurements, sum(not result.success for result in self.results)
        slow = m is not None and (m.real_time_factor < _MIN_REAL_TIME_FACTOR or m.late_fraction > _MAX_LATE)
        if self.load is None or not (slow or (failed and self.load.busy)):
            return ""
        figures = ""
        if m is not None and slow:
            figures = f" (real-time factor {m.real_time_factor:.2f}, {100 * m.late_fraction:.1f}% of the commands late)"
        remedy = self.load.remedy() or f"machine: too slow for real time ({self.load}); use one with more cores"
        return f"{remedy}{figures}; or measure in lock-step: ./genima eval --task {self.tasks[0]}"


def machine() -> dict[str, object]:
    """Return the machine and the versions of the run."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _nullable(value: object) -> object:
    """Replace NaN by None, as JSON has none."""
    if isinstance(value, dict):
        return {key: _nullable(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
