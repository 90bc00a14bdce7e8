"""Prompt embeddings for Stable Diffusion's networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prompts:
    """Batch of embedded prompts."""

    tokens: Tensor  # (B, length, channels)
    pooled: Tensor | None = None  # (B, channels), SDXL only

    def added_cond_kwargs(self, height: int, width: int) -> dict[str, Tensor] | None:
        """Return SDXL's additional conditions: pooled prompt and image sizes (original, crop, target)."""
        if self.pooled is None:
            return None
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=self.pooled.dtype, device=self.pooled.device)
        return {"text_embeds": self.pooled, "time_ids": sizes.expand(len(self.pooled), -1)}


class PromptEncoder:
    """Prompt encoder with one CLIP text encoder (Stable Diffusion, SD-Turbo) or two (SDXL)."""

    def __init__(self, tokenizers: Sequence[PreTrainedTokenizerBase], encoders: Sequence[PreTrainedModel]) -> None:
        self.tokenizers, self.encoders = tuple(tokenizers), tuple(encoders)
        self._cache: dict[str, Prompts] = {}

    def __call__(self, prompts: Sequence[str]) -> Prompts:
        """Embed a batch; prompts are cached while the encoders are frozen."""
        if any(p.requires_grad for encoder in self.encoders for p in encoder.parameters()):
            return self._embed(prompts)
        # Training uses prompts cached in validation: no inference tensors.
        with torch.inference_mode(False), torch.no_grad():
            for prompt in set(prompts) - set(self._cache):
                self._cache[prompt] = self._embed([prompt])
        cached = [self._cache[prompt] for prompt in prompts]
        device = self.encoders[0].device  # it may have changed since
        pooled = [p.pooled for p in cached if p.pooled is not None]
        return Prompts(
            torch.cat([p.tokens for p in cached]).to(device), torch.cat(pooled).to(device) if pooled else None
        )

    def _embed(self, prompts: Sequence[str]) -> Prompts:
        tokens, pooled = [], None
        for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True):
            length = encoder.config.max_position_embeddings  # tokenizers of damaged files have other lengths
            ids = tokenizer(
                list(prompts), padding="max_length", max_length=length, truncation=True,
                return_tensors="pt",
            ).input_ids.to(encoder.device)  # fmt: skip
            if len(self.encoders) == 1:
                return Prompts(encoder(ids).last_hidden_state)
            # SDXL uses the penultimate layer of both encoders, and the projection of the second.
            output = encoder(ids, output_hidden_states=True)
            tokens.append(output.hidden_states[-2])
            pooled = output[0]
        return Prompts(torch.cat(tokens, dim=-1), pooled)
