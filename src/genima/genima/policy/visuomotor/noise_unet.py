"""1-D UNet that denoises action chunks, conditioned by FiLM.

Source: Chi et al., Diffusion Policy: Visuomotor Policy Learning via Action Diffusion, 2023 (the CNN-based policy).
From diffusers: ``Conv1dBlock`` (convolution, group normalisation, Mish), ``Downsample1D``, ``Upsample1D``,
``Timesteps`` and ``TimestepEmbedding``. Its ``ResidualTemporalBlock1D`` adds the condition and cannot scale by it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.downsampling import Downsample1D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import Conv1dBlock
from diffusers.models.upsampling import Upsample1D
from torch import Tensor, nn
from torch.nn import functional as F


class FilmResidualBlock(nn.Module):
    """Two convolutions with a shortcut; a condition scales and shifts the features between them."""

    def __init__(self, inputs: int, outputs: int, condition: int, kernel: int) -> None:
        super().__init__()
        self.first, self.second = Conv1dBlock(inputs, outputs, kernel), Conv1dBlock(outputs, outputs, kernel)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(condition, 2 * outputs))
        self.shortcut = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Transform features (B, inputs, K) to (B, outputs, K)."""
        gamma, beta = self.film(condition)[..., None].chunk(2, dim=1)
        return self.second((1 + gamma) * self.first(x) + beta) + self.shortcut(x)


class UNetLevel(nn.Module):
    """Two residual blocks, and the layer to the next resolution."""

    def __init__(self, first: FilmResidualBlock, second: FilmResidualBlock, resample: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.resample = first, second, resample

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features before and after resampling."""
        x = self.second(self.first(x, condition), condition)
        return x, self.resample(x)


class NoiseUNet(nn.Module):
    """UNet over the actions of a chunk."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        condition: int,
        widths: Sequence[int],
        kernel: int,
        times: int,
        time_width: int,
        time_scale: float,
    ) -> None:
        """Args:
        inputs: channels of an action.
        outputs: channels of the output.
        condition: width of the global condition.
        widths: channels of the levels; the number of actions is halved from one to the next.
        kernel: of the convolutions, odd.
        times: number of times that name the noise level.
        time_width: of their embedding.
        time_scale: factor of the times before the sinusoidal embedding.
        """
        super().__init__()
        self.stride = 2 ** (len(widths) - 1)
        self.sinusoids = Timesteps(time_width, flip_sin_to_cos=False, downscale_freq_shift=1, scale=time_scale)
        self.time_embeddings = nn.ModuleList(
            TimestepEmbedding(time_width, 4 * time_width, "mish", out_dim=time_width) for _ in range(times)
        )

        def block(inputs: int, outputs: int) -> FilmResidualBlock:
            return FilmResidualBlock(inputs, outputs, time_width + condition, kernel)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for before, width in zip([inputs, *widths[:-1]], widths, strict=True):
            last = len(self.down) == len(widths) - 1
            halve = nn.Identity() if last else Downsample1D(width, use_conv=True)
            self.down.append(UNetLevel(block(before, width), block(width, width), halve))
        self.middle = nn.ModuleList([block(widths[-1], widths[-1]), block(widths[-1], widths[-1])])
        for below, width in zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True):
            double = Upsample1D(width, use_conv_transpose=True)
            self.up.append(UNetLevel(block(2 * below, width), block(width, width), double))
        self.head = nn.Sequential(Conv1dBlock(widths[0], widths[0], kernel), nn.Conv1d(widths[0], outputs, 1))

    def forward(self, noisy: Tensor, condition: Tensor, *times: Tensor) -> Tensor:
        """Return the output (B, K, outputs) for noisy chunks (B, K, inputs), a condition and times (B,)."""
        embedded = [embed(self.sinusoids(time)) for embed, time in zip(self.time_embeddings, times, strict=True)]
        condition = torch.cat([torch.stack(embedded).sum(0), condition], dim=1)
        horizon = noisy.shape[1]
        x = F.pad(noisy.transpose(1, 2), (0, -horizon % self.stride))
        skipped: list[Tensor] = []
        for level in self.down:
            features, x = level(x, condition)
            skipped.append(features)
        for block in self.middle:
            x = block(x, condition)
        for level in self.up:  # as in the source, the features of the first level are not passed on
            _, x = level(torch.cat([x, skipped.pop()], dim=1), condition)
        return self.head(x)[..., :horizon].transpose(1, 2)
