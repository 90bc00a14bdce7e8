"""A scheduler's steps as numbers: sampling runs without asking the scheduler and without waiting for the host."""

from __future__ import annotations

import inspect
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
    """From ``clean * former + noise * random`` latents, step by step, to those of the drawing."""

    clean: float
    noise: float
    steps: tuple[Step, ...]

    @cached_property
    def noises(self) -> int:
        """Number of tensors of noise: one to start from, then one for each step that adds noise."""
        return 1 + sum(step.random != 0 for step in self.steps)

    def draw_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw all noise, (noises, *shape), in the order of diffusers' pipelines, the same on every device."""
        return torch.stack([torch.randn(shape, generator=generator) for _ in range(self.noises)])


# Latents and predictions that a scheduler is asked for: each alone, neither (twice), both. In every step they change
# places, so that what a scheduler keeps of earlier steps shows.
_LATENTS, _PREDICTED = (1.0, 0.0, 0.0, 0.0, 2.0), (0.0, 1.0, 0.0, 0.0, 3.0)
_SEED = 0  # of the noise that a scheduler adds to its answer


def sampling(scheduler: SchedulerMixin, steps: int, strength: float = 1.0) -> Sampling:
    """Read a scheduler's steps off its answers to ones and zeros.

    Args:
        scheduler: one of diffusers; its state changes.
        steps: of a whole drawing.
        strength: the share of them that is done; below 1 from a former drawing, noised accordingly (SDEdit: Meng et
            al., 2022).

    Raises:
        GenimaError: for a scheduler that cannot take so many steps, or whose steps depend on steps before or are not
            linear, and for a strength that leaves no step.
    """
    todo = round(steps * strength)
    if not 0 < todo <= steps:
        raise GenimaError(f"a share of {strength:g} of {steps} steps leaves {todo} to do; it must be 1 to {steps}")
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
