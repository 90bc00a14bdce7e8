"""Attention between points in space that depends on their relative positions only.

Sources: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021; Gervet et al., Act3D, 2023, and
Ke et al., 3D Diffuser Actor, 2024 (in three dimensions).
"""

from __future__ import annotations

import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

# Every head rotates by all frequencies, 50 down to 1 rad/m at 30 channels: wavelengths of 12 cm to 6 m. In the source
# they are spread over the heads and end at 2 rad/m, which needs more data to find a small object.
_HIGHEST_FREQUENCY = 50.0  # rad/m
_FREQUENCY_RANGE = 100.0


class RelativeAttention(nn.Module):
    """Multi-head cross-attention with rotary position embeddings of points."""

    def __init__(self, width: int, heads: int) -> None:
        """``width`` is a multiple of 6 x ``heads``: sine and cosine for each of three axes."""
        super().__init__()
        self._heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, points: Tensor, context: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Attend from tokens (B, N, width) at points (B, N, 3) m to a context of :meth:`project`.

        ``mask`` (B, M) is true for tokens of the context that count.
        """
        key, value = context
        query = rotate(self._split(self.query(x)), points)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        output: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return output

    def project(self, context: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, heads, M, width / heads) of tokens (B, M, width) at points (B, M, 3) m."""
        return rotate(self._split(self.key(context)), points), self._split(self.value(context))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self._heads, -1)).transpose(1, 2)


def rotate(x: Tensor, points: Tensor) -> Tensor:
    """Rotate pairs of channels of (B, heads, N, C) by angles in proportion to points (B, N, 3) m; C is a multiple of 6.

    The product of two rotated vectors depends on the difference of their points.
    """
    batch, _, count, channels = x.shape
    angles = [
        get_1d_rotary_pos_embed(channels // 3, _HIGHEST_FREQUENCY * axis.flatten(), _FREQUENCY_RANGE, use_real=True)
        for axis in points.float().unbind(-1)
    ]
    cosine, sine = (torch.cat(parts, -1).view(batch, 1, count, channels) for parts in zip(*angles, strict=True))
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-imaginary, real], -1).flatten(-2)
    return (x * cosine + turned * sine).to(x.dtype)
