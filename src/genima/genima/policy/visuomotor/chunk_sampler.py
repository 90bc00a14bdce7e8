"""Samplers of action chunks."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from genima.errors import GenimaError
from genima.policy.visuomotor.noise_levels import CLEAN, step
from genima.policy.visuomotor.objectives import OBJECTIVES, Network, Objective, Truncated
from genima.policy.visuomotor.real_time_chunking import guide


@dataclass(frozen=True)
class ChunkSampler:
    """Sampler: its name and number of steps, which are evaluations of the network.

    ========== ============== ==========================================================================================
    objective  sampler        source
    ========== ============== ==========================================================================================
    ddpm       ddpm           Ho et al., Denoising Diffusion Probabilistic Models, 2020
    ddpm       ddim           Song et al., Denoising Diffusion Implicit Models, 2021
    ddpm, edm  warm_start     Duan et al., Real-Time Iteration Scheme for Diffusion Policy, 2025 (RTI-DP)
    edm        edm            Reuss et al., BESO, 2023; Karras et al., 2022
    truncated  truncated      Liao et al., DiffusionDrive, 2025
    mean_flow  mean_flow      Geng et al., Mean Flows for One-step Generative Modeling, 2025
    ========== ============== ==========================================================================================

    A warm start adds a little noise to the last chunk and removes it. RTI-DP removes noise that it did not add, by
    DDPM's steps, which add some; adding it first gives the network the noise that it was trained for. Without a last
    chunk, sampling starts from noise, with the usual steps of ``ddim`` or ``edm``.
    """

    name: str
    steps: int

    @classmethod
    def fitting(cls, objective: str, name: str = "", steps: int = 0) -> ChunkSampler:
        """Return a sampler of networks with this objective; an empty name and 0 steps mean the usual ones.

        Raises:
            GenimaError: for an unknown objective or sampler, one that does not fit, and a number of steps out of range.
        """
        samplers = find_objective(objective).SAMPLERS
        name = name or next(iter(samplers))
        if name not in samplers:
            fitting = ", ".join(samplers)
            raise GenimaError(f"sampler {name}: does not fit a network trained with {objective}; take {fitting}")
        if steps < 0:
            raise GenimaError(f"sampler {name}: {steps} steps; take 1 or more, or 0 for {samplers[name]}")
        sampler = cls(name, steps or samplers[name])
        find_objective(objective)().levels(sampler.name, sampler.steps)
        return sampler

    def sample(
        self,
        objective: Objective,
        network: Network,
        noise: NoiseSource,
        previous: Tensor | None = None,
        prefix: tuple[Tensor, Tensor] | None = None,
        anchors: Tensor | None = None,
    ) -> Tensor:
        """Sample clean chunks (B, K, D).

        Args:
            objective: of the network's training.
            network: noisy chunks and times to outputs.
            noise: source of noise, which has the shape of the chunks.
            previous: (B, K, D) last chunks at the times of the new ones' actions.
            prefix: target (B, K, D) and weights (K,) of real-time chunking.
            anchors: (M, K, D) of :class:`Truncated`; the network takes (B * M) chunks.
        """
        if isinstance(objective, Truncated):
            assert anchors is not None
            if prefix is not None:
                raise GenimaError(f"sampler {self.name}: does not fit real-time chunking; take another objective")
            return self._refine_anchors(objective, network, noise, anchors)
        name, steps = self.name, self.steps
        if name == "warm_start" and previous is None:
            name, steps = next((other, n) for other, n in objective.SAMPLERS.items() if other in ("ddim", "edm"))
        levels = objective.levels(name, steps)
        if name == "warm_start" and previous is not None:
            noisy = levels[0].add_noise(previous, noise())
        else:
            noisy = levels[0].noise * noise()
        for level, following in zip(levels, [*levels[1:], CLEAN], strict=True):
            denoise = functools.partial(objective.denoise, network, level=level, following=following)
            clean = denoise(noisy) if prefix is None else guide(denoise, noisy, level, *prefix, len(levels))
            noisy = step(noisy, objective.clip(clean), level, following, noise() if name == "ddpm" else None)
        return noisy

    def _refine_anchors(self, objective: Truncated, network: Network, noise: NoiseSource, anchors: Tensor) -> Tensor:
        """Return the refined anchor of the best score of each chunk."""
        count, batch = len(anchors), noise.shape[0]
        levels = objective.levels(self.name, self.steps)
        noisy = levels[0].add_noise(anchors, torch.stack([noise() for _ in range(count)], 1)).flatten(0, 1)
        for level, following in zip(levels, [*levels[1:], CLEAN], strict=True):
            clean, scores = objective.denoise_scored(network, noisy, level)
            noisy = step(noisy, objective.clip(clean), level, following)
        best = scores.unflatten(0, (batch, count)).argmax(1)
        return noisy.unflatten(0, (batch, count))[torch.arange(batch, device=best.device), best]


class NoiseSource:
    """Source of N(0, 1), the same on every device for one generator."""

    def __init__(self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None = None) -> None:
        """Without a generator, PyTorch's default one is used."""
        self.shape, self._device, self._generator = shape, device, generator

    def __call__(self) -> Tensor:
        """Return new noise."""
        return torch.randn(self.shape, generator=self._generator).to(self._device)


def find_objective(name: str) -> type[Objective]:
    """Return an objective by its name.

    Raises:
        GenimaError: for an unknown one.
    """
    if name not in OBJECTIVES:
        raise GenimaError(f"objective {name}: unknown; take {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
