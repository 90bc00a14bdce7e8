"""Statistics of two policies on the same episodes: paired difference, McNemar's test, early stopping.

Sources: R. G. Newcombe, Statistics in Medicine 17 (1998), 2635-2650 (interval); Q. McNemar, Psychometrika 12 (1947),
153-157 (test); K. Kim and D. DeMets, Biometrika 74 (1987), 149-154 (spending function of the sequential test).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from genima.evaluation.success import Success

LEVEL = 0.05  # share of false alarms
_SPENDING_POWER = 2.0  # the level spent after the share t of the planned pairs is LEVEL t**2


class Verdict(StrEnum):
    """Outcome of a comparison."""

    A_BETTER = "A is better"
    B_BETTER = "B is better"
    NO_DIFFERENCE = "no difference found"


@dataclass(frozen=True)
class Difference:
    """Success rate of A minus that of B, with its 95% interval; -1..1."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.0%} ({self.low:+.0%} to {self.high:+.0%})"


class PairedOutcomes:
    """Outcomes of A and B, episode by episode, in the same initial states."""

    def __init__(self, a: ArrayLike, b: ArrayLike) -> None:
        """Args: a, b: successes (n,), bool; the same index is the same initial state."""
        self.a: NDArray[np.bool_] = np.asarray(a, bool)
        self.b: NDArray[np.bool_] = np.asarray(b, bool)
        assert self.a.ndim == 1 and self.a.shape == self.b.shape, (self.a.shape, self.b.shape)

    @classmethod
    def by_seed(cls, a: Mapping[int, bool], b: Mapping[int, bool]) -> PairedOutcomes:
        """Return the outcomes of the seeds that both have, in the order of the seeds."""
        seeds = sorted(a.keys() & b.keys())
        return cls([a[seed] for seed in seeds], [b[seed] for seed in seeds])

    @classmethod
    def pool(cls, groups: Iterable[PairedOutcomes]) -> PairedOutcomes:
        """Return the pairs of several tasks or conditions as one set."""
        pairs = [np.stack([group.a, group.b]) for group in groups]
        a, b = np.concatenate([np.zeros((2, 0), bool), *pairs], axis=1)
        return cls(a, b)

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.a)

    @property
    def both(self) -> int:
        """Pairs in which both succeeded."""
        return int((self.a & self.b).sum())

    @property
    def only_a(self) -> int:
        """Pairs in which A alone succeeded."""
        return int((self.a & ~self.b).sum())

    @property
    def only_b(self) -> int:
        """Pairs in which B alone succeeded."""
        return int((self.b & ~self.a).sum())

    @property
    def neither(self) -> int:
        """Pairs in which both failed."""
        return int((~self.a & ~self.b).sum())

    @property
    def success_a(self) -> Success:
        """Successes of A."""
        return Success(int(self.a.sum()), self.n)

    @property
    def success_b(self) -> Success:
        """Successes of B."""
        return Success(int(self.b.sum()), self.n)

    @property
    def difference(self) -> Difference:
        """Rate of A minus rate of B, with Newcombe's 95% interval (1998, method 10); at least one pair.

        The interval combines Wilson's of both rates by square-and-add, with the correlation of the pairs. SciPy and
        statsmodels 0.15 have Wilson's interval, but none of a paired difference.
        """
        rate_a, rate_b = self.success_a.rate, self.success_b.rate
        low_a, high_a = self.success_a.interval()
        low_b, high_b = self.success_b.interval()
        phi = self._correlation()

        def length(x: float, y: float) -> float:
            return float(np.sqrt(max(0.0, x**2 - 2 * phi * x * y + y**2)))

        value = rate_a - rate_b
        low = value - length(rate_a - low_a, high_b - rate_b)
        high = value + length(high_a - rate_a, rate_b - low_b)
        return Difference(value, max(-1.0, low), min(1.0, high))

    def _correlation(self) -> float:
        """Return the phi coefficient with Newcombe's continuity correction; 0 where a rate is 0 or 1."""
        successes = self.success_a.successes, self.success_b.successes
        margins = np.prod([count * (self.n - count) for count in successes], dtype=float)
        if margins == 0:
            return 0.0
        product = self.both * self.neither - self.only_a * self.only_b
        corrected = max(product - self.n / 2, 0.0) if product > 0 else float(product)
        return corrected / float(np.sqrt(margins))

    def mcnemar(self) -> float:
        """Return the two-sided p-value of McNemar's exact test: of a number of pairs that was fixed beforehand."""
        discordant = self.only_a + self.only_b
        return float(binomtest(self.only_a, discordant).pvalue) if discordant else 1.0

    def verdict(self) -> Verdict:
        """Return the verdict of McNemar's exact test at 5%."""
        if self.mcnemar() > LEVEL:
            return Verdict.NO_DIFFERENCE
        return Verdict.A_BETTER if self.only_a > self.only_b else Verdict.B_BETTER


class SequentialTest:
    """McNemar's exact test at 5% that may be looked at, and stopped by, after every pair.

    If neither policy is better, each discordant pair is a fair coin, whichever pairs are discordant. After the share t
    of the planned pairs the test may have raised a false alarm with probability 0.05 t**2 (Kim and DeMets, 1987); the
    limits follow from the exact distribution of the coin's walk among the campaigns that have not stopped. So the
    probability of a false alarm is at most 5% for every success rate and every correlation of the pairs. The number of
    pairs must be planned beforehand.

    Simulation of 2000 campaigns of at most 100 independent pairs, 80% against 60% success::

        test                                    finds the difference   pairs on average
        this one                                                 83%                 67
        spending 0.05 t (like Pocock)                            80%                 64
        spending like O'Brien and Fleming                        85%                 70
        McNemar's at 100 pairs                                   85%                100
        e-process, mixture over Beta(1, 1)                       63%                 71
        e-process, bets on 75% or 25%                            75%                 65

    Its false alarms in A-versus-A campaigns of 100 pairs, from the exact distribution: 4.6% at 50% success, 4.2% at
    80%, 2.6% at 95%.

    An e-process (Ramdas et al., Statistical Science 38 (2023), 576-601) needs no planned number, but more pairs. The
    same trade is in D. Snyder et al., "Is Your Imitation Learning Policy Better than Mine?", 2025.
    """

    def __init__(self, planned: int) -> None:
        """Args: planned: number of pairs after which the campaign ends."""
        self.pairs = 0  # so far
        self.verdict = Verdict.NO_DIFFERENCE
        self._planned = planned
        self._wins_a = 0  # discordant pairs that A won
        self._spent = 0.0  # probability of a false alarm so far
        self._walk = np.ones(1)  # probability of each number of wins of A without a decision, if neither is better

    @property
    def decided(self) -> bool:
        """Return whether a difference has been found."""
        return self.verdict != Verdict.NO_DIFFERENCE

    def add(self, a: bool, b: bool) -> Verdict:
        """Add the outcomes of a pair; return the verdict so far, which stays once a difference has been found."""
        self.pairs += 1
        assert self.pairs <= self._planned, f"more than the {self._planned} planned pairs"
        if self.decided or a == b:
            return self.verdict
        self._wins_a += a
        self._walk = np.convolve(self._walk, (0.5, 0.5))
        discordant = len(self._walk) - 1
        tails = np.cumsum(self._walk + self._walk[::-1])[: (discordant + 1) // 2]  # at most 0, 1, ... wins of either
        limit = LEVEL * (self.pairs / self._planned) ** _SPENDING_POWER - self._spent
        losses = int(np.searchsorted(tails, limit, side="right")) - 1  # the most with which the loser stops the test
        if losses < 0:
            return self.verdict
        self._spent += tails[losses]
        self._walk[: losses + 1] = self._walk[discordant - losses :] = 0.0
        if self._wins_a <= losses:
            self.verdict = Verdict.B_BETTER
        elif self._wins_a >= discordant - losses:
            self.verdict = Verdict.A_BETTER
        return self.verdict
