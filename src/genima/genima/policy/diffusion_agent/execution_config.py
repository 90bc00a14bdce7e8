"""Execution configs of the networks on a device; they change the result only by rounding."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from genima.policy.precision import is_half_fast


@dataclass(frozen=True)
class ExecutionConfig:
    """Execution of the networks; it changes the result only by the rounding of ``precision``."""

    precision: torch.dtype = torch.float32  # of networks and latents; the sampling itself is in single precision
    channels_last: bool = True
    fused_attention: bool = True  # one product for queries, keys and values
    compile: bool = False  # torch.compile: minutes at first, then cached on disk
    cuda_graph: bool = False  # one launch per generation
    overlap: bool = False  # ControlNet and UNet encoder run in parallel


Cause = Literal["memory", "precision", "compiler", "capture", "device"]


class ExecutionError(Exception):
    """Failure of an execution config, for which others may work."""

    def __init__(self, cause: Cause, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


def execution_configs(device: torch.device) -> tuple[ExecutionConfig, ...]:
    """Return the configs for a device, fastest first; see :func:`remaining_configs` after failures.

    Half precision on a GPU is float16: its mantissa has three bits more than bfloat16's, and Stable Diffusion's
    networks stay within its range. Where a network does not, the next config is used.
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


def remaining_configs(configs: Sequence[ExecutionConfig], cause: Cause) -> list[ExecutionConfig]:
    """Return the configs after a failure of the first: those without the cause of the failure."""
    failed, *rest = configs
    excluded: dict[Cause, Callable[[ExecutionConfig], bool]] = {
        "memory": lambda config: _size(config) > _size(failed) or (failed.cuda_graph and config.cuda_graph),
        "precision": lambda config: config.precision == failed.precision,
        "compiler": lambda config: config.compile,
        "capture": lambda config: config.cuda_graph,
        "device": lambda config: False,
    }
    return [config for config in rest if not excluded[cause](config)]


def _size(config: ExecutionConfig) -> tuple[int, bool, bool]:
    """Return a key for the memory of a config: graphs keep buffers; fused weights are copies."""
    return config.precision.itemsize, config.cuda_graph, config.fused_attention


def inference_threads() -> int:
    """Return half the CPU's cores: cameras and control need the others, and waiting threads slow inference down."""
    return max(1, len(os.sched_getaffinity(0)) // 2)
