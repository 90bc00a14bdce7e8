"""Sampling options of policies that denoise action chunks; imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from genima.system.command_line import check_options

SAMPLES = 1, 256


@dataclass(frozen=True)
class ChunkSamplingOptions:
    """Sampling options: they change speed and result; docs/policies.md explains them.

    Raises:
        GenimaError: for a value outside its limits.
    """

    sampler: Literal["usual", "ddpm", "ddim", "warm_start", "edm", "truncated", "mean_flow"] = "usual"
    """Sampler that fits the training's objective; usual: the objective's first."""
    sampler_steps: Annotated[int, Field(ge=0, le=1000)] = 0
    """Evaluations of the network for a chunk; 0: the sampler's usual ones."""
    real_time_chunking: bool = False
    """Fit a new chunk to the one that is being executed."""
    samples: Annotated[int, Field(ge=SAMPLES[0], le=SAMPLES[1])] = 1
    """Chunks to sample; from 2 on their spread is measured, and the first is executed."""

    def __post_init__(self) -> None:
        check_options(self, "chunk_sampling.")
