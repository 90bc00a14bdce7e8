"""Base models with random weights: of a full model's exact shape to measure speed, or tiny ones to test with."""

from __future__ import annotations

from typing import Literal

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from genima.policy.small_text_encoder import small_tokenizer

Size = Literal["sd-turbo", "tiny", "tiny-xl"]
_TOKENS = 77


def random_base(
    size: Size, seed: int = 0, device: torch.device | str = "cpu"
) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    """A pipeline of SD-Turbo's shape (865.9 million parameters in the UNet), or a tiny one of SD's or SDXL's kind.

    The weights are drawn on ``device``; on ``meta`` there are only their shapes.
    """
    torch.manual_seed(seed)
    scheduler = EulerDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, timestep_spacing="trailing"
    )
    with torch.device(device):
        if size == "sd-turbo":
            unet = _unet((320, 640, 1280, 1280), (5, 10, 20, 20), text_width=1024)
            vae = _vae((128, 256, 512, 512), layers=2, groups=32)
            encoder = CLIPTextModel(_text(1024, layers=23, heads=16, vocabulary=49408))
        elif size == "tiny":
            unet = _unet((32, 64), (4, 8), text_width=32, groups=8, layers=1)
            vae = _vae((8, 8, 16, 16), layers=1, groups=4)
            encoder = CLIPTextModel(_text(32))
        else:
            return _tiny_xl(scheduler)
    return StableDiffusionPipeline(
        vae=vae, text_encoder=encoder, tokenizer=_tokenizer(), unet=unet, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _tiny_xl(scheduler: EulerDiscreteScheduler) -> StableDiffusionXLPipeline:
    first, second = CLIPTextModel(_text(32)), CLIPTextModelWithProjection(_text(32))
    unet = _unet(
        (32, 64), (4, 8), text_width=64, groups=8, layers=1,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=32 + 6 * 8,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=_vae((8, 8, 16, 16), layers=1, groups=4), text_encoder=first, text_encoder_2=second,
        tokenizer=_tokenizer(), tokenizer_2=_tokenizer(), unet=unet, scheduler=scheduler, add_watermarker=False,
    )  # fmt: skip


def _unet(
    widths: tuple[int, ...], heads: tuple[int, ...], text_width: int, groups: int = 32, layers: int = 2, **more: object
) -> UNet2DConditionModel:
    plain = len(widths) - 1
    return UNet2DConditionModel(
        sample_size=64, in_channels=4, out_channels=4, block_out_channels=widths, layers_per_block=layers,
        down_block_types=("CrossAttnDownBlock2D",) * plain + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * plain,
        attention_head_dim=heads, cross_attention_dim=text_width, norm_num_groups=groups, use_linear_projection=True,
        **more,
    )  # fmt: skip


def _vae(widths: tuple[int, ...], layers: int, groups: int) -> AutoencoderKL:
    n = len(widths)
    return AutoencoderKL(
        block_out_channels=widths, layers_per_block=layers, norm_num_groups=groups, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n,
        scaling_factor=0.18215,
    )  # fmt: skip


def _text(width: int, layers: int = 2, heads: int = 4, vocabulary: int = 512) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=_TOKENS, projection_dim=width, hidden_act="gelu",
    )  # fmt: skip


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = small_tokenizer(["tiled perspectives of a robot arm executing"])
    tokenizer.model_max_length = _TOKENS
    return tokenizer
