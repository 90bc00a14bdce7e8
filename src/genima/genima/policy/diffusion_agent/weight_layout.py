"""Networks whose weights change type and layout in place, and change back without a loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, FusedAttnProcessor2_0
from torch import Tensor, nn

from genima.policy.diffusion_agent.execution_config import ExecutionConfig, ExecutionFailed


class WeightLayout:
    """Types and memory layouts of a model's weights.

    What they were loaded with stays on the host from the first rounding on: a config that follows one in half precision
    may need what that lost.
    """

    def __init__(self) -> None:
        self._exact: dict[nn.Module, dict[str, Tensor]] = {}

    def prepare(self, networks: Mapping[nn.Module, torch.dtype], device: torch.device, config: ExecutionConfig) -> None:
        """Give networks their types on a device, and the config's layout and attention.

        Raises:
            ExecutionFailed: when a weight would become infinite; no network has changed then.
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
        raise ExecutionFailed("precision", f"weights lie beyond what {precision} holds")


def _fuse_attention(network: nn.Module) -> None:
    """One product for queries, keys and values, or for the keys and values of the prompt."""
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
