"""What a check finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from genima.data.episodes.errors import EpisodeError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """Something about an episode that its owner should know."""

    severity: Severity  # error: the episode cannot be trained on; warning: it should be looked at
    what: str
    topic: str | None = None  # None: it concerns the whole episode
    time: float | None = None  # s since the episode's start; None: it has no moment

    def __str__(self) -> str:
        place = "" if self.time is None else f"at {self.time:.3f} s"
        place = " ".join(filter(None, (self.topic, place)))
        return f"{self.severity:<8}{place}{': ' if place else ''}{self.what}"


def as_finding(severity: Severity, faults: list[EpisodeError]) -> Finding:
    """Faults of one kind on one topic in a line: the first, and how many there are."""
    first, more = faults[0], len(faults) - 1
    return Finding(severity, first.what + (f"; {more} more like this" if more else ""), first.topic, first.time)


def as_findings(severity: Severity, faults: Iterable[EpisodeError]) -> list[Finding]:
    """Those with the same words in a line."""
    ordered = sorted(faults, key=lambda fault: (fault.what, fault.time or 0.0))
    groups = [list(group) for _, group in groupby(ordered, key=lambda fault: fault.what)]
    return [as_finding(severity, group) for group in groups]
