"""Outcomes of a study's episodes, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from genima.evaluation.paired import PairedOutcomes
from genima.evaluation.study import NONE, Exclusions, Study
from genima.evaluation.success import Success

Episode = tuple[str, int]  # checkpoint, and seed


@dataclass
class StudyResults:
    """Outcomes by policy, task and condition; cells may lack episodes while a study runs."""

    study: Study
    exclusions: Exclusions = field(default_factory=dict)
    cells: dict[tuple[str, str, str], dict[Episode, bool]] = field(default_factory=dict)

    def cell(self, policy: str, task: str, condition: str = NONE) -> Mapping[Episode, bool]:
        """Return the outcomes of a cell by episode."""
        return self.cells.get((policy, task, condition), {})

    def success(self, policy: str, tasks: Sequence[str], condition: str = NONE) -> Success:
        """Return the success of a policy over all episodes of some tasks.

        Tasks have equally many episodes, so that the rate is the mean of the tasks' rates. The interval of such a
        stratified sample is a little narrower than the binomial one that :class:`Success` has.
        """
        outcomes = [done for task in tasks for done in self.cell(policy, task, condition).values()]
        return Success(sum(outcomes), len(outcomes))

    def missing(self) -> int:
        """Return the number of episodes that are still to come."""
        study, missing = self.study, 0
        for condition in study.conditions:
            for task in study.tasks:
                for name, policy in study.policies.items():
                    checkpoints = max(1, study.checkpoints) if policy.policy is None else 1
                    if (task, condition) not in self.exclusions:
                        missing += len(study.seeds(condition)) * checkpoints - len(self.cell(name, task, condition))
        return missing

    def compare(self, policy: str, other: str, condition: str = NONE) -> PairedOutcomes:
        """Pair the episodes of two policies: equal tasks, seeds and, of several checkpoints, ages."""
        mine, theirs = ([self.cell(each, task, condition) for task in self.study.tasks] for each in (policy, other))
        return _pair(mine, theirs)

    def drop(self, policy: str, condition: str) -> PairedOutcomes:
        """Pair a policy's perturbed episodes with their unperturbed twins."""
        tasks = self.study.tasks
        perturbed = [self.cell(policy, task, condition) for task in tasks]
        return _pair(perturbed, [self.cell(policy, task) for task in tasks])


def _pair(first: Sequence[Mapping[Episode, bool]], second: Sequence[Mapping[Episode, bool]]) -> PairedOutcomes:
    pairs = [(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in a if key in b]
    return PairedOutcomes([a for a, _ in pairs], [b for _, b in pairs])


def adjust_for_number(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values of several comparisons so that one false alarm in all of them has the tests' probability.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    adjusted, largest = {}, 0.0
    ordered = sorted(p_values, key=lambda name: p_values[name])
    for i, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - i) * p_values[name]))
        adjusted[name] = largest
    return adjusted
