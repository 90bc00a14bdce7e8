"""Operations and memory of a training step of the diffusion agent, counted on shapes."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from diffusers import ControlNetModel, DDPMScheduler
from example_training import ExampleBatch, example_loss
from random_base import Size, random_base
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

# Bytes for each trained weight, in single precision: AdamW keeps two moments.
WEIGHT = GRADIENT = AVERAGE = 4
MOMENTS = 8
# What an optimiser step moves for each: the gradient, for its norm; then weight, gradient and moments in, all but the
# gradient out.
_MOVED = 4 + 4 * 4 + 3 * 4
_SPARE = 0.1  # of a GPU's memory, for CUDA itself and for fragmentation


@dataclass(frozen=True)
class Gpu:
    """Peaks from a data sheet, of the SXM part where there is one, or measured."""

    operations: float  # FLOP/s, bfloat16, dense
    bandwidth: float  # bytes/s
    memory: float = 0.0  # bytes


GPUS = {  # by a part of the name that the driver gives
    "H200": Gpu(989e12, 4.8e12, 141e9),
    "H100": Gpu(989e12, 3.35e12, 80e9),
    "A100": Gpu(312e12, 2.04e12, 80e9),
    "RTX 4090": Gpu(165e12, 1.01e12, 24e9),
}


@dataclass(frozen=True)
class Costs:
    """Costs of an uncompiled training step in bfloat16."""

    operations: Mapping[str, float]  # FLOP of the batch: each network's forward pass, and backward where gradients flow
    trained: int  # weights
    frozen_bytes: int  # of the networks that are not trained
    activation_bytes: int  # estimated peak of a step, without weights and moments

    def floor(self, gpu: Gpu) -> float:
        """Seconds below which no step is: its products at the peak, then the optimiser, which waits for all gradients.

        The text encoder is left out: a task's prompt needs to be embedded only once.
        """
        products = sum(count for part, count in self.operations.items() if part != TEXT)
        return products / gpu.operations + _MOVED * self.trained / gpu.bandwidth

    def memory(self, accumulated: bool = False) -> int:
        """Bytes, estimated, without an average of the weights.

        Args:
            accumulated: the batch is a part of a larger one; gradients of other parts are held with its activations.
        """
        kept = WEIGHT + MOMENTS + (GRADIENT if accumulated else 0)
        return self.frozen_bytes + self.trained * kept + self.activation_bytes


TEXT = "text encoder"
_PARTS = {"CLIPTextModel": TEXT, "ControlNetModel": "ControlNet", "UNet2DConditionModel": "UNet"}


@functools.cache
def count(size: Size, side: int, batch: int, checkpointing: bool = False) -> Costs:
    """Run a step on the shapes of ``random_base(size)`` and of ``batch`` tiles of ``side`` px."""
    with LiveBytes() as memory:
        pipeline = random_base(size, device="meta")
        frozen = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
        for network in frozen:
            network.requires_grad_(False)
        with torch.device("meta"):
            controlnet = ControlNetModel.from_unet(pipeline.unet)
            pixels = torch.rand(batch, 3, side, side)
            ids = torch.zeros(batch, pipeline.tokenizer.model_max_length, dtype=torch.long)
        # As genima.training.diffusion stores them; the modules' own method, since diffusers' warns.
        for network in (pipeline.unet, pipeline.vae.encoder, pipeline.vae.quant_conv, pipeline.text_encoder):
            torch.nn.Module.to(network, torch.bfloat16)
        if checkpointing:
            controlnet.enable_gradient_checkpointing()
            pipeline.unet.enable_gradient_checkpointing()
        noise = DDPMScheduler.from_config(pipeline.scheduler.config)
        weights = memory.peak = memory.live
        with _as_on_gpu():
            with FlopCounterMode(display=False) as forward:
                loss = example_loss(pipeline, controlnet, noise, ExampleBatch(pixels, pixels, ids))
            with FlopCounterMode(display=False) as backward:
                loss.backward()
    counts = forward.get_flop_counts()
    operations = {part: float(sum(counts[module].values())) for module, part in _PARTS.items()}
    encoding = forward.get_total_flops() - sum(operations.values())
    return Costs(
        operations={"autoencoder": encoding, **operations, "backward": float(backward.get_total_flops())},
        trained=sum(p.numel() for p in controlnet.parameters()),
        frozen_bytes=sum(p.numel() * p.element_size() for network in frozen for p in network.parameters()),
        activation_bytes=memory.peak - weights,
    )


def largest_part(size: Size, side: int, batch: int, checkpointing: bool, memory: float) -> int | None:
    """The largest equal part of a batch that a step takes with so many bytes of memory, or None."""
    for part in (n for n in range(batch, 0, -1) if batch % n == 0):
        if count(size, side, part, checkpointing).memory(part < batch) <= (1 - _SPARE) * memory:
            return part
    return None


class LiveBytes(TorchDispatchMode):
    """Within it ``live`` are the bytes of all tensors made so far that still exist, ``peak`` the most at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._add, made)
        return made

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if id(storage) not in self._known:
            self._known.add(id(storage))
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._remove, id(storage), storage.nbytes())

    def _remove(self, storage: int, size: int) -> None:
        self._known.remove(storage)
        self.live -= size


@contextlib.contextmanager
def _as_on_gpu() -> Iterator[None]:
    """Within it shapes without data take the types and the attention that they have under autocast on a GPU.

    Products are of bfloat16, norms in the precision of their weights, and attention does not keep its scores.
    """
    attend, half = F.scaled_dot_product_attention, torch.bfloat16

    def attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **rest: Any) -> Tensor:
        if attn_mask is not None:
            return attend(q, k, v, attn_mask, **rest)
        return torch.ops.aten._scaled_dot_product_flash_attention(q.to(half), k.to(half), v.to(half))[0]

    def in_half(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args: product(*(x.to(half) if isinstance(x, Tensor) else x for x in args))

    def as_weights(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x, how, weight, *rest: norm(x.to(weight.dtype), how, weight, *rest)

    with mock.patch.multiple(
        F, scaled_dot_product_attention=attention, linear=in_half(F.linear), conv2d=in_half(F.conv2d),
        group_norm=as_weights(F.group_norm), layer_norm=as_weights(F.layer_norm),
    ):  # fmt: skip
        yield
