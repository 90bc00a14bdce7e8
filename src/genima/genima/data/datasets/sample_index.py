"""Training samples of demos, and their indices."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError


class SampleIndex(NamedTuple):
    """Index of a sample, and its running number in the training, which seeds its randomness."""

    moment: int
    sample: int


@dataclass(frozen=True)
class TargetSamples:
    """N samples of demos; joints in the robot model's order, K = the specification's horizon."""

    episode: NDArray[np.str_]  # (N,) name
    instruction: NDArray[np.str_]  # (N,)
    positions: NDArray[np.float64]  # (N, n) rad, measured
    gripper: NDArray[np.float64]  # (N,) measured open fraction
    target: NDArray[np.float64]  # (N, n) rad, measured K steps later, or at the episode's end
    target_open: NDArray[np.bool_]  # (N,) gripper open at the target
    actions: NDArray[np.float64]  # (N, K, n) rad, commanded after the moment
    action_gripper: NDArray[np.float64]  # (N, K) commanded open fraction
    padding: NDArray[np.bool_]  # (N, K) true past the episode's end

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.integer] | slice) -> TargetSamples:
        """Return the selected samples."""
        return TargetSamples(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def fingerprint(self) -> str:
        """Return a hash of all samples."""
        digest = hashlib.sha256()
        for field in fields(self):
            digest.update(np.ascontiguousarray(getattr(self, field.name)).tobytes())
        return digest.hexdigest()[:16]

    @property
    def instructions(self) -> list[str]:
        """Return the different instructions, sorted."""
        return sorted({str(text) for text in np.unique(self.instruction)})


def hold_out(episodes: Sequence[str], share: float = 0.05) -> list[str]:
    """Return the episodes for validation: every n-th, one at least.

    Raises:
        GenimaError: for fewer than two episodes.
    """
    if len(episodes) < 2:
        raise GenimaError(f"training needs at least two demos, there are {len(episodes)}")
    every = min(len(episodes), max(2, round(1 / share)))
    return list(episodes[every - 1 :: every])
