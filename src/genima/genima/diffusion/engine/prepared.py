"""An agent's networks, prepared by a plan, and a drawing with them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.models.attention_processor import Attention, FusedAttnProcessor2_0
from torch import Tensor, nn

from genima import hub
from genima.diffusion.engine.networks import Skips, controls, decoded, embedding, encoded
from genima.diffusion.engine.plan import Plan, Shortcuts
from genima.diffusion.engine.sampling import Sampling
from genima.errors import GenimaError

if TYPE_CHECKING:
    from genima.diffusion.agent import DiffusionAgent

_WARM_UP = 3  # drawings before one is captured: compilers and libraries choose their kernels in the first ones


class PlanFailed(Exception):
    """A plan does not work here; another may."""


@dataclass(frozen=True)
class Prompt:
    """What the networks take besides latents: the same for all drawings of a task."""

    tokens: Tensor  # (B, length, channels)
    unet: tuple[Tensor, ...]  # (B, channels) a step: its time and, in SDXL, the pooled prompt
    controlnet: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them."""
        return (self.tokens, *self.unet, *self.controlnet)


class PreparedAgent:
    """It takes an agent's networks over: their weights change type and layout in place."""

    def __init__(self, agent: DiffusionAgent, plan: Plan, shortcuts: Shortcuts) -> None:
        """Raise PlanFailed where a plan does not work here, and a GenimaError for a tiny decoder that is none."""
        self.plan, self._agent, self._shortcuts = plan, agent, shortcuts
        self._prompts: dict[tuple[Sampling, tuple[str, ...], int], Prompt] = {}
        self._captured: dict[Any, _Captured] = {}
        self._proven = False
        networks = [network for network in (agent.unet, agent.controlnet) if network is not None]
        tiny = shortcuts.tiny_decoder
        self._decoder: Any = agent.vae if tiny is None else _tiny_decoder(tiny).to(agent.device)
        # Some autoencoders overflow in half precision and say so; the patch codec is too cheap to be rounded.
        kind = AutoencoderKL | AutoencoderTiny
        half = isinstance(self._decoder, kind) and not getattr(self._decoder.config, "force_upcast", False)
        self._decoded_in = plan.precision if half else torch.float32
        layout = torch.channels_last if plan.channels_last else torch.contiguous_format
        with self._failing_as_told():
            for network in (*networks, *([self._decoder] if half else [])):
                _require_range(network, plan.precision)
                # The modules' own method, since diffusers' warns.
                nn.Module.to(network, agent.device, plan.precision, memory_format=layout)  # type: ignore[call-overload]
            if plan.fused_attention:
                for network in networks:
                    _fuse_attention(network)
            self._side = torch.cuda.Stream(agent.device) if plan.overlap else None
        compiled = _compiled if plan.compile else _as_it_is
        self._controls, self._encoded = compiled(controls), compiled(encoded)
        self._decoded, self._pixels = compiled(decoded), compiled(self._decode)

    @torch.inference_mode()
    def draw(
        self, tiles: Tensor, texts: Sequence[str], noise: Tensor, steps: Sampling, former: Tensor | None = None
    ) -> Tensor:
        """Draw a batch of tiles (B, H, W, 3) uint8 rgb; returns the same shape and type, on the CPU.

        Args:
            texts: the networks' prompts, see ``DiffusionAgent.texts``.
            noise: latents to start from, see ``DiffusionAgent.noise``.
            former: drawings of the same shape to start from, if ``steps`` do.

        Raises:
            PlanFailed: where the plan does not work here: too little memory, what cannot be compiled or captured, a
                drawing that is not finite.
            GenimaError: when the device is gone.
        """
        agent = self._agent
        with self._failing_as_told():
            prompt = self._prompt(steps, tuple(texts), tiles.shape[2])
            given = (tiles, noise) if former is None else (tiles, noise, former)
            inputs = [x.to(agent.device, non_blocking=True) for x in given]
            if self.plan.cuda_graph:
                pixels, finite = self._graph(steps, prompt, inputs)(prompt, inputs)
            else:
                pixels, finite = self._redraw(steps, prompt, *inputs)
            pixels, finite = pixels.cpu(), finite.cpu()
        if not finite:
            raise PlanFailed("the drawing is not finite; if no precision helps, the checkpoint's weights are damaged")
        self._proven = True
        return pixels

    def _prompt(self, steps: Sampling, texts: tuple[str, ...], side: int) -> Prompt:
        if (key := (steps, texts, side)) not in self._prompts:
            agent = self._agent
            prompts = agent.prompts(texts)
            added = prompts.added(side)
            unet, controlnet = (
                tuple(embedding(network, step.t, len(texts), added) for step in steps.steps) if network else ()
                for network in (agent.unet, agent.controlnet)
            )
            self._prompts[key] = Prompt(prompts.tokens.to(self.plan.precision), unet, controlnet)
        return self._prompts[key]

    def _redraw(
        self, steps: Sampling, prompt: Prompt, tiles: Tensor, noise: Tensor, former: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pixels (B, H, W, 3) uint8, and whether all are finite; waits for nothing, so that a graph can hold it."""
        agent, precision = self._agent, self.plan.precision
        condition = agent.condition(agent.frames(tiles)).to(precision)
        if agent.controlnet is not None:
            condition = agent.controlnet.controlnet_cond_embedding(condition)
        latents = steps.noise * noise
        if former is not None:
            latents = latents + steps.clean * agent.encode(agent.frames(former))
        if self.plan.channels_last:
            latents = latents.contiguous(memory_format=torch.channels_last)
        added: Skips = ()
        for i, step in enumerate(steps.steps):
            noisy = (step.scale * latents).to(precision)
            prediction, added = self._predict(i, noisy, prompt, condition, added)
            latents = step.keep * latents + step.add * prediction.float()
        return self._pixels(latents)

    def _predict(self, i: int, noisy: Tensor, prompt: Prompt, condition: Tensor, added: Skips) -> tuple[Tensor, Skips]:
        unet, controlnet, tokens = self._agent.unet, self._agent.controlnet, prompt.tokens
        if controlnet is None:
            noisy = torch.cat([noisy, condition], 1)
        elif i % self._shortcuts.controlnet_every == 0:
            with _beside(self._side):
                added = self._controls(controlnet, noisy, prompt.controlnet[i], tokens, condition)
        middle, skips = self._encoded(unet, noisy, prompt.unet[i], tokens)
        if self._side:
            torch.cuda.current_stream().wait_stream(self._side)
        return self._decoded(unet, middle, skips, added, prompt.unet[i], tokens), added

    def _decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        latents = (latents / self._decoder.config.scaling_factor).to(self._decoded_in)
        images = self._decoder.decode(latents, return_dict=False)[0].float()
        return self._agent.pixels(images), torch.isfinite(images).all()

    def _graph(self, steps: Sampling, prompt: Prompt, inputs: Sequence[Tensor]) -> _Captured:
        shapes = steps, tuple(x.shape for x in (*inputs, *prompt.tensors))
        if shapes not in self._captured:
            self._captured[shapes] = _Captured(lambda *given: self._redraw(steps, *given), prompt, inputs)
        return self._captured[shapes]

    @contextlib.contextmanager
    def _failing_as_told(self) -> Iterator[None]:
        """Within it, what goes wrong on the device is a PlanFailed or a GenimaError."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise PlanFailed("the device has too little memory") from None
        except torch.AcceleratorError as error:
            if not self._proven and self.plan.cuda_graph:
                raise PlanFailed(f"the drawing cannot be captured: {_first_line(error)}") from None
            device = self._agent.device
            raise GenimaError(f"device {device} fails: {_first_line(error)}; look at its driver, start anew") from None
        except Exception as error:
            if not self._proven and self.plan.compile and not isinstance(error, GenimaError | PlanFailed):
                # Compilers raise what they like, from missing C compilers to faults of their own.
                raise PlanFailed(f"the networks cannot be compiled: {_first_line(error)}") from None
            raise


class _Captured:
    """All that a drawing does on a GPU, launched at once, on tensors that stay where they are.

    Source: PyTorch's documentation of CUDA graphs.
    """

    def __init__(
        self, redraw: Callable[..., tuple[Tensor, Tensor]], prompt: Prompt, inputs: Sequence[Tensor]
    ) -> None:
        copies = [x.clone() for x in prompt.tensors]
        n = len(prompt.unet)
        self._prompt = Prompt(copies[0], tuple(copies[1 : n + 1]), tuple(copies[n + 1 :]))
        self._holds, self._inputs = prompt, [x.clone() for x in inputs]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                redraw(self._prompt, *self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._drawn = redraw(self._prompt, *self._inputs)

    def __call__(self, prompt: Prompt, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Pixels and whether they are finite, valid until the next call."""
        if prompt is not self._holds:
            for mine, given in zip(self._prompt.tensors, prompt.tensors, strict=True):
                mine.copy_(given)
            self._holds = prompt
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._drawn


def _tiny_decoder(name: str) -> AutoencoderTiny:
    """One on the hub or in a folder, with weights in safetensors."""
    decoder = hub.load(
        lambda name, **options: AutoencoderTiny.from_pretrained(name, use_safetensors=True, **options),
        name, "the tiny decoder", "draw with the whole autoencoder",
    )  # fmt: skip
    return decoder.requires_grad_(False).eval()


def _require_range(network: nn.Module, precision: torch.dtype) -> None:
    """Raise PlanFailed where a weight would become infinite."""
    largest = torch.finfo(precision).max
    if any(parameter.abs().max() > largest for parameter in network.parameters() if parameter.numel()):
        raise PlanFailed(f"weights lie beyond what {precision} holds")


def _fuse_attention(network: nn.Module) -> None:
    """One product for queries, keys and values, or for the keys and values of the prompt."""
    for module in network.modules():
        if isinstance(module, Attention) and not module.fused_projections:
            module.fuse_projections()
            module.set_processor(FusedAttnProcessor2_0())


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genima" / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    return torch.compile(function, fullgraph=True, dynamic=False, mode="max-autotune-no-cudagraphs")


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


@contextlib.contextmanager
def _beside(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Run what is within on another stream of the GPU, after what has been asked for so far."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
