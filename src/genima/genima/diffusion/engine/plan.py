"""How an engine draws: what leaves the drawing as it is, by device, and what does not, by the user's choice."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import torch

from genima.errors import GenimaError
from genima.precision import is_half_fast


@dataclass(frozen=True)
class Plan:
    """What an engine does to draw fast, and the same within the noise of ``precision``."""

    precision: torch.dtype = torch.float32  # of networks and latents; the sampling itself is in single precision
    channels_last: bool = True
    fused_attention: bool = True  # one product for queries, keys and values
    compile: bool = False  # by torch.compile; minutes the first time, then from its cache on disk
    cuda_graph: bool = False  # the whole drawing is launched at once
    overlap: bool = False  # the ControlNet runs beside the UNet's first half


@dataclass(frozen=True)
class Shortcuts:
    """What makes a drawing faster, and another one: docs/performance.md says by how much."""

    steps: int | None = None
    """Diffusion steps of a drawing; default: the checkpoint's."""
    strength: float = 1.0
    """The share of the steps that is done where there is a drawing of a moment ago to start from."""
    controlnet_every: int = 1
    """Steps; in those between, the ControlNet's last word stands."""
    tiny_decoder: str | None = None
    """An AutoencoderTiny (TAESD's kind), on the hub or in a folder, that decodes in the autoencoder's place."""

    def __post_init__(self) -> None:
        """Raise a GenimaError for what cannot be."""
        if self.controlnet_every < 1 or (self.steps is not None and self.steps < 1):
            raise GenimaError("a drawing takes at least one step, and asks the ControlNet every 1 or more steps")


def plans(device: torch.device) -> tuple[Plan, ...]:
    """The plans for a device, fastest first; each takes less memory and fewer of the device's abilities than the last.

    Half precision on a GPU is float16: with three bits more than bfloat16 it is nearer to single precision, and
    networks of Stable Diffusion's kind stay within its range. An engine sees when one does not, and goes on.
    """
    if device.type == "cuda":
        eager = Plan(torch.float16)
        wide = [Plan(torch.bfloat16)] if is_half_fast(device) else []
        return (
            replace(eager, compile=True, cuda_graph=True, overlap=True), replace(eager, cuda_graph=True), eager,
            *wide, Plan(),
        )  # fmt: skip
    return (Plan(torch.bfloat16), Plan()) if is_half_fast(device) else (Plan(),)


def spare_threads() -> int:
    """Of a CPU that draws beside cameras and control: half of its cores. Threads that wait for a busy core cost more
    than they do."""
    return max(1, len(os.sched_getaffinity(0)) // 2)
