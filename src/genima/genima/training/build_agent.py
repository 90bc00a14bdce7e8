"""Untrained diffusion agents: on a pre-trained base model, or small and from scratch."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from diffusers import ControlNetModel, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from torch import nn

from genima.data.datasets.diffusion_samples import DiffusionDataset
from genima.data.datasets.sample_index import SampleIndex
from genima.data.datasets.target_dataset import TargetDataset
from genima.errors import GenimaError
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.pretrained_base import BaseModel, load_base
from genima.policy.diffusion_agent.small import small_agent
from genima.policy.spec import TARGETS, PolicySpec
from genima.training.options import SMALL

_UNTILED_PROMPT = "the {view} view of a robot arm executing '{goal}'"
_CODEC_SAMPLES = 256  # pictures that fit the small agent's codec


def build_agent(
    base: str,
    targets: TargetDataset,
    conditioning: Literal["controlnet", "unet"] = "controlnet",
    tiled: bool = True,
    steps: int = 10,
    seed: int = 0,
    draws: str = TARGETS,
) -> DiffusionAgent:
    """Return an untrained agent for a dataset, deterministic in its arguments.

    Raises:
        GenimaError: when loading the base model fails.
    """
    torch.manual_seed(seed)
    if base != SMALL:
        agent = agent_from_base(load_base(base), targets.spec, conditioning, tiled, steps)
        agent.draws = draws
        return agent
    chosen = np.random.default_rng(seed).choice(len(targets), min(_CODEC_SAMPLES, len(targets)), replace=False)
    samples = DiffusionDataset(targets, np.sort(chosen), draws)
    drawn = torch.stack([samples[SampleIndex(i, i)].target for i in range(len(samples))])
    frames = drawn.permute(0, 3, 1, 2).float() / 127.5 - 1
    agent = small_agent(_spec(targets.spec, tiled), targets.moments.instructions, frames, steps, conditioning)
    agent.tiled, agent.draws = tiled, draws
    return agent


def agent_from_base(
    base: BaseModel,
    spec: PolicySpec,
    conditioning: Literal["controlnet", "unet"] = "controlnet",
    tiled: bool = True,
    steps: int = 10,
) -> DiffusionAgent:
    """Return an agent on a base model: only its ControlNet or UNet, initialised from the base, is trainable.

    Raises:
        GenimaError: for a ControlNet on an InstructPix2Pix.
    """
    scheduler = EulerAncestralDiscreteScheduler.from_config(base.scheduler.config, timestep_spacing="trailing")
    unet, controlnet = base.unet, None
    if conditioning == "controlnet":
        if unet.config.in_channels != unet.config.out_channels:
            raise GenimaError(f"--base {base.name}: an InstructPix2Pix has no ControlNet; use --conditioning unet")
        controlnet = ControlNetModel.from_unet(unet)
        controlnet.requires_grad_(True)
    else:
        _widen_input(unet)
        unet.requires_grad_(True)
    return DiffusionAgent(_spec(spec, tiled), unet, controlnet, base.vae, base.prompts, scheduler, steps, tiled, base)


def _spec(spec: PolicySpec, tiled: bool) -> PolicySpec:
    return spec if tiled else replace(spec, prompt_template=_UNTILED_PROMPT)


def _widen_input(unet: UNet2DConditionModel) -> None:
    """Widen the UNet's input by the scene's latents, with weights initialised to zero.

    Source: Brooks et al., InstructPix2Pix, 2023, section 3.2.
    """
    if unet.config.in_channels == 2 * unet.config.out_channels:
        return  # an InstructPix2Pix
    old = unet.conv_in
    wide = nn.Conv2d(2 * old.in_channels, old.out_channels, old.kernel_size, padding=old.padding)
    with torch.no_grad():
        wide.weight.zero_()
        wide.weight[:, : old.in_channels].copy_(old.weight)
        wide.bias = old.bias
    unet.conv_in = wide
    unet.register_to_config(in_channels=2 * old.in_channels)
