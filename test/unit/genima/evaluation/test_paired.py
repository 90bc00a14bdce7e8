"""Paired statistics: published examples, exact enumeration, and simulated campaigns."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from genima.evaluation.paired import PairedOutcomes, SequentialTest, Verdict

COUNTS = st.tuples(*[st.integers(0, 30)] * 4).filter(any)


def outcomes_of(both: int, only_a: int, only_b: int, neither: int) -> PairedOutcomes:
    counts = (both, only_a, only_b, neither)
    return PairedOutcomes(np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts))


@pytest.mark.parametrize(("counts", "low", "high"), [
    ((36, 12, 2, 0), 0.0569, 0.3404),  # Newcombe, 1998, table III, method 10
    ((1, 1, 7, 12), -0.507, -0.026),  # Fagerland, Lydersen and Laake, 2014: airway hyper-responsiveness
])  # fmt: skip
def test_interval_matches_published_examples(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    difference = outcomes_of(*counts).difference
    assert (difference.low, difference.high) == (pytest.approx(low, abs=6e-4), pytest.approx(high, abs=6e-4))


@given(COUNTS)
def test_statistics_of_any_counts(counts: tuple[int, int, int, int]) -> None:
    outcomes, swapped = outcomes_of(*counts), outcomes_of(counts[0], counts[2], counts[1], counts[3])
    assert (outcomes.both, outcomes.only_a, outcomes.only_b, outcomes.neither) == counts
    difference = outcomes.difference
    assert -1 <= difference.low <= difference.value + 1e-12 and difference.value - 1e-12 <= difference.high <= 1
    assert difference.value == pytest.approx((counts[1] - counts[2]) / sum(counts))
    assert (-swapped.difference.high, -swapped.difference.low) == pytest.approx((difference.low, difference.high))
    fewer, discordant = min(counts[1:3]), counts[1] + counts[2]
    assert outcomes.mcnemar() == pytest.approx(min(1, 2 * binom.cdf(fewer, discordant, 0.5)))
    assert (outcomes.verdict() == Verdict.NO_DIFFERENCE) == (outcomes.mcnemar() > 0.05)


def test_pairs_are_matched_by_seed_and_pooled() -> None:
    outcomes = PairedOutcomes.by_seed({3: True, 1: False, 7: True}, {1: True, 3: True, 9: False})
    assert (outcomes.n, outcomes.both, outcomes.only_b) == (2, 1, 1)
    assert outcomes.a.tolist() == [False, True]
    pooled = PairedOutcomes.pool([outcomes, outcomes_of(0, 2, 0, 1)])
    assert (pooled.n, pooled.only_a, pooled.only_b, pooled.both, pooled.neither) == (5, 2, 1, 1, 1)
    assert PairedOutcomes.pool([]).n == 0


@settings(max_examples=15)
@given(st.lists(st.booleans(), min_size=8, max_size=24).filter(lambda pattern: 1 <= sum(pattern) <= 9))
def test_false_alarms_are_at_most_5_percent_whichever_pairs_are_discordant(pattern: list[bool]) -> None:
    alarms = {Verdict.A_BETTER: 0, Verdict.B_BETTER: 0, Verdict.NO_DIFFERENCE: 0}
    for wins in itertools.product((True, False), repeat=sum(pattern)):
        test, winner = SequentialTest(len(pattern)), iter(wins)
        for discordant in pattern:
            a = next(winner) if discordant else True
            test.add(a, a != discordant)
        alarms[test.verdict] += 1
    assert alarms[Verdict.A_BETTER] == alarms[Verdict.B_BETTER]
    assert alarms[Verdict.A_BETTER] + alarms[Verdict.B_BETTER] <= 0.05 * 2 ** sum(pattern)


def campaigns(rate_a: float, rate_b: float, number: int, planned: int = 100) -> list[SequentialTest]:
    """Simulate campaigns of independent pairs that stop when the test decides."""
    rng = np.random.default_rng(0)
    tests = []
    for _ in range(number):
        test = SequentialTest(planned)
        for a, b in zip(rng.random(planned) < rate_a, rng.random(planned) < rate_b, strict=True):
            if test.add(bool(a), bool(b)) != Verdict.NO_DIFFERENCE:
                break
        tests.append(test)
    return tests


def test_200_a_versus_a_campaigns_raise_at_most_5_percent_false_alarms() -> None:
    assert sum(test.decided for test in campaigns(0.8, 0.8, 200)) <= 10


def test_80_against_60_percent_is_found_with_80_percent_power_within_100_pairs() -> None:
    tests = campaigns(0.8, 0.6, 300)
    assert sum(test.verdict == Verdict.A_BETTER for test in tests) >= 0.8 * len(tests)
    assert np.mean([test.pairs for test in tests]) < 75


def test_verdict_stays_and_planned_pairs_are_the_end() -> None:
    test = SequentialTest(30)
    verdicts = [test.add(False, True) for _ in range(15)] + [test.add(True, False) for _ in range(15)]
    assert verdicts[0] == Verdict.NO_DIFFERENCE and set(verdicts[14:]) == {Verdict.B_BETTER}
    with pytest.raises(AssertionError, match="30 planned pairs"):
        test.add(True, True)
