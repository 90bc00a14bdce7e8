"""Options that make a drawing faster, and another one; importing this module takes no second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from genima.system.command_line import check_options

STEPS = 1, 1000  # as many as the scheduler was trained with
STRENGTH = 0.001, 1.0  # one of 1000 steps, all
CONTROLNET_EVERY = 1, 1000  # steps


@dataclass(frozen=True)
class SamplingOptions:
    """Options that make a drawing faster, and another one: docs/performance.md has the figures.

    Raises:
        GenimaError: for a value outside its limits.
    """

    steps: Annotated[int, Field(ge=STEPS[0], le=STEPS[1])] | None = None
    """Diffusion steps of a drawing; default: the checkpoint's."""
    strength: Annotated[float, Field(ge=STRENGTH[0], le=STRENGTH[1])] = 1.0
    """The share of the steps that is done where there is a drawing of a moment ago to start from."""
    controlnet_every: Annotated[int, Field(ge=CONTROLNET_EVERY[0], le=CONTROLNET_EVERY[1])] = 1
    """Steps between evaluations of the ControlNet; its last output is reused."""
    tiny_decoder: str | None = None
    """An AutoencoderTiny (TAESD's kind), on the hub or in a folder, that decodes in the autoencoder's place."""

    def __post_init__(self) -> None:
        check_options(self, "drawing.")
