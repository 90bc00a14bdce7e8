"""Encoder and decoder halves of Stable Diffusion's UNet and ControlNet, which can run in parallel.

Modules and order are those of diffusers' ``UNet2DConditionModel`` and ``ControlNetModel``; a test compares the results.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

Network = Any  # a UNet2DConditionModel or ControlNetModel; diffusers has no types
Skips = tuple[Tensor, ...]


def time_embedding(network: Network, t: float, batch: int, added: dict[str, Tensor] | None) -> Tensor:
    """Embed the time and, in SDXL, the pooled prompt: (batch, channels)."""
    dtype, device = network.dtype, network.device
    embedded = network.time_embedding(network.time_proj(torch.full((batch,), t, device=device)).to(dtype))
    if added is None:
        return embedded
    sizes = network.add_time_proj(added["time_ids"].flatten()).reshape(batch, -1)
    return embedded + network.add_embedding(torch.cat([added["text_embeds"], sizes], -1).to(dtype))


def controlnet_residuals(
    network: ControlNetModel, noisy: Tensor, embedded: Tensor, tokens: Tensor, condition: Tensor
) -> Skips:
    """Return the ControlNet's residuals for the UNet's skip connections and, last, its middle block.

    Args:
        condition: of :attr:`ControlNetModel.controlnet_cond_embedding`.
    """
    middle, skips = _run_down_blocks(network, network.conv_in(noisy) + condition, embedded, tokens)
    blocks = zip(network.controlnet_down_blocks, skips, strict=True)
    return (*(block(skip) for block, skip in blocks), network.controlnet_mid_block(middle))


def encode(network: UNet2DConditionModel, noisy: Tensor, embedded: Tensor, tokens: Tensor) -> tuple[Tensor, Skips]:
    """Run the UNet's encoder: middle block and skip connections."""
    return _run_down_blocks(network, network.conv_in(noisy), embedded, tokens)


def decode(
    network: UNet2DConditionModel, middle: Tensor, skips: Skips, added: Skips, embedded: Tensor, tokens: Tensor
) -> Tensor:
    """Run the UNet's decoder to its prediction.

    Args:
        added: residuals of :func:`controlnet_residuals`; empty without a ControlNet.
    """
    if added:
        middle = middle + added[-1]
        skips = tuple(skip + more for skip, more in zip(skips, added[:-1], strict=True))
    x = middle
    for block in network.up_blocks:
        n = len(block.resnets)
        skips, own = skips[:-n], skips[-n:]
        size = skips[-1].shape[2:] if skips else None
        x = block(
            hidden_states=x, res_hidden_states_tuple=own, temb=embedded, upsample_size=size, **_text(block, tokens)
        )
    return network.conv_out(network.conv_act(network.conv_norm_out(x)))


def _run_down_blocks(network: Network, x: Tensor, embedded: Tensor, tokens: Tensor) -> tuple[Tensor, Skips]:
    skips: Skips = (x,)
    for block in network.down_blocks:
        x, own = block(hidden_states=x, temb=embedded, **_text(block, tokens))
        skips += own
    return network.mid_block(x, embedded, **_text(network.mid_block, tokens)), skips


def _text(block: torch.nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": tokens} if getattr(block, "has_cross_attention", False) else {}
