"""Sampling options of the diffusion model; imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from genima.system.command_line import check_options

STEPS = 1, 1000  # up to the scheduler's training steps
STRENGTH = 0.001, 1.0  # one of 1000 steps to all
CONTROLNET_EVERY = 1, 1000  # steps


@dataclass(frozen=True)
class SamplingOptions:
    """Sampling options: they change speed and result; docs/performance.md has the figures.

    Raises:
        GenimaError: for a value outside its limits.
    """

    steps: Annotated[int, Field(ge=STEPS[0], le=STEPS[1])] | None = None
    """Diffusion steps of a drawn target; default: the checkpoint's."""
    strength: Annotated[float, Field(ge=STRENGTH[0], le=STRENGTH[1])] = 1.0
    """Fraction of the steps to run from the previous drawn target; 1: all, from noise."""
    controlnet_every: Annotated[int, Field(ge=CONTROLNET_EVERY[0], le=CONTROLNET_EVERY[1])] = 1
    """Steps between evaluations of the ControlNet; its last output is reused."""
    tiny_decoder: str | None = None
    """AutoencoderTiny (such as TAESD), on the hub or in a folder, in place of the autoencoder's decoder."""

    def __post_init__(self) -> None:
        check_options(self, "sampling.")
