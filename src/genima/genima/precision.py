"""Where half precision pays."""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def half_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 where the hardware multiplies it faster: any GPU, and CPUs with AVX-512-BF16 or AMX."""
    fast = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)
