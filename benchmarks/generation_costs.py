"""Operations and memory traffic of generating a target, counted on shapes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderTiny, ControlNetModel
from random_base import Size, random_base
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from training_costs import Gpu

TEXT, CONDITION, CONTROLNET, UNET = "text encoder", "condition's embedding", "ControlNet", "UNet"
ENCODER, DECODER, TINY_DECODER = "autoencoder, encoding", "autoencoder, decoding", "tiny autoencoder, decoding"
_BYTES = 2  # a weight in half precision


@dataclass(frozen=True)
class Part:
    """Pass of a network."""

    operations: float  # FLOP, of products
    weight_bytes: int

    def floor(self, gpu: Gpu) -> float:
        """Seconds: its products at the device's peak, or its weights through the device's memory."""
        return max(self.operations / gpu.operations, self.weight_bytes / gpu.bandwidth)


@dataclass(frozen=True)
class Costs:
    """Costs of a target in half precision."""

    parts: Mapping[str, Part]

    def floor(self, gpu: Gpu, steps: int, controlnet_every: int = 1, tiny_decoder: bool = False) -> float:
        """Return the lower bound in s. The prompt is embedded once a task, and pixels need no encoding."""
        passes = {
            CONDITION: 1,
            CONTROLNET: -(-steps // controlnet_every),
            UNET: steps,
            TINY_DECODER if tiny_decoder else DECODER: 1,
        }
        return sum(count * self.parts[name].floor(gpu) for name, count in passes.items())


@functools.cache
def count(size: Size, side: int, batch: int = 1) -> Costs:
    """Count the costs of ``batch`` images of ``side`` px, for networks of the shapes of ``random_base(size)``."""
    pipeline = random_base(size, device="meta")
    with torch.device("meta"):
        controlnet, tiny = ControlNetModel.from_unet(pipeline.unet), AutoencoderTiny()
        pixels, t = torch.rand(batch, 3, side, side), torch.zeros(batch)
        latents = torch.rand(batch, 4, side // 8, side // 8)
        ids = torch.zeros(batch, pipeline.tokenizer.model_max_length, dtype=torch.long)
        tokens = torch.rand(batch, ids.shape[1], pipeline.unet.config.cross_attention_dim)
        embedder = controlnet.controlnet_cond_embedding
        embedding = _part(lambda: embedder(pixels), embedder)
        control = _part(lambda: controlnet(latents, t, tokens, pixels), controlnet)
        vae = pipeline.vae
        return Costs({
            TEXT: _part(lambda: pipeline.text_encoder(ids), pipeline.text_encoder),
            CONDITION: embedding,
            CONTROLNET: Part(
                control.operations - embedding.operations, control.weight_bytes - embedding.weight_bytes
            ),
            UNET: _part(lambda: pipeline.unet(latents, t, tokens), pipeline.unet),
            ENCODER: _part(lambda: vae.encode(pixels), vae.encoder, vae.quant_conv),
            DECODER: _part(lambda: vae.decode(latents), vae.decoder, vae.post_quant_conv),
            TINY_DECODER: _part(lambda: tiny.decode(latents), tiny.decoder),
        })  # fmt: skip


def _part(run: Callable[[], Any], *networks: nn.Module) -> Part:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    weights = sum(parameter.numel() for network in networks for parameter in network.parameters())
    return Part(float(counter.get_total_flops()), _BYTES * weights)
