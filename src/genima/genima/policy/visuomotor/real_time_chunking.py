"""Real-time chunking: guidance of a sampler towards the chunk that is being executed.

Source: Black, Galliker, Levine, Real-Time Execution of Action Chunking Flow Policies, 2025: inpainting by
pseudo-inverse guidance (Song et al., Pseudoinverse-Guided Diffusion Models for Inverse Problems, 2023) with soft
weights and a limited guidance weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genima.errors import GenimaError
from genima.policy.visuomotor.noise_levels import NoiseLevel

_GUIDANCE_WEIGHT = 5.0  # beta of the paper, at its 5 steps


@dataclass(frozen=True)
class Prefix:
    """Chunk in execution, to which a new chunk is fitted."""

    actions: Tensor  # (B, K, joints + 1) normalised joints and gripper 0 .. 1, at the times of the new chunk's actions
    weights: Tensor  # (K,) of :func:`prefix_weights`


def prefix_weights(horizon: int, delay: int, overlap: int) -> Tensor:
    """Return the weights (K,) of a prefix: equation 5 of the paper.

    Args:
        horizon: K actions of a chunk.
        delay: d actions that are executed before the new chunk arrives: weight 1.
        overlap: actions of the new chunk that the last one has, K - s after s executed ones: the weights decay from the
            delay to here, and are 0 beyond.

    Raises:
        GenimaError: for numbers that are not 0 <= delay <= overlap <= horizon.
    """
    if not 0 <= delay <= overlap <= horizon:
        raise GenimaError(
            f"real-time chunking: delay {delay} and overlap {overlap} do not fit {horizon} actions; "
            "0 <= delay <= overlap <= actions"
        )
    index = torch.arange(horizon)
    decay = (overlap - index) / (overlap - delay + 1)
    decay = decay * torch.expm1(decay) / (math.e - 1)
    return torch.where(index < delay, 1.0, torch.where(index < overlap, decay, 0.0))


def guidance_weight(level: NoiseLevel, limit: float) -> float:
    """Return the weight of the guidance: equation 2 of the paper.

    With tau = signal / (signal + noise) it is (1 - tau) / tau / r^2, r^2 = (1 - tau)^2 / (tau^2 + (1 - tau)^2): a
    function of the ratio of signal to noise, hence the same for flows and diffusion.
    """
    both = level.signal * level.noise
    return min(limit, (level.signal**2 + level.noise**2) / both) if both > 0 else limit


def guide(
    denoise: Callable[[Tensor], Tensor],
    noisy: Tensor,
    level: NoiseLevel,
    target: Tensor,
    weights: Tensor,
    steps: int,
) -> Tensor:
    """Estimate the clean chunk of a noisy one, guided towards ``target``.

    The paper adds ``weight * (target - estimate)^T diag(weights) d estimate / d noisy`` to the velocity of the flow,
    which is the velocity towards the estimate that is returned (equations 2 to 4). The limit of the weight is the
    paper's 5, or the number of steps when there are fewer: a step of a flow of n steps must not correct more than the
    whole error.

    Args:
        denoise: clean chunks (B, K, D) of noisy ones.
        noisy: (B, K, D).
        level: of ``noisy``.
        target: (B, K, D).
        weights: (K,) of :func:`prefix_weights`.
        steps: of the sampler.
    """
    with torch.inference_mode(False), torch.enable_grad():
        noisy = noisy.detach().clone().requires_grad_()
        estimate = denoise(noisy)
        error = weights[:, None] * (target - estimate.detach())
        (gradient,) = torch.autograd.grad(estimate, noisy, error)
    weight = guidance_weight(level, min(_GUIDANCE_WEIGHT, steps))
    return estimate.detach() + level.noise * weight * gradient
