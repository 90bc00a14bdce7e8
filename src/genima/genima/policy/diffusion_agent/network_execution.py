"""Execution of a diffusion model's networks on a device."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor

from genima.errors import GenimaError
from genima.io import hub
from genima.policy.diffusion_agent.diffusion_model import DiffusionModel
from genima.policy.diffusion_agent.execution_config import ExecutionConfig, ExecutionError
from genima.policy.diffusion_agent.network_halves import Skips, controlnet_residuals, decode, encode, time_embedding
from genima.policy.diffusion_agent.sampling import Sampling
from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima.policy.diffusion_agent.weight_layout import WeightLayout

_FULL = "out of memory"
_WARM_UP = 3  # runs before a capture: compilers and libraries choose kernels in the first runs


@dataclass(frozen=True)
class Prompt:
    """Inputs of the networks except latents, constant for a task."""

    tokens: Tensor  # (B, length, channels)
    unet: tuple[Tensor, ...]  # (B, channels) per step: time and, in SDXL, pooled prompt
    controlnet: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors."""
        return (self.tokens, *self.unet, *self.controlnet)


class DeviceNetworks:
    """Networks prepared for one execution config: their weights change type and layout in place."""

    def __init__(
        self, agent: DiffusionModel, weights: WeightLayout, config: ExecutionConfig, options: SamplingOptions
    ) -> None:
        """Raises:
        ExecutionError: where the config does not work on this machine.
        GenimaError: for an invalid tiny decoder.
        """
        self.config, self._agent, self._options = config, agent, options
        self._prompts: dict[tuple[Sampling, tuple[str, ...], int, int], Prompt] = {}
        self._graphs: dict[Any, _CudaGraph] = {}
        self._pool: Any = None  # memory shared by the graphs: a result is fetched before another graph runs
        self._verified: set[Any] = set()
        tiny = options.tiny_decoder
        self._decoder: Any = agent.vae if tiny is None else _tiny_decoder(tiny)
        autoencoders = {codec: self._autoencoder_dtype(codec) for codec in (agent.vae, self._decoder)}
        self._decoder_dtype = autoencoders[self._decoder]
        networks = {network: config.precision for network in (agent.unet, agent.controlnet) if network is not None}
        with translate_device_errors(agent.device, config):
            weights.prepare(networks | autoencoders, agent.device, config)
            # Without a ControlNet nothing runs in parallel, and a stream that never waits cannot be captured.
            self._side = torch.cuda.Stream() if config.overlap and agent.controlnet is not None else None
            prepare = _compile if config.compile else _identity
            self._controlnet_residuals, self._encode = prepare(controlnet_residuals), prepare(encode)
            self._decode, self._pixels = prepare(decode), prepare(_pixels)

    def _autoencoder_dtype(self, autoencoder: Any) -> torch.dtype:
        """Return the precision of an autoencoder: SDXL's overflows in float16; the patch codec is fast in float32."""
        if not isinstance(autoencoder, AutoencoderKL | AutoencoderTiny):
            return torch.float32
        overflows = len(self._agent.prompts.encoders) > 1 and getattr(autoencoder.config, "force_upcast", False)
        return torch.float32 if overflows and self.config.precision == torch.float16 else self.config.precision

    @torch.inference_mode()
    def generate_tiles(
        self, tiles: Tensor, texts: Sequence[str], noise: Tensor, steps: Sampling, previous: Tensor | None = None
    ) -> Tensor:
        """Generate a batch of tiles from tiles (B, H, W, 3) uint8 rgb; same shape and type, on the CPU.

        Args:
            texts: the networks' prompts, see ``DiffusionModel.texts``.
            noise: (noises, N, C, h, w) of the start and of the steps, see ``Sampling.sample_noise``.
            previous: drawn targets of the same shape, the start of a partial schedule.

        Raises:
            ExecutionError: where the config fails: too little memory, no compiler or graph, a result that is not
                finite.
            GenimaError: when the device is lost.
        """
        device, key = self._agent.device, (steps, tiles.shape, previous is None)
        inputs = (tiles, noise) if previous is None else (tiles, noise, previous)
        with translate_device_errors(device, None if key in self._verified else self.config):
            height, width = (self._agent.latent_factor * pixels for pixels in noise.shape[-2:])
            prompt = self._prompt(steps, tuple(texts), height, width)
            if self.config.cuda_graph:
                if key not in self._graphs:
                    self._graphs[key] = self._capture(steps, prompt, inputs)
                result = self._graphs[key](prompt, inputs)
            else:
                result = self._generate(steps, prompt, *(_to_device(x, device) for x in inputs))
            pixels, finite = (x.to("cpu", non_blocking=True) for x in result)
            if device.type == "cuda":
                torch.cuda.current_stream().synchronize()
        if not finite:
            raise ExecutionError(
                "precision", "drawn target: not finite; if no precision helps, the checkpoint's weights are damaged"
            )
        self._verified.add(key)
        return pixels

    def _prompt(self, steps: Sampling, texts: tuple[str, ...], height: int, width: int) -> Prompt:
        if (key := (steps, texts, height, width)) not in self._prompts:
            agent = self._agent
            prompts = agent.prompts(texts)
            added = prompts.added_cond_kwargs(height, width)
            unet, controlnet = (
                tuple(time_embedding(network, step.t, len(texts), added) for step in steps.steps) if network else ()
                for network in (agent.unet, agent.controlnet)
            )
            self._prompts[key] = Prompt(prompts.tokens.to(self.config.precision), unet, controlnet)
        return self._prompts[key]

    def _generate(
        self, steps: Sampling, prompt: Prompt, tiles: Tensor, noise: Tensor, previous: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return pixels (B, H, W, 3) uint8 and their finiteness, without synchronisation: a graph can capture it."""
        agent, precision = self._agent, self.config.precision
        condition = agent.condition(agent.frames(tiles)).to(precision)
        if agent.controlnet is not None:
            condition = agent.controlnet.controlnet_cond_embedding(condition)
        added: Skips = ()

        def predict(i: int, noisy: Tensor) -> Tensor:
            nonlocal added
            prediction, added = self._predict(i, noisy.to(precision), prompt, condition, added)
            return prediction

        clean = None if previous is None else agent.encode(agent.frames(previous))
        memory_format = torch.channels_last if self.config.channels_last else torch.contiguous_format
        latents = steps.denoise(noise, predict, clean, memory_format)
        return self._pixels(agent, self._decoder, self._decoder_dtype, latents)

    def _predict(self, i: int, noisy: Tensor, prompt: Prompt, condition: Tensor, added: Skips) -> tuple[Tensor, Skips]:
        unet, controlnet, tokens = self._agent.unet, self._agent.controlnet, prompt.tokens
        if controlnet is None:
            noisy = torch.cat([noisy, condition], 1)
        elif i % self._options.controlnet_every == 0:
            with _on_stream(self._side):
                added = self._controlnet_residuals(controlnet, noisy, prompt.controlnet[i], tokens, condition)
        middle, skips = self._encode(unet, noisy, prompt.unet[i], tokens)
        if self._side:
            torch.cuda.current_stream().wait_stream(self._side)
        return self._decode(unet, middle, skips, added, prompt.unet[i], tokens), added

    def _capture(self, steps: Sampling, prompt: Prompt, inputs: Sequence[Tensor]) -> _CudaGraph:
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        inputs = [_to_device(x, self._agent.device) for x in inputs]
        return _CudaGraph(lambda *inputs: self._generate(steps, *inputs), prompt, inputs, self._pool)


class _CudaGraph:
    """CUDA graph of one generation, on tensors at fixed addresses.

    Source: PyTorch documentation, CUDA graphs.
    """

    def __init__(
        self, generate: Callable[..., tuple[Tensor, Tensor]], prompt: Prompt, inputs: Sequence[Tensor], pool: Any
    ) -> None:
        copies = [x.clone() for x in prompt.tensors]
        n = len(prompt.unet)
        self._prompt = Prompt(copies[0], tuple(copies[1 : n + 1]), tuple(copies[n + 1 :]))
        self._current_prompt, self._inputs = prompt, [x.clone() for x in inputs]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                generate(self._prompt, *self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.stream(torch.cuda.current_stream()),  # a failed capture does not restore the stream
            torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"),
        ):
            self._result = generate(self._prompt, *self._inputs)

    def __call__(self, prompt: Prompt, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return pixels and their finiteness, valid until the next call; ``inputs`` are on the host."""
        if prompt is not self._current_prompt:
            for own, other in zip(self._prompt.tensors, prompt.tensors, strict=True):
                own.copy_(other)
            self._current_prompt = prompt
        for own, other in zip(self._inputs, inputs, strict=True):
            own.copy_(other.pin_memory(), non_blocking=True)
        self._graph.replay()
        return self._result


def _tiny_decoder(name: str) -> AutoencoderTiny:
    """Load a tiny decoder from the hub or a folder, with weights in safetensors."""
    decoder = hub.load(
        lambda name, **options: AutoencoderTiny.from_pretrained(name, use_safetensors=True, **options),
        name, "the tiny decoder", "use the whole autoencoder",
    )  # fmt: skip
    return decoder.requires_grad_(False).eval()


def _pixels(agent: DiffusionModel, decoder: Any, precision: torch.dtype, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return pixels (B, H, W, 3) uint8 and finiteness, also of the latents: tiny decoders hide infinite ones."""
    scaled = (latents / decoder.config.scaling_factor).to(precision)
    images = decoder.decode(scaled, return_dict=False)[0].float()
    return agent.pixels(images).contiguous(), torch.isfinite(latents).all() & torch.isfinite(images).all()


def _to_device(x: Tensor, device: torch.device) -> Tensor:
    """Copy to the device without synchronisation."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genima" / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    return torch.compile(function, fullgraph=True, dynamic=False, mode="max-autotune-no-cudagraphs")


def _identity(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


@contextlib.contextmanager
def _on_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Run the body on another GPU stream, after all queued work."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield


@contextlib.contextmanager
def translate_device_errors(device: torch.device, untested: ExecutionConfig | None = None) -> Iterator[None]:
    """Make the device current, and translate its errors into ExecutionError or GenimaError.

    Args:
        untested: config before its first result.
    """
    try:
        with _current_device(device):
            yield
    except (ExecutionError, GenimaError):
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and _FULL in str(error)):
            raise ExecutionError("memory", "the device has too little memory") from None
        if isinstance(error, torch.AcceleratorError):
            if untested and untested.cuda_graph:
                raise ExecutionError("capture", f"the CUDA graph cannot be captured: {reason}") from None
            raise GenimaError(f"device {device}: failed ({reason}); check its driver and restart") from None
        if untested and untested.compile:  # compilers raise any exception
            raise ExecutionError("compiler", f"the networks cannot be compiled: {reason}") from None
        if isinstance(error, RuntimeError) and device.type == "cuda":  # of its libraries
            raise ExecutionError("capture" if untested and untested.cuda_graph else "device", reason) from None
        raise


@contextlib.contextmanager
def _current_device(device: torch.device) -> Iterator[None]:
    """Make the GPU current for streams, graphs and libraries, and benchmark convolutions: shapes are constant."""
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    with torch.cuda.device(device), cudnn.flags(enabled=True, benchmark=True, allow_tf32=cudnn.allow_tf32):
        yield
