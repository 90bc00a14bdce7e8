"""Comparison of two policies, pair by pair: table, verdict and result file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genima.errors import GenimaError
from genima.evaluation.paired import PairedOutcomes, SequentialTest, Verdict
from genima.evaluation.results import ResultFile, StoredResult
from genima.evaluation.success import Success
from genima.io.files import FileSchema


@dataclass(frozen=True)
class Pair:
    """Outcomes of A and B in the same initial state."""

    group: str  # task, or variant of a scene
    index: int  # seed, or number of the trial
    a: bool
    b: bool


class Comparison:
    """Pairs in the order in which they were made, and what follows from them."""

    def __init__(self, planned: int, stops_early: bool) -> None:
        """Args:
        planned: number of pairs.
        stops_early: end when the sequential test finds a difference; otherwise McNemar's test judges all pairs.
        """
        self.planned, self.stops_early = planned, stops_early
        self.pairs: list[Pair] = []
        self._test = SequentialTest(planned)

    def add(self, pair: Pair) -> None:
        """Add a pair."""
        self.pairs.append(pair)
        self._test.add(pair.a, pair.b)

    @property
    def ended(self) -> bool:
        """Return whether no more pairs are needed."""
        return len(self.pairs) >= self.planned or (self.stops_early and self._test.decided)

    @property
    def verdict(self) -> Verdict:
        """Verdict so far: all pairs pooled."""
        return self._test.verdict if self.stops_early else self.outcomes().verdict()

    @property
    def groups(self) -> list[str]:
        """Tasks or variants that have pairs."""
        return list(dict.fromkeys(pair.group for pair in self.pairs))

    def outcomes(self, group: str | None = None) -> PairedOutcomes:
        """Return the outcomes of a group; None: of all pairs."""
        pairs = [pair for pair in self.pairs if group in (None, pair.group)]
        return PairedOutcomes([pair.a for pair in pairs], [pair.b for pair in pairs])

    def report(self, a: str, b: str) -> str:
        """Return a table of the groups and the verdict; ``a`` and ``b`` name the policies."""
        names = f"A: {a}\nB: {b}\n"
        if not self.pairs:
            return f"{names}no pairs"
        rows: list[tuple[str, ...]] = [("", "A", "B", "difference (95% interval)", "McNemar's p")]
        rows += [_row(group, self.outcomes(group)) for group in self.groups]
        if len(self.groups) > 1:
            rows.append(_row("all", self.outcomes()))
        return f"{names}{_align(rows)}\n{self.verdict}: {self._reason()}"

    def _reason(self) -> str:
        pairs = f"{len(self.pairs)} of {self.planned} planned pairs"
        if not self.stops_early:
            return f"McNemar's exact test at 5%, {pairs}"
        early = "; intervals and p-values are not corrected for the early stop" if self._test.decided else ""
        return f"sequential test at 5%, {pairs}{early}"

    def to_dict(self) -> dict[str, Any]:
        """Return the summary and the pairs as plain JSON types."""
        return {
            "verdict": self.verdict.value,
            "groups": {group: _summary(self.outcomes(group)) for group in self.groups},
            "all": _summary(self.outcomes()) if self.pairs else None,
            "pairs": [asdict(pair) for pair in self.pairs],
        }


def _row(group: str, outcomes: PairedOutcomes) -> tuple[str, ...]:
    def rate(success: Success) -> str:
        return f"{success.successes}/{success.episodes} ({success.rate:.0%})"

    a, b = rate(outcomes.success_a), rate(outcomes.success_b)
    return group, a, b, str(outcomes.difference), f"{outcomes.mcnemar():.2g}"


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in cells)


def _summary(outcomes: PairedOutcomes) -> dict[str, Any]:
    difference = outcomes.difference
    return {
        "pairs": outcomes.n,
        "both": outcomes.both,
        "only_a": outcomes.only_a,
        "only_b": outcomes.only_b,
        "neither": outcomes.neither,
        "difference": difference.value,
        "interval_95": [difference.low, difference.high],
        "mcnemar_p": outcomes.mcnemar(),
    }


class _StoredPair(FileSchema):
    group: str
    index: int
    a: bool
    b: bool


class _StoredComparison(StoredResult):
    pairs: list[_StoredPair]


class ComparisonFile(ResultFile):
    """Result file of a comparison."""

    schema = _StoredComparison

    def __init__(self, comparison: Comparison, settings: Mapping[str, Any], path: Path | None) -> None:
        super().__init__(settings, path)
        self.comparison = comparison

    def add(self, pair: Pair) -> None:
        """Add a pair, and write the file."""
        self.comparison.add(pair)
        self.write()

    def to_dict(self) -> dict[str, Any]:
        """See :class:`ResultFile`."""
        return self.comparison.to_dict()

    def restore(self, stored: _StoredComparison) -> None:
        """See :class:`ResultFile`."""
        if len(stored.pairs) > self.comparison.planned:
            raise GenimaError(
                f"result {self.path}: {len(stored.pairs)} pairs of {self.comparison.planned}; name another"
            )
        for pair in stored.pairs:
            self.comparison.add(Pair(pair.group, pair.index, pair.a, pair.b))
