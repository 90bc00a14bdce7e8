"""Success rates, and blank targets as the control experiment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from genima.policy.spec import PolicySpec
from genima.types import DrawnTarget, Observation


@dataclass(frozen=True)
class Success:
    """Successes of a number of episodes."""

    successes: int
    episodes: int

    @property
    def rate(self) -> float:
        """Share of successes, 0..1."""
        return self.successes / self.episodes

    def interval(self) -> tuple[float, float]:
        """Wilson's 95% confidence interval of the rate (SciPy)."""
        interval = binomtest(self.successes, self.episodes).proportion_ci(0.95, method="wilson")
        return float(interval.low), float(interval.high)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.successes} of {self.episodes} ({self.rate:.0%}, 95% interval {low:.0%} to {high:.0%})"


@dataclass(frozen=True)
class BlankTargets:
    """Stand-in for the diffusion agent: grey targets. Success with them does not come from drawn targets."""

    spec: PolicySpec

    def generate(self, observation: Observation, seed: int, previous: DrawnTarget | None = None) -> DrawnTarget:
        """Return a grey tile."""
        tile = np.full((*self.spec.tile_size, 3), 127, np.uint8)
        return DrawnTarget(observation.stamp, observation.instruction, self.spec.views, tile, seed=seed)
