"""Options of executing the networks on a device; they leave the result the same up to rounding."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from genima.policy.precision import is_half_fast


@dataclass(frozen=True)
class ExecutionConfig:
    """Execution of the networks; the result is the same up to the noise of ``precision``."""

    precision: torch.dtype = torch.float32  # of networks and latents; the sampling itself is in single precision
    channels_last: bool = True
    fused_attention: bool = True  # one product for queries, keys and values
    compile: bool = False  # by torch.compile; minutes the first time, then from its cache on disk
    cuda_graph: bool = False  # a whole generation is launched at once
    overlap: bool = False  # the ControlNet runs beside the UNet's first half


Cause = Literal["memory", "precision", "compiler", "capture", "device"]


class ExecutionFailed(Exception):
    """An execution config does not work here; another may."""

    def __init__(self, cause: Cause, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


def execution_configs(device: torch.device) -> tuple[ExecutionConfig, ...]:
    """Return the configs for a device, fastest first; see :func:`remaining_configs` for what follows one that fails.

    Half precision on a GPU is float16: with three bits more than bfloat16 it is nearer to single precision, and
    networks of Stable Diffusion's kind stay within its range. Where one does not, the next config is used.
    """
    if device.type == "cuda":
        halves = [torch.float16, torch.bfloat16] if is_half_fast(device) else [torch.float16]
        return (*(config for half in halves for config in _on_gpu(half)), ExecutionConfig())
    return (ExecutionConfig(torch.bfloat16), ExecutionConfig()) if is_half_fast(device) else (ExecutionConfig(),)


def _on_gpu(precision: torch.dtype) -> tuple[ExecutionConfig, ...]:
    eager = ExecutionConfig(precision)
    return (
        replace(eager, compile=True, cuda_graph=True, overlap=True), replace(eager, cuda_graph=True, overlap=True),
        replace(eager, compile=True), eager, replace(eager, fused_attention=False),
    )  # fmt: skip


def remaining_configs(tried: Sequence[ExecutionConfig], cause: Cause) -> list[ExecutionConfig]:
    """Return the configs that are left when the first has failed: those without the cause of the failure."""
    failed, *rest = tried
    hopeless: dict[Cause, Callable[[ExecutionConfig], bool]] = {
        "memory": lambda config: _size(config) > _size(failed) or (failed.cuda_graph and config.cuda_graph),
        "precision": lambda config: config.precision == failed.precision,
        "compiler": lambda config: config.compile,
        "capture": lambda config: config.cuda_graph,
        "device": lambda config: False,
    }
    return [config for config in rest if not hopeless[cause](config)]


def _size(config: ExecutionConfig) -> tuple[int, bool, bool]:
    """Compares the memory of configs: a graph keeps what it computes with; fused weights stand beside single ones."""
    return config.precision.itemsize, config.cuda_graph, config.fused_attention


def spare_threads() -> int:
    """Return half of the CPU's cores, for a model beside cameras and control: threads that wait for a core cost more
    than they gain."""
    return max(1, len(os.sched_getaffinity(0)) // 2)
