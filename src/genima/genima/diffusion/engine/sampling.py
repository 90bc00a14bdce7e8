"""A scheduler's steps as numbers, so that a drawing runs without asking it, and without waiting for the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from genima.errors import GenimaError


@dataclass(frozen=True)
class Step:
    """``latents = keep * latents + add * network(scale * latents, t)``."""

    t: float
    scale: float
    keep: float
    add: float


@dataclass(frozen=True)
class Sampling:
    """From ``clean * former + noise * random`` latents, step by step, to those of the drawing."""

    clean: float
    noise: float
    steps: tuple[Step, ...]


def sampling(scheduler: SchedulerMixin, steps: int, strength: float = 1.0) -> Sampling:
    """Read a scheduler's steps off its answers to ones and zeros.

    Args:
        steps: of a whole drawing.
        strength: the share of them that is done; below 1 from a former drawing, noised accordingly (SDEdit: Meng et
            al., 2022).

    Raises:
        GenimaError: for a scheduler whose steps are random, depend on steps before or are not linear, and for a
            strength that leaves no step.
    """
    todo = round(steps * strength)
    if not 0 < todo <= steps:
        raise GenimaError(f"a share of {strength:g} of {steps} steps leaves {todo} to do; it must be 1 to {steps}")
    # One answer each: to latents alone, to the network alone, to neither, to both.
    latents, predicted = torch.tensor([[1.0, 0.0, 0.0, 2.0], [0.0, 1.0, 0.0, 3.0]], dtype=torch.float64)
    scheduler.set_timesteps(steps)
    timesteps: Tensor = scheduler.timesteps[steps - todo :]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(steps - todo)
    if todo == steps:
        clean, noise = 0.0, float(scheduler.init_noise_sigma)
    else:
        clean, noise, *_ = scheduler.add_noise(latents, predicted, timesteps[:1].expand(4)).tolist()
    done = []
    for t in timesteps:
        scale = float(scheduler.scale_model_input(latents, t)[0])
        keep, add, neither, both = scheduler.step(predicted, t, latents, return_dict=False)[0].tolist()
        if abs(neither) > 1e-6 or abs(both - (2 * keep + 3 * add)) > 1e-4 * (abs(keep) + abs(add)):
            raise GenimaError(f"the steps of {type(scheduler).__name__} are not linear; use DDIM's or Euler's")
        done.append(Step(float(t), scale, keep, add))
    return Sampling(clean, noise, tuple(done))
