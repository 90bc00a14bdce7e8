"""Sampling options of policies that denoise action chunks; imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from genima.errors import GenimaError
from genima.system.command_line import check_options

SAMPLERS = "usual", "ddpm", "ddim", "warm_start", "edm", "truncated", "mean_flow"
SAMPLES = 1, 256
SAMPLER_STEPS = 0, 1000
MAX_SPREAD = 0.0, 10_000.0  # mm


@dataclass(frozen=True)
class ChunkSamplingOptions:
    """Sampling options: they change speed and result; docs/policies.md explains them.

    Raises:
        GenimaError: for a value outside its limits.
    """

    sampler: Literal["usual", "ddpm", "ddim", "warm_start", "edm", "truncated", "mean_flow"] = "usual"
    """Sampler that fits the training's objective; usual: the objective's first."""
    sampler_steps: Annotated[int, Field(ge=SAMPLER_STEPS[0], le=SAMPLER_STEPS[1])] = 0
    """Evaluations of the network for a chunk; 0: the sampler's usual ones."""
    real_time_chunking: bool = False
    """Fit a new chunk to the one that is being executed."""
    samples: Annotated[int, Field(ge=SAMPLES[0], le=SAMPLES[1])] = 1
    """Chunks to sample; from 2 on their spread is measured, and the first is executed."""
    max_spread: Annotated[float, Field(ge=MAX_SPREAD[0], le=MAX_SPREAD[1])] = 0.0
    """Spread in mm beyond which the chunk is refused: the arm is held, ./genima eval ends; 0: any."""

    def __post_init__(self) -> None:
        check_options(self, "chunk_sampling.")
        if self.max_spread and self.samples < 2:
            raise GenimaError(f"max_spread {self.max_spread:g}: one sample has no spread; take 2 or more samples")
