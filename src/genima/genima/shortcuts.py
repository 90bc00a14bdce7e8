"""Options that make a drawing faster, and another one; importing this module takes no second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from genima.cli.options import check_options


@dataclass(frozen=True)
class Shortcuts:
    """What makes a drawing faster, and another one: docs/performance.md says by how much.

    Raises:
        GenimaError: for a value outside its limits.
    """

    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Diffusion steps of a drawing; default: the checkpoint's."""
    strength: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The share of the steps that is done where there is a drawing of a moment ago to start from."""
    controlnet_every: Annotated[int, Field(ge=1, le=1000)] = 1
    """Steps; in those between, the ControlNet's last word stands."""
    tiny_decoder: str | None = None
    """An AutoencoderTiny (TAESD's kind), on the hub or in a folder, that decodes in the autoencoder's place."""

    def __post_init__(self) -> None:
        check_options(self, "drawing.")
