"""Small diffusion agent that trains from scratch on a CPU: a hundredth of Stable Diffusion's size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.patch_autoencoder import PatchCodec
from genima.policy.diffusion_agent.prompts import PromptEncoder
from genima.policy.small_text_encoder import small_text_encoder, small_tokenizer
from genima.policy.spec import PolicySpec

_LATENT_CHANNELS = 64
_TEXT_WIDTH = 64


def small_agent(
    spec: PolicySpec,
    instructions: Iterable[str],
    images: Tensor,
    steps: int = 1,
    conditioning: Literal["controlnet", "unet"] = "controlnet",
) -> DiffusionAgent:
    """Return an agent with random networks and a patch codec fitted to ``images`` (B, 3, H, W) in -1..1.

    It predicts the clean sample under a schedule whose last step is pure noise (Lin et al., Common Diffusion Noise
    Schedules and Sample Steps are Flawed, 2023), so that few steps from pure noise suffice, or one.
    """
    tokenizer = small_tokenizer(spec.prompt(instruction, view) for instruction in instructions for view in spec.views)
    codec = PatchCodec(latent_channels=_LATENT_CHANNELS)
    codec.fit(images)
    unet = UNet2DConditionModel(
        sample_size=spec.view_size // 4,
        in_channels=_LATENT_CHANNELS * (1 if conditioning == "controlnet" else 2),
        out_channels=_LATENT_CHANNELS,
        block_out_channels=(64, 96, 128),
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=_TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    controlnet = None
    if conditioning == "controlnet":
        controlnet = ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=(64,), conditioning_channels=_LATENT_CHANNELS
        )
        _randomise_zero_layers(controlnet)
    scheduler = DDIMScheduler(
        prediction_type="sample", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False
    )
    prompts = PromptEncoder([tokenizer], [small_text_encoder(tokenizer, _TEXT_WIDTH)])
    agent = DiffusionAgent(spec, unet, controlnet, codec, prompts, scheduler, steps)
    for module in agent.modules.values():
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return agent


def _randomise_zero_layers(controlnet: ControlNetModel) -> None:
    """Initialise the ControlNet's zero layers with random weights.

    Zeros protect a pre-trained UNet from an untrained ControlNet. Here both are untrained, and zeros would block the
    gradients of the condition for hundreds of steps.
    """
    layers = [
        controlnet.controlnet_cond_embedding.conv_out,
        *controlnet.controlnet_down_blocks,
        controlnet.controlnet_mid_block,
    ]
    for layer in layers:
        layer.reset_parameters()
    with torch.no_grad():
        controlnet.conv_in.weight.mul_(0.1)  # initially the condition dominates the noise
