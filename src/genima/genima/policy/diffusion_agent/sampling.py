"""Sampling of a diffusion model, with the scheduler's steps as numbers: no step waits for the host."""

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
    random: float = 0.0  # of a noise of its own, in the steps of ancestral samplers; 0: the step draws none


@dataclass(frozen=True)
class Sampling:
    """Schedule of the steps from ``clean * previous + noise * random`` latents to those of a drawn target."""

    clean: float
    noise: float
    steps: tuple[Step, ...]

    @cached_property
    def noises(self) -> int:
        """Number of tensors of noise: one to start from, then one for each step that adds noise."""
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
            predict: the network's prediction for step i and its scaled latents.
            previous: latents to start from, if the schedule does.
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


# Latents and predictions that a scheduler is asked for: each alone, neither (twice), both. In every step they change
# places, so that what a scheduler keeps of earlier steps shows.
_LATENTS, _PREDICTED = (1.0, 0.0, 0.0, 0.0, 2.0), (0.0, 1.0, 0.0, 0.0, 3.0)
_SEED = 0  # of the noise that a scheduler adds to its answer


def sampling(scheduler: SchedulerMixin, steps: int, strength: float = 1.0) -> Sampling:
    """Read a scheduler's steps off its results for ones and zeros.

    Args:
        scheduler: one of diffusers; its state changes.
        steps: of a whole schedule.
        strength: fraction of them that is run; below 1 from a previous drawn target, noised accordingly (SDEdit, Meng
            et al., 2022).

    Raises:
        GenimaError: for a scheduler that cannot take so many steps, or whose steps depend on steps before or are not
            linear, and for a strength that leaves no step.
    """
    todo = round(steps * strength)
    if not 0 < todo <= steps:
        raise GenimaError(f"strength {strength:g}: leaves {todo} of {steps} steps; it must leave 1 to {steps}")
    name = type(scheduler).__name__
    latents, predicted = torch.tensor([_LATENTS, _PREDICTED], dtype=torch.float64)[..., None]
    try:
        scheduler.set_timesteps(steps)
        timesteps: Tensor = scheduler.timesteps[steps - todo :]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(steps - todo)
        if todo == steps:
            clean, noise = 0.0, float(scheduler.init_noise_sigma)
        else:
            noisy = scheduler.add_noise(latents, predicted, timesteps[:1].expand(len(latents)))
            clean, noise, *_ = noisy.flatten().tolist()
        done = tuple(_step(scheduler, t, latents.roll(i, 0), predicted.roll(i, 0), i) for i, t in enumerate(timesteps))
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise GenimaError(
            f"scheduler {name}: cannot take {steps} steps ({shorten(str(error), 200)}); use fewer"
        ) from None
    if len({step.t for step in done}) != todo:  # each once: a scheduler finds its place by the time
        raise GenimaError(f"scheduler {name}: cannot take {steps} steps (it makes {len(done)}); use fewer")
    return Sampling(clean, noise, done)


def _step(scheduler: SchedulerMixin, t: Tensor, latents: Tensor, predicted: Tensor, rolled: int) -> Step:
    scale = float(scheduler.scale_model_input(latents, t).roll(-rolled, 0)[0])
    options, z = {}, torch.zeros_like(latents)
    if "generator" in inspect.signature(scheduler.step).parameters:
        options["generator"] = generator = torch.Generator().manual_seed(_SEED)
        unused = generator.get_state()
    answer = scheduler.step(predicted, t, latents, return_dict=False, **options)[0]
    if options and not torch.equal(generator.get_state(), unused):
        z = torch.randn(latents.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(_SEED))
    answer, z = (x.roll(-rolled, 0).flatten() for x in (answer, z))
    random = float(answer[2] / z[2]) if z.any() else 0.0
    keep, add, *neither, both = (answer - random * z).tolist()
    tolerance = 1e-4 * (abs(keep) + abs(add) + abs(random))
    wrong = [*neither, both - (_LATENTS[-1] * keep + _PREDICTED[-1] * add)]
    if not all(abs(error) <= tolerance for error in wrong):
        raise GenimaError(f"the steps of {type(scheduler).__name__} are not linear; use DDIM's or Euler's")
    return Step(float(t), scale, keep, add, random)
