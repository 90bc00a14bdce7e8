"""Blinded trials of two policies on a robot: protocol, order of the trials, and result file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from genima.errors import GenimaError
from genima.evaluation.comparison import Comparison, Pair
from genima.evaluation.results import ResultFile, StoredResult
from genima.io import paths
from genima.io.files import Count, FileSchema, NonNegative, Text, load_yaml
from genima.system.ros_names import RosName

PROTOCOLS = "config", "trials"
SIDES = "a", "b"
Side = Literal["a", "b"]
TrialVerdict = Literal["success", "failure", "not counted"]


class Protocol(FileSchema):
    """Protocol of a task: a YAML file in ``config/trials``, or the user's own."""

    instruction: Text  # of the task, as in the demos
    setup: Text  # of the scene before each trial, for the operator
    variants: Annotated[dict[RosName, Text], Field(min_length=1)]  # of the scene, by name
    success: Text  # rule by which the operator judges
    trials: Annotated[Count, Field(le=1000)] = 5  # of each policy in each variant; the paper has 5
    time_limit: NonNegative = 60.0  # s of a trial; 0: none
    task: Text | None = None  # simulated task whose scene is reset, in a simulated cell

    @property
    def pairs(self) -> list[str]:
        """Variants of the pairs of trials, in their order."""
        return [variant for variant in self.variants for _ in range(self.trials)]


def load_protocol(name_or_file: str) -> Protocol:
    """Read a protocol.

    Raises:
        GenimaError: for a name that does not exist, and a file that is not valid.
    """
    return load_yaml(Protocol, paths.config_file(name_or_file, *PROTOCOLS), "protocol")


def random_order(pairs: int, seed: int) -> list[str]:
    """Return the order of both trials of each pair, "ab" or "ba": in each block of two pairs, either once."""
    rng = np.random.default_rng(seed)
    blocks = [["ab", "ba"] if rng.random() < 0.5 else ["ba", "ab"] for _ in range((pairs + 1) // 2)]
    return [order for block in blocks for order in block][:pairs]


class Trial(FileSchema):
    """One run of one policy."""

    pair: Annotated[int, Field(ge=0)]
    side: Side
    verdict: TrialVerdict
    note: str = ""  # of the operator
    seconds: float  # of the task
    ended: str  # outcome and reason, of the graph


class _StoredTrials(StoredResult):
    order: list[Literal["ab", "ba"]]
    trials: list[Trial]


class TrialFile(ResultFile):
    """Result file of trials; it has the order that the operator must not know."""

    schema = _StoredTrials

    def __init__(
        self, protocol: Protocol, seed: int, stops_early: bool, settings: Mapping[str, Any], path: Path
    ) -> None:
        """Args:
        protocol: of the trials.
        seed: of the order.
        stops_early: end when the sequential test finds a difference.
        settings: see :class:`ResultFile`.
        path: JSON file.
        """
        super().__init__(settings, path)
        self.variants, self._stops_early = protocol.pairs, stops_early
        self.order = random_order(len(self.variants), seed)
        self.trials: list[Trial] = []

    def add(self, trial: Trial) -> None:
        """Add a trial, and write the file."""
        self.trials.append(trial)
        self.write()

    @property
    def counted(self) -> int:
        """Number of trials that count."""
        return len(self._outcomes())

    def next_trial(self) -> tuple[int, Side] | None:
        """Return pair and side of the next trial, or None at the end; one that did not count is repeated."""
        if self.comparison().ended:
            return None
        done = self._outcomes()
        return next((trial for trial in self._all() if trial not in done), None)

    def comparison(self) -> Comparison:
        """Return the comparison of the complete pairs."""
        comparison, done = Comparison(len(self.variants), self._stops_early), self._outcomes()
        for pair, variant in enumerate(self.variants):
            if (pair, "a") in done and (pair, "b") in done:
                comparison.add(Pair(variant, pair, done[pair, "a"], done[pair, "b"]))
        return comparison

    def _all(self) -> Iterator[tuple[int, Side]]:
        for pair, order in enumerate(self.order):
            yield from ((pair, "a"), (pair, "b")) if order == "ab" else ((pair, "b"), (pair, "a"))

    def _outcomes(self) -> dict[tuple[int, Side], bool]:
        counted = (trial for trial in self.trials if trial.verdict != "not counted")
        return {(trial.pair, trial.side): trial.verdict == "success" for trial in counted}

    def to_dict(self) -> dict[str, Any]:
        """See :class:`ResultFile`."""
        return {
            **self.comparison().to_dict(),
            "order": self.order,
            "trials": [trial.model_dump() for trial in self.trials],
        }

    def restore(self, stored: _StoredTrials) -> None:
        """See :class:`ResultFile`."""
        pairs = len(self.variants)
        if len(stored.order) != pairs or any(trial.pair >= pairs for trial in stored.trials):
            raise GenimaError(f"result {self.path}: not of {pairs} pairs; name another")
        self.order, self.trials = list(stored.order), list(stored.trials)
