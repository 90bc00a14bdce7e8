"""Options of trainings, with their limits; importing this module takes no second."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from genima.io.files import NonNegative, Positive

IMAGENET, CLIP, SD_TURBO = "microsoft/resnet-18", "openai/clip-vit-base-patch32", "stabilityai/sd-turbo"
RANDOM, SMALL = "random", "small"  # in place of a ResNet; in place of a CLIP, and of a Stable Diffusion

Steps = Annotated[int, Field(ge=0, le=10**9)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Workers = Annotated[int, Field(ge=0, le=256)]
Samples = Annotated[int, Field(ge=1, le=10**6)]
InferenceSteps = Annotated[int, Field(ge=1, le=1000)]  # as many as Stable Diffusion was trained on
_Lightness = Annotated[float, Field(ge=0, le=1)]
_Hue = Annotated[float, Field(ge=0, le=0.5)]


@dataclass(frozen=True)
class LoopOptions:
    """Length and learning rate of a training."""

    batch_size: Annotated[int, Field(ge=1, le=2**20)]
    """Samples of an optimiser step, over all devices and accumulated parts."""
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    """Of AdamW."""
    epochs: Annotated[float, Field(gt=0, le=10**6)] = 200
    """Passes over all moments."""
    steps: Steps = 0
    """Optimiser steps; 0: as many as the epochs take."""
    weight_decay: NonNegative = 1e-2
    """Of AdamW."""
    schedule: Literal["constant_with_warmup", "cosine"] = "constant_with_warmup"
    """Of the learning rate."""
    cycles: Annotated[int, Field(ge=1, le=10**6)] = 1
    """Number of restarts of a cosine schedule: it falls to zero so many times."""
    warmup_steps: Steps = 500
    """Steps over which the learning rate rises."""
    gradient_clip: NonNegative = 1.0
    """Largest norm of the gradient; 0: not clipped."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the weights' exponential moving average, which is then what is kept; 0: none."""
    accumulate: Annotated[int, Field(ge=1, le=2**20)] = 1
    """Parts that a batch is computed in, one after the other, where memory is short."""
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = "auto"
    """auto: bf16 where the hardware is faster with it."""
    save_every: Annotated[int, Field(ge=1, le=10**9)] = 500
    """Steps between checkpoints, each with its validation."""
    workers: Workers = 2
    """Processes that prepare samples, for each device."""
    bar: tyro.conf.Suppress[int] = 0
    """Line of the progress bar, where several trainings share a screen."""
    seed: Seed = 0
    """Seed of all random numbers."""

    def for_moments(self, moments: int) -> LoopOptions:
        """With the number of steps that training on so many moments takes."""
        return self if self.steps else replace(self, steps=math.ceil(self.epochs * moments / self.batch_size))


@dataclass(frozen=True)
class DiffusionOptions:
    """Options of the diffusion agent's training; the defaults are those of the GENIMA paper (table 3)."""

    jitter: tuple[_Lightness, _Lightness, _Lightness, _Hue] = (0.2, 0.2, 0.1, 0.05)
    """Of the condition's brightness, contrast, saturation and hue; the target keeps its colours."""
    crop: Annotated[int, Field(ge=0, le=4096)] = 8
    """Pixels by which each view is shifted at most, condition and target together; 0: none."""
    sphere_weight: Positive = 1.0
    """Weight of a sphere's latents in the loss relative to the scene's, which only have to be copied."""
    validation_drawings: Samples = 16
    """Held-out drawings that are made at every checkpoint and read back."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, slower."""
    compile: bool = False
    """Compile the networks: faster after minutes of preparation."""
    half: bool = False
    """Store the weights in half precision."""


@dataclass(frozen=True)
class ControllerOptions:
    """Options of the controller's training; the defaults are those of the GENIMA paper (table 4, appendix E)."""

    backgrounds: Path | None = None
    """Folder of images to draw the spheres on; without it procedural textures."""
    augmentation: Literal["paper", "small"] = "paper"
    """paper: elastic, colours, crop, noise; small: frayed and blurred as a small diffusion model draws."""
    perturb: bool = False
    """Let starts and targets stray from the demos, so that it also follows targets beside them."""
    validation_chunks: Samples = 128
    """Held-out chunks that are predicted at every checkpoint."""
    half: bool = False
    """Store the weights in half precision."""
