"""How an engine draws: what leaves the drawing as it is, by device, and what does not, by the user's choice."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from genima.policy.precision import is_half_fast


@dataclass(frozen=True)
class ExecutionConfig:
    """What an engine does to draw fast, and the same within the noise of ``precision``."""

    precision: torch.dtype = torch.float32  # of networks and latents; the sampling itself is in single precision
    channels_last: bool = True
    fused_attention: bool = True  # one product for queries, keys and values
    compile: bool = False  # by torch.compile; minutes the first time, then from its cache on disk
    cuda_graph: bool = False  # the whole drawing is launched at once
    overlap: bool = False  # the ControlNet runs beside the UNet's first half


Cause = Literal["memory", "precision", "compiler", "capture", "device"]


class ExecutionFailed(Exception):
    """A plan does not work here; another may."""

    def __init__(self, cause: Cause, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


def execution_configs(device: torch.device) -> tuple[ExecutionConfig, ...]:
    """The plans for a device, the best first; see :func:`remaining_configs` for what follows one that fails.

    Half precision on a GPU is float16: with three bits more than bfloat16 it is nearer to single precision, and
    networks of Stable Diffusion's kind stay within its range. An engine sees when one does not, and goes on.
    """
    if device.type == "cuda":
        halves = [torch.float16, torch.bfloat16] if is_half_fast(device) else [torch.float16]
        return (*(plan for half in halves for plan in _on_gpu(half)), ExecutionConfig())
    return (ExecutionConfig(torch.bfloat16), ExecutionConfig()) if is_half_fast(device) else (ExecutionConfig(),)


def _on_gpu(precision: torch.dtype) -> tuple[ExecutionConfig, ...]:
    eager = ExecutionConfig(precision)
    return (
        replace(eager, compile=True, cuda_graph=True, overlap=True), replace(eager, cuda_graph=True, overlap=True),
        replace(eager, compile=True), eager, replace(eager, fused_attention=False),
    )  # fmt: skip


def remaining_configs(tried: Sequence[ExecutionConfig], cause: Cause) -> list[ExecutionConfig]:
    """What is left of plans when the first one has failed: those without the cause of that."""
    failed, *rest = tried
    hopeless: dict[Cause, Callable[[ExecutionConfig], bool]] = {
        "memory": lambda plan: _size(plan) > _size(failed) or (failed.cuda_graph and plan.cuda_graph),
        "precision": lambda plan: plan.precision == failed.precision,
        "compiler": lambda plan: plan.compile,
        "capture": lambda plan: plan.cuda_graph,
        "device": lambda plan: False,
    }
    return [plan for plan in rest if not hopeless[cause](plan)]


def _size(plan: ExecutionConfig) -> tuple[int, bool, bool]:
    """Compares the memory of plans: a graph keeps what it computes with; fused weights stand beside single ones."""
    return plan.precision.itemsize, plan.cuda_graph, plan.fused_attention


def spare_threads() -> int:
    """Of a CPU that draws beside cameras and control: half of its cores. Threads that wait for a busy core cost more
    than they do."""
    return max(1, len(os.sched_getaffinity(0)) // 2)
