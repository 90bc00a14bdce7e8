"""Training objectives of networks that denoise action chunks, and the estimates of clean chunks that follow from them.

Chunks (B, K, D) are normalised to [-1, 1]. A network is called with noisy chunks and one or more times (B,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genima.errors import GenimaError
from genima.policy.visuomotor.noise_levels import NoiseLevel, diffusion_levels, spaced_levels

Network = Callable[..., Tensor]
_WARM = 0.25  # noise / signal at which a warm start begins: RTI-DP's 15 of 100 steps
_FAINT = 0.1  # signal / noise of the first step of DDIM, as by its usual spacing of 16 steps of 50
_LARGEST = 1.0  # of a normalised action


class Objective(ABC):
    """Objective, and the samplers that fit it."""

    TIMES: ClassVar[int] = 1  # that the network is called with
    TIME_SCALE: ClassVar[float] = 1.0  # of their sinusoidal embedding
    SCORES: ClassVar[int] = 0  # channels of the network's output after those of the actions
    PREFIX: ClassVar[bool] = True  # fits real-time chunking
    SAMPLERS: ClassVar[dict[str, int]]  # names that fit, with their usual number of steps; the first is the default

    @abstractmethod
    def losses(self, network: Network, chunk: Tensor, real: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        """Return the parts of the loss.

        Args:
            network: noisy chunks and times to outputs.
            chunk: (B, K, D) clean.
            real: (B, K) 1.0 for actions that count, else 0.0.
            anchors: (M, K, D) of :class:`Truncated`.
        """

    @abstractmethod
    def denoise(self, network: Network, noisy: Tensor, level: NoiseLevel, following: NoiseLevel) -> Tensor:
        """Estimate clean chunks (B, K, D); ``following`` is the level of the sampler's next step."""

    @abstractmethod
    def levels(self, sampler: str, steps: int) -> list[NoiseLevel]:
        """Return the levels of a sampler's steps, from most noise to least."""

    def clip(self, chunk: Tensor) -> Tensor:
        """Limit an estimate of clean chunks to the range of training."""
        return chunk.clamp(-_LARGEST, _LARGEST)


class NoisePrediction(Objective):
    """Prediction of the noise at discrete levels.

    Sources: Ho et al., Denoising Diffusion Probabilistic Models, 2020 (sampler ``ddpm``); Song et al., Denoising
    Diffusion Implicit Models, 2021 (``ddim``); Chi et al., Diffusion Policy, 2023 (squared cosine schedule).
    """

    SAMPLERS = {"ddpm": 50, "ddim": 16, "warm_start": 4}
    LEVELS = 50  # GENIMA paper, table 5

    def losses(self, network: Network, chunk: Tensor, real: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        """See :meth:`Objective.losses`: squared error of the noise."""
        table = torch.tensor(self._levels, device=chunk.device, dtype=chunk.dtype)
        chosen = torch.randint(self.LEVELS, (len(chunk),), device=chunk.device)
        signal, amount, time = table[chosen].T
        noise = torch.randn_like(chunk)
        noisy = signal[:, None, None] * chunk + amount[:, None, None] * noise
        return {"noise": _mean((network(noisy, time) - noise).square(), real)}

    def denoise(self, network: Network, noisy: Tensor, level: NoiseLevel, following: NoiseLevel) -> Tensor:
        """See :meth:`Objective.denoise`."""
        return (noisy - level.noise * network(noisy, _times(noisy, level.time))) / level.signal

    def levels(self, sampler: str, steps: int) -> list[NoiseLevel]:
        """See :meth:`Objective.levels`."""
        available = self._levels
        if sampler == "ddim":  # predicted noise says little of a chunk that is a tenth of it
            available = tuple(level for level in available if level.signal >= _FAINT * level.noise)
        elif sampler == "warm_start":
            available = tuple(level for level in available if level.noise <= _WARM * level.signal) or available[:1]
        if steps > len(available):
            raise GenimaError(
                f"sampler {sampler}: {steps} steps, there are {len(available)} noise levels; take at most that many"
            )
        return spaced_levels(available, steps)

    @property
    def _levels(self) -> tuple[NoiseLevel, ...]:
        return diffusion_levels(self.LEVELS, "squaredcos_cap_v2")


class Preconditioned(Objective):
    """EDM: denoising with preconditioning (Karras et al., 2022, table 1), sampled by Euler's steps in the noise.

    Levels and their density in training are those of BESO (Reuss et al., Goal-Conditioned Imitation Learning using
    Score-based Diffusion Policies, 2023), which samples in three steps: log-logistic in training, linear in use.
    """

    TIME_SCALE = 16.0  # of ln(sigma) / 4, as the Fourier features of Karras et al.
    SAMPLERS = {"edm": 3, "warm_start": 2}
    DATA = 0.5  # standard deviation of normalised actions
    TRAINED = (0.005, 1.0)  # least and most noise
    LEAST, MOST = 0.1, 1.0  # of the sampler's steps

    def losses(self, network: Network, chunk: Tensor, real: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        """See :meth:`Objective.losses`: squared error of the network's output, the weighted error of the denoiser."""
        location = torch.tensor(self.DATA).log()
        least, most = ((torch.tensor(self.TRAINED).log() - location) / 0.5).sigmoid().tolist()
        uniform = least + (most - least) * torch.rand(len(chunk), device=chunk.device)
        sigma = (uniform.logit() * 0.5 + location).exp()[:, None, None]
        noisy = chunk + sigma * torch.randn_like(chunk)
        skip, scale, _ = self._factors(sigma)
        return {
            "denoising": _mean((self._output(network, noisy, sigma) - (chunk - skip * noisy) / scale).square(), real)
        }

    def denoise(self, network: Network, noisy: Tensor, level: NoiseLevel, following: NoiseLevel) -> Tensor:
        """See :meth:`Objective.denoise`."""
        sigma = torch.full((len(noisy), 1, 1), level.noise, device=noisy.device)
        skip, scale, _ = self._factors(sigma)
        return skip * noisy + scale * self._output(network, noisy, sigma)

    def levels(self, sampler: str, steps: int) -> list[NoiseLevel]:
        """See :meth:`Objective.levels`."""
        most = _WARM if sampler == "warm_start" else self.MOST
        return [NoiseLevel(1.0, sigma, sigma) for sigma in np.linspace(most, self.LEAST, steps).tolist()]

    def _output(self, network: Network, noisy: Tensor, sigma: Tensor) -> Tensor:
        return network(self._factors(sigma)[2] * noisy, sigma[:, 0, 0].log() / 4)

    def _factors(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return Karras et al.'s c_skip, c_out and c_in."""
        total = sigma**2 + self.DATA**2
        return self.DATA**2 / total, sigma * self.DATA / total.sqrt(), 1 / total.sqrt()


class Truncated(Objective):
    """Denoising of anchors with little noise, and a score of each (sampler ``truncated``).

    Source: Liao et al., DiffusionDrive: Truncated Diffusion Model for End-to-End Autonomous Driving, 2025: training
    with the first 50 of 1000 levels, two steps from levels below 20 in use, L1 of the anchor nearest to the true chunk.
    Scores are trained by cross entropy over the anchors in place of a focal loss of each.
    """

    SCORES = 1
    PREFIX = False  # its steps are too small
    SAMPLERS = {"truncated": 2}
    TRAINED, USED = 50, 20  # of 1000 levels
    SCORE_WEIGHT = 0.1

    def losses(self, network: Network, chunk: Tensor, real: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        """See :meth:`Objective.losses`; the network takes (B * M) noisy anchors."""
        assert anchors is not None
        count, (batch, horizon, width) = len(anchors), chunk.shape
        chosen = torch.randint(self.TRAINED, (batch,), device=chunk.device)
        table = torch.tensor(self._levels[: self.TRAINED], device=chunk.device, dtype=chunk.dtype)
        signal, amount, time = table[chosen].T[..., None, None, None]
        noise = torch.randn(batch, count, horizon, width, device=chunk.device)
        noisy = self.clip(signal * anchors + amount * noise).flatten(0, 1)
        output = network(noisy, time.flatten().repeat_interleave(count))
        distance = ((anchors - chunk[:, None]).square() * real[:, None, :, None]).sum((2, 3))
        nearest = distance.argmin(1)
        denoised = output[..., :-1].unflatten(0, (batch, count))[torch.arange(batch), nearest]
        scores = self.scores(output).unflatten(0, (batch, count))
        return {
            "actions": _mean((denoised - chunk).abs(), real),
            "score": self.SCORE_WEIGHT * F.cross_entropy(scores, nearest),
        }

    def denoise(self, network: Network, noisy: Tensor, level: NoiseLevel, following: NoiseLevel) -> Tensor:
        """See :meth:`Objective.denoise`."""
        return self.denoise_scored(network, noisy, level)[0]

    def denoise_scored(self, network: Network, noisy: Tensor, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """Return clean chunks (N, K, D) of noisy anchors, and the anchors' scores (N,)."""
        noisy = self.clip(noisy)
        output = network(noisy, _times(noisy, level.time))
        return output[..., :-1], self.scores(output)

    def levels(self, sampler: str, steps: int) -> list[NoiseLevel]:
        """See :meth:`Objective.levels`."""
        if steps > self.USED:
            raise GenimaError(f"sampler {sampler}: {steps} steps; take at most {self.USED}")
        return [self._levels[i * self.USED // steps] for i in reversed(range(steps))]

    @staticmethod
    def scores(output: Tensor) -> Tensor:
        """Return the scores (N,) of a network's output (N, K, D + 1)."""
        return output[..., -1].mean(-1)

    @property
    def _levels(self) -> tuple[NoiseLevel, ...]:
        return diffusion_levels(1000, "scaled_linear")


class MeanFlow(Objective):
    """Mean velocity of a flow over an interval, so that one step crosses it whole (sampler ``mean_flow``).

    Source: Geng et al., Mean Flows for One-step Generative Modeling, 2025: with x_t = (1 - t) chunk + t noise and
    v = noise - chunk, the mean velocity u(x, r, t) from t to r is trained on u = v - (t - r) du/dt. Times, share of
    r = t and weight of the error are those of Sheng et al., MP1: MeanFlow Tames Policy Learning in 1-step for Robotic
    Manipulation, 2025, without its guidance and dispersive loss.
    """

    TIMES = 2  # t, t - r
    TIME_SCALE = 6.0  # about one period: the embedding's derivative is a part of du/dt
    SAMPLERS = {"mean_flow": 1}
    LOCATION, SCALE = -0.4, 1.0  # of the logits of t and r
    INSTANTANEOUS = 0.5  # share of r = t

    def losses(self, network: Network, chunk: Tensor, real: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        """See :meth:`Objective.losses`."""
        times = (self.LOCATION + self.SCALE * torch.randn(2, len(chunk), device=chunk.device)).sigmoid()
        t, r = times.amax(0), times.amin(0)
        r = torch.where(torch.rand_like(r) < self.INSTANTANEOUS, t, r)
        noise = torch.randn_like(chunk)
        noisy = chunk + t[:, None, None] * (noise - chunk)
        velocity, target = self.velocity_and_target(network, noisy, noise - chunk, t, r)
        error = (velocity - target).square() * real[..., None]
        error = error.sum((1, 2)) / (real.sum(1) * chunk.shape[-1]).clamp(min=1)
        return {"velocity": (error / (error.detach() + 1e-3).sqrt()).mean()}

    @staticmethod
    def velocity_and_target(
        network: Network, noisy: Tensor, velocity: Tensor, t: Tensor, r: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the network's mean velocity and its target v - (t - r) du/dt (B, K, D), without gradient."""

        def mean_velocity(noisy: Tensor, t: Tensor, r: Tensor) -> Tensor:
            return network(noisy, t, t - r)

        tangents = (velocity, torch.ones_like(t), torch.zeros_like(r))
        with torch.autocast(noisy.device.type, enabled=False):  # it does not cast the tensors of forward derivatives
            mean, derivative, *_ = torch.func.jvp(mean_velocity, (noisy, t, r), tangents)
        return mean, (velocity - (t - r)[:, None, None] * derivative).detach()

    def denoise(self, network: Network, noisy: Tensor, level: NoiseLevel, following: NoiseLevel) -> Tensor:
        """See :meth:`Objective.denoise`; the sampler's step is then x_r = x_t - (t - r) u, as published."""
        t, interval = _times(noisy, level.time), _times(noisy, level.time - following.time)
        return noisy - level.time * network(noisy, t, interval)

    def levels(self, sampler: str, steps: int) -> list[NoiseLevel]:
        """See :meth:`Objective.levels`."""
        return [NoiseLevel(1 - t, t, t) for t in np.linspace(1, 0, steps + 1)[:-1].tolist()]


OBJECTIVES: dict[str, type[Objective]] = {
    "ddpm": NoisePrediction,
    "edm": Preconditioned,
    "truncated": Truncated,
    "mean_flow": MeanFlow,
}
"""Objectives by the name in a network's configuration."""


def _mean(error: Tensor, real: Tensor) -> Tensor:
    """Return the mean of errors (B, K, D) over actions that count."""
    return (error * real[..., None]).sum() / (real.sum() * error.shape[-1]).clamp(min=1)


def _times(noisy: Tensor, time: float) -> Tensor:
    return torch.full((len(noisy),), time, device=noisy.device)
