"""Training samples of demos, and their indices."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


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
