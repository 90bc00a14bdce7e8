"""Pre-trained base models: Stable Diffusion, SD-Turbo, SDXL-Turbo, from the hub or a local folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from huggingface_hub import hf_hub_download
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from genima.errors import GenimaError
from genima.io import hub, model_files
from genima.io.files import read_json
from genima.policy.diffusion_agent.prompts import PromptEncoder

_INDEX = "model_index.json"
_NETWORKS: dict[str, Any] = {
    "unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}  # fmt: skip


@dataclass(frozen=True)
class BaseModel:
    """Frozen parts of a base model; checkpoints name it without copying the weights."""

    name: str
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    prompts: PromptEncoder
    scheduler: SchedulerMixin
    fingerprint: str  # of the weights


def load_base(name: str) -> BaseModel:
    """Load a hub model such as ``stabilityai/sd-turbo`` or a local folder, in single precision and frozen.

    Raises:
        GenimaError: for a model found neither locally nor on the hub, or of another kind.
    """
    if Path(name).is_dir():
        name = str(Path(name).resolve())  # stored in checkpoints
    diffusers.utils.logging.disable_progress_bar()
    pipeline = hub.load(_load_pipeline, name, "the base model", "train the small one (--base small)")
    return base_from_pipeline(name, pipeline)


def _load_pipeline(name: str, **options: Any) -> DiffusionPipeline:
    """Load a pipeline from a folder or the hub: safetensors and classes of Stable Diffusion only."""
    folder = Path(name)
    if folder.is_dir():
        for part, kind in _NETWORKS.items():
            if (folder / part).is_dir():
                config = CLIPTextConfig.from_pretrained(folder / part) if part.startswith("text") else None
                model_files.require_network(kind, folder / part, config)
    else:
        index = Path(hf_hub_download(name, _INDEX, local_files_only=options.get("local_files_only", False)))
        model_files.require_known_parts(read_json(index, "model configuration"), index)
    return DiffusionPipeline.from_pretrained(
        name, dtype=torch.float32, use_safetensors=True, low_cpu_mem_usage=False, trust_remote_code=False,
        **options,
    )  # fmt: skip


def base_from_pipeline(name: str, pipeline: DiffusionPipeline) -> BaseModel:
    """Return the parts of a loaded pipeline.

    Raises:
        GenimaError: for another pipeline than Stable Diffusion's.
    """
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
