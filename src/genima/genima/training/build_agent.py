"""Diffusion agents to be trained: on a pre-trained base model, or small and from scratch."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from diffusers import ControlNetModel, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from torch import nn

from genima.data.datasets.target_dataset import TargetDataset
from genima.errors import GenimaError
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.pretrained_base import BaseModel, load_base
from genima.policy.diffusion_agent.small import small_agent
from genima.policy.spec import PolicySpec
from genima.training.options import SMALL

_UNTILED_PROMPT = "the {view} view of a robot arm executing '{goal}'"
_FOR_CODEC = 256  # drawings that the small agent's codec is fitted to


def build_agent(
    base: str,
    targets: TargetDataset,
    conditioning: Literal["controlnet", "unet"] = "controlnet",
    tiled: bool = True,
    steps: int = 10,
    seed: int = 0,
) -> DiffusionAgent:
    """An untrained agent for a dataset, the same for the same arguments.

    Raises:
        GenimaError: when the base model cannot be loaded.
    """
    torch.manual_seed(seed)
    if base != SMALL:
        return agent_on(load_base(base), targets.spec, conditioning, tiled, steps)
    if conditioning != "controlnet":
        raise GenimaError(f"--conditioning {conditioning} needs a pre-trained --base; {SMALL} has a ControlNet")
    chosen = np.random.default_rng(seed).choice(len(targets), min(_FOR_CODEC, len(targets)), replace=False)
    drawn = torch.stack([torch.from_numpy(targets.drawn(int(i))[1]) for i in np.sort(chosen)])
    frames = drawn.permute(0, 3, 1, 2).float() / 127.5 - 1
    agent = small_agent(_spec(targets.spec, tiled), targets.moments.instructions, frames, steps)
    agent.tiled = tiled
    return agent


def agent_on(
    base: BaseModel,
    spec: PolicySpec,
    conditioning: Literal["controlnet", "unet"] = "controlnet",
    tiled: bool = True,
    steps: int = 10,
) -> DiffusionAgent:
    """An agent whose ControlNet, or whose UNet, starts from the base's weights and is all that is trained.

    Raises:
        GenimaError: for a ControlNet on an InstructPix2Pix.
    """
    scheduler = EulerAncestralDiscreteScheduler.from_config(base.scheduler.config, timestep_spacing="trailing")
    unet, controlnet = base.unet, None
    if conditioning == "controlnet":
        if unet.config.in_channels != unet.config.out_channels:
            raise GenimaError(f"{base.name} is an InstructPix2Pix, which takes the scene itself; --conditioning unet")
        controlnet = ControlNetModel.from_unet(unet)
        controlnet.requires_grad_(True)
    else:
        _widen_input(unet)
        unet.requires_grad_(True)
    return DiffusionAgent(_spec(spec, tiled), unet, controlnet, base.vae, base.prompts, scheduler, steps, tiled, base)


def _spec(spec: PolicySpec, tiled: bool) -> PolicySpec:
    return spec if tiled else replace(spec, prompt_template=_UNTILED_PROMPT)


def _widen_input(unet: UNet2DConditionModel) -> None:
    """Let the UNet take the scene's latents beside the noisy ones, by weights that are zero at first.

    Source: Brooks et al., InstructPix2Pix, 2023, section 3.2.
    """
    if unet.config.in_channels == 2 * unet.config.out_channels:
        return  # it is an InstructPix2Pix already
    old = unet.conv_in
    wide = nn.Conv2d(2 * old.in_channels, old.out_channels, old.kernel_size, padding=old.padding)
    with torch.no_grad():
        wide.weight.zero_()
        wide.weight[:, : old.in_channels].copy_(old.weight)
        wide.bias = old.bias
    unet.conv_in = wide
    unet.register_to_config(in_channels=2 * old.in_channels)
