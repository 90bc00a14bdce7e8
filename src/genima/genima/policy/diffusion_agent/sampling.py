"""Sampling of a diffusion model, with the scheduler's steps as constants: no step waits for the host."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from genima.errors import GenimaError
from genima.io.files import shorten


@dataclass(frozen=True)
class Step:
    """``latents = keep * latents + add * network(scale * latents, t) + random * noise``."""

    t: float
    scale: float
    keep: float
    add: float
    random: float = 0.0  # factor of the noise that ancestral samplers add; 0: none


@dataclass(frozen=True)
class Sampling:
    """Schedule of the steps from latents ``clean * previous + noise * random`` to a drawn target."""

    clean: float
    noise: float
    steps: tuple[Step, ...]

    @cached_property
    def noises(self) -> int:
        """Number of noise tensors: one for the start, then one for each step that adds noise."""
        return 1 + sum(step.random != 0 for step in self.steps)

    def sample_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Sample all noise, (noises, *shape), in the order of diffusers' pipelines, the same on every device."""
        return torch.stack([torch.randn(shape, generator=generator) for _ in range(self.noises)])

    def denoise(
        self,
        noise: Tensor,
        predict: Callable[[int, Tensor], Tensor],
        previous: Tensor | None = None,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> Tensor:
        """Run all steps; return latents (N, C, h, w).

        Args:
            noise: (noises, N, C, h, w), see :meth:`sample_noise`.
            predict: the network's prediction from step i and its scaled latents.
            previous: latents at the start of a partial schedule.
            memory_format: of the latents.
        """
        start, *of_steps = noise
        latents, noises = self.noise * start, iter(of_steps)
        if previous is not None:
            latents = latents + self.clean * previous
        latents = latents.contiguous(memory_format=memory_format)
        for i, step in enumerate(self.steps):
            latents = step.keep * latents + step.add * predict(i, step.scale * latents).float()
            if step.random:
                latents = latents + step.random * next(noises)
        return latents


# Probes of a scheduler: latents only, prediction only, neither (twice), both. They rotate with every step, which
# detects schedulers with state.
_LATENTS, _PREDICTED = (1.0, 0.0, 0.0, 0.0, 2.0), (0.0, 1.0, 0.0, 0.0, 3.0)
_SEED = 0  # of the noise that a scheduler adds


def sampling_schedule(scheduler: SchedulerMixin, steps: int, strength: float = 1.0) -> Sampling:
    """Determine a scheduler's linear steps from its results for ones and zeros.

    Args:
        scheduler: one of diffusers; its state changes.
        steps: number of steps of the full schedule.
        strength: fraction of the steps to run; below 1 they start from a noised previous target (SDEdit, Meng et
            al., 2022).

    Raises:
        GenimaError: for a scheduler that does not support this number of steps, or has non-linear steps or state,
            and for a strength without a step.
    """
    count = round(steps * strength)
    if not 0 < count <= steps:
        raise GenimaError(f"strength {strength:g}: leaves {count} of {steps} steps; it must leave 1 to {steps}")
    name = type(scheduler).__name__
    latents, predicted = torch.tensor([_LATENTS, _PREDICTED], dtype=torch.float64)[..., None]
    try:
        scheduler.set_timesteps(steps)
        timesteps: Tensor = scheduler.timesteps[steps - count :]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(steps - count)
        if count == steps:
            clean, noise = 0.0, float(scheduler.init_noise_sigma)
        else:
            noisy = scheduler.add_noise(latents, predicted, timesteps[:1].expand(len(latents)))
            clean, noise, *_ = noisy.flatten().tolist()
        done = tuple(_step(scheduler, t, latents.roll(i, 0), predicted.roll(i, 0), i) for i, t in enumerate(timesteps))
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise GenimaError(
            f"scheduler {name}: cannot take {steps} steps ({shorten(str(error), 200)}); use fewer"
        ) from None
    if len({step.t for step in done}) != count:  # unique: a scheduler finds its step by the time
        raise GenimaError(f"scheduler {name}: cannot take {steps} steps (it makes {len(done)}); use fewer")
    return Sampling(clean, noise, done)


def _step(scheduler: SchedulerMixin, t: Tensor, latents: Tensor, predicted: Tensor, rolled: int) -> Step:
    scale = float(scheduler.scale_model_input(latents, t).roll(-rolled, 0)[0])
    options, z = {}, torch.zeros_like(latents)
    if "generator" in inspect.signature(scheduler.step).parameters:
        options["generator"] = generator = torch.Generator().manual_seed(_SEED)
        unused = generator.get_state()
    result = scheduler.step(predicted, t, latents, return_dict=False, **options)[0]
    if options and not torch.equal(generator.get_state(), unused):
        z = torch.randn(latents.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(_SEED))
    result, z = (x.roll(-rolled, 0).flatten() for x in (result, z))
    random = float(result[2] / z[2]) if z.any() else 0.0
    keep, add, *neither, both = (result - random * z).tolist()
    tolerance = 1e-4 * (abs(keep) + abs(add) + abs(random))
    wrong = [*neither, both - (_LATENTS[-1] * keep + _PREDICTED[-1] * add)]
    if not all(abs(error) <= tolerance for error in wrong):
        raise GenimaError(f"scheduler {type(scheduler).__name__}: steps are not linear; use DDIM or Euler")
    return Step(float(t), scale, keep, add, random)
