"""Noise levels of action chunks, and the step of a sampler from one to the next.

A noisy chunk is ``signal * chunk + noise * N(0, 1)``. Variance-preserving diffusion has signal^2 + noise^2 = 1
(Ho et al., Denoising Diffusion Probabilistic Models, 2020), EDM signal = 1 (Karras et al., Elucidating the Design Space
of Diffusion-Based Generative Models, 2022), flow matching signal = 1 - noise.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor


class NoiseLevel(NamedTuple):
    """Noise level."""

    signal: float
    noise: float
    time: float  # the network's name of the level

    def add_noise(self, chunk: Tensor, noise: Tensor) -> Tensor:
        """Return the noisy chunk of a clean one and N(0, 1) of its shape."""
        return self.signal * chunk + self.noise * noise


CLEAN = NoiseLevel(1.0, 0.0, 0.0)


@functools.cache
def diffusion_levels(steps: int, schedule: str) -> tuple[NoiseLevel, ...]:
    """Return the levels of ``steps`` diffusion steps, least noise first; ``schedule`` is a name of diffusers'."""
    with torch.device("cpu"):
        products = DDPMScheduler(steps, beta_schedule=schedule).alphas_cumprod.double()
    signal, noise = products.sqrt().tolist(), (1 - products).sqrt().tolist()
    return tuple(NoiseLevel(a, s, float(t)) for t, (a, s) in enumerate(zip(signal, noise, strict=True)))


def spaced_levels(levels: Sequence[NoiseLevel], steps: int) -> list[NoiseLevel]:
    """Choose ``steps`` levels at equal distances, from most noise, which is one of them, to least.

    Source: Lin et al., Common Diffusion Noise Schedules and Sample Steps are Flawed, 2024 ("trailing").
    """
    chosen = np.round(np.arange(steps, 0, -1) * len(levels) / steps).astype(int) - 1
    return [levels[i] for i in chosen]


def step(
    noisy: Tensor,
    clean: Tensor,
    level: NoiseLevel,
    following: NoiseLevel,
    noise: Tensor | None = None,
) -> Tensor:
    """Move a noisy chunk to the following level, which has less noise.

    Without ``noise`` this is DDIM's step (Song et al., Denoising Diffusion Implicit Models, 2021, equation 12,
    sigma = 0): Euler's for EDM's ODE (Karras et al., 2022, algorithm 1) and for flow matching. With it, DDPM's: the
    posterior of Ho et al., 2020, equation 7, which is equation 16 of Song et al. with eta = 1.

    Args:
        noisy: chunk at ``level``.
        clean: estimate of its clean chunk.
        level: present one.
        following: next one.
        noise: N(0, 1) to add, of variance-preserving diffusion only.
    """
    estimate = (noisy - level.signal * clean) / level.noise
    if noise is None:
        return following.signal * clean + following.noise * estimate
    ratio = level.signal / following.signal
    variance = following.noise**2 / level.noise**2 * (1 - ratio**2)
    direction = max(following.noise**2 - variance, 0.0) ** 0.5
    return following.signal * clean + direction * estimate + variance**0.5 * noise
