"""Half precision on devices with fast bfloat16."""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def is_half_fast(device: torch.device) -> bool:
    """Return whether bfloat16 is faster in hardware: GPUs from Ampere on, CPUs with AVX-512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def half_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Autocast to bfloat16 where it is faster."""
    return torch.autocast(device.type, torch.bfloat16, enabled=is_half_fast(device))
