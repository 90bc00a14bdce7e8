"""Pre-trained image models to start from: Stable Diffusion, SD-Turbo, SDXL-Turbo, from the hub or a local folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    SchedulerMixin,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from genima import hub
from genima.diffusion.prompts import PromptEncoder
from genima.errors import GenimaError


@dataclass(frozen=True)
class BaseModel:
    """The frozen parts that a diffusion agent shares with others; checkpoints name them instead of copying them."""

    name: str
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    prompts: PromptEncoder
    scheduler: SchedulerMixin
    fingerprint: str  # of the weights


def load_base(name: str) -> BaseModel:
    """Load a hub model such as ``stabilityai/sd-turbo`` or a local folder, in single precision and frozen.

    Raises:
        GenimaError: when it can be found neither locally nor on the hub, or is no Stable Diffusion.
    """
    if Path(name).is_dir():
        name = str(Path(name).resolve())  # it is remembered in checkpoints
    diffusers.utils.logging.disable_progress_bar()
    pipeline = hub.load(
        lambda name, **options: DiffusionPipeline.from_pretrained(
            name, torch_dtype=torch.float32, use_safetensors=True, low_cpu_mem_usage=False, **options
        ),
        name, "the base model", "train the small one (--base small)",
    )  # fmt: skip
    return base_of(name, pipeline)


def base_of(name: str, pipeline: DiffusionPipeline) -> BaseModel:
    """The parts of a loaded pipeline; GenimaError when it is no Stable Diffusion."""
    if isinstance(pipeline, StableDiffusionXLPipeline | StableDiffusionXLInstructPix2PixPipeline):
        encoders = [pipeline.text_encoder, pipeline.text_encoder_2]
        prompts = PromptEncoder([pipeline.tokenizer, pipeline.tokenizer_2], encoders)
    elif isinstance(pipeline, StableDiffusionPipeline | StableDiffusionInstructPix2PixPipeline):
        encoders = [pipeline.text_encoder]
        prompts = PromptEncoder([pipeline.tokenizer], encoders)
    else:
        raise GenimaError(f"base model {name} is a {type(pipeline).__name__}, not a Stable Diffusion or SDXL pipeline")
    modules = (pipeline.unet, pipeline.vae, *encoders)
    for module in modules:
        module.requires_grad_(False).eval()
    return BaseModel(name, pipeline.unet, pipeline.vae, prompts, pipeline.scheduler, hub.fingerprint(*modules))
