"""Lossless in-place changes of type and memory layout of weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, FusedAttnProcessor2_0
from torch import Tensor, nn

from genima.policy.diffusion_agent.execution_config import ExecutionConfig, ExecutionError


class WeightLayout:
    """Types and memory layouts of a model's weights.

    The exact weights are kept on the host from the first rounding on, for later configs of higher precision.
    """

    def __init__(self) -> None:
        self._exact: dict[nn.Module, dict[str, Tensor]] = {}

    def prepare(self, networks: Mapping[nn.Module, torch.dtype], device: torch.device, config: ExecutionConfig) -> None:
        """Set the networks' types and device, and the config's layout and attention.

        Raises:
            ExecutionError: for a weight that would become infinite; no network is changed.
        """
        for network, precision in networks.items():
            _require_range(self._exact[network].values() if network in self._exact else network.parameters(), precision)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        for network, precision in networks.items():
            _split_attention(network)
            if network in self._exact and next(network.parameters()).dtype != precision:
                nn.Module.to(network, torch.float32)
                network.load_state_dict(self._exact[network])
            elif network not in self._exact and precision != torch.float32:
                exact = {name: weight.detach().to("cpu", copy=True) for name, weight in network.state_dict().items()}
                self._exact[network] = exact
            # The modules' own method, since diffusers' warns.
            nn.Module.to(network, device, precision, memory_format=layout)  # type: ignore[call-overload]
            if config.fused_attention:
                _fuse_attention(network)


def _require_range(weights: Iterable[Tensor], precision: torch.dtype) -> None:
    if precision == torch.float32:
        return
    largest = torch.finfo(precision).max
    numbers = (weight for weight in weights if weight.is_floating_point() and weight.numel())
    if any(weight.abs().max() > largest for weight in numbers):
        raise ExecutionError("precision", f"weights exceed the range of {precision}")


def _fuse_attention(network: nn.Module) -> None:
    """Fuse the projections of queries, keys and values, or of the prompt's keys and values."""
    for module in network.modules():
        if isinstance(module, Attention):
            module.fuse_projections()
            module.set_processor(FusedAttnProcessor2_0())


def _split_attention(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, Attention) and module.fused_projections:
            for fused in {"to_qkv", "to_kv"} & set(module._modules):
                delattr(module, fused)
            module.fused_projections = False
            module.set_processor(AttnProcessor2_0())
