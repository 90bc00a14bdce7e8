"""Findings of a check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from genima.data.episodes.errors import EpisodeError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """Finding about an episode."""

    severity: Severity  # error: the episode cannot be used for training; warning: to review
    what: str
    topic: str | None = None  # None: the whole episode
    time: float | None = None  # s since the episode's start; None: without a time

    def __str__(self) -> str:
        place = "" if self.time is None else f"at {self.time:.3f} s"
        place = " ".join(filter(None, (self.topic, place)))
        return f"{self.severity:<8}{place}{': ' if place else ''}{self.what}"


def as_finding(severity: Severity, faults: list[EpisodeError]) -> Finding:
    """Combine faults of one kind on one topic into one finding: the first, and their number."""
    first, more = faults[0], len(faults) - 1
    return Finding(severity, first.what + (f"; {more} more like this" if more else ""), first.topic, first.time)


def as_findings(severity: Severity, faults: Iterable[EpisodeError]) -> list[Finding]:
    """Combine findings of the same text into one each."""
    ordered = sorted(faults, key=lambda fault: (fault.what, fault.time or 0.0))
    groups = [list(group) for _, group in groupby(ordered, key=lambda fault: fault.what)]
    return [as_finding(severity, group) for group in groups]
