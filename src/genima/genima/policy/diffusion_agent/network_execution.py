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
from genima.policy.diffusion_agent.execution_config import ExecutionConfig, ExecutionFailed
from genima.policy.diffusion_agent.network_halves import Skips, controls, decoded, embedding, encoded
from genima.policy.diffusion_agent.sampling import Sampling
from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima.policy.diffusion_agent.weight_layout import WeightLayout

_FULL = "out of memory"
_WARM_UP = 3  # runs before one is captured: compilers and libraries choose their kernels in the first ones


@dataclass(frozen=True)
class Prompt:
    """Inputs of the networks besides latents: the same for all targets of a task."""

    tokens: Tensor  # (B, length, channels)
    unet: tuple[Tensor, ...]  # (B, channels) a step: its time and, in SDXL, the pooled prompt
    controlnet: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them."""
        return (self.tokens, *self.unet, *self.controlnet)


class DeviceNetworks:
    """Networks prepared for one execution config: their weights change type and layout in place."""

    def __init__(
        self, agent: DiffusionModel, weights: WeightLayout, config: ExecutionConfig, options: SamplingOptions
    ) -> None:
        """Raise ExecutionFailed where the config does not work here, and a GenimaError for an invalid tiny decoder."""
        self.config, self._agent, self._options = config, agent, options
        self._prompts: dict[tuple[Sampling, tuple[str, ...], int, int], Prompt] = {}
        self._captured: dict[Any, _Captured] = {}
        self._pool: Any = None  # memory that graphs share: the result of one is fetched before another runs
        self._proven: set[Any] = set()
        tiny = options.tiny_decoder
        self._decoder: Any = agent.vae if tiny is None else _tiny_decoder(tiny)
        autoencoders = {codec: self._codes_in(codec) for codec in (agent.vae, self._decoder)}
        self._decoded_in = autoencoders[self._decoder]
        networks = {network: config.precision for network in (agent.unet, agent.controlnet) if network is not None}
        with translate_device_errors(agent.device, config):
            weights.prepare(networks | autoencoders, agent.device, config)
            # Without a ControlNet there is nothing to run beside, and a stream that never waits cannot be captured.
            self._side = torch.cuda.Stream() if config.overlap and agent.controlnet is not None else None
            compiled = _compiled if config.compile else _unchanged
            self._controls, self._encoded = compiled(controls), compiled(encoded)
            self._decoded, self._pixels = compiled(decoded), compiled(_pixels)

    def _codes_in(self, autoencoder: Any) -> torch.dtype:
        """SDXL's autoencoder overflows in float16; the patch codec is too cheap to be rounded."""
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
            noise: (noises, N, C, h, w) to start from and of the steps, see ``Sampling.sample_noise``.
            previous: drawn targets of the same shape to start from, if ``steps`` do.

        Raises:
            ExecutionFailed: where the config does not work here: too little memory, no compiler or graph, a result
                that is not finite.
            GenimaError: when the device is lost.
        """
        device, key = self._agent.device, (steps, tiles.shape, previous is None)
        given = (tiles, noise) if previous is None else (tiles, noise, previous)
        with translate_device_errors(device, None if key in self._proven else self.config):
            height, width = (self._agent.latent_factor * pixels for pixels in noise.shape[-2:])
            prompt = self._prompt(steps, tuple(texts), height, width)
            if self.config.cuda_graph:
                if key not in self._captured:
                    self._captured[key] = self._capture(steps, prompt, given)
                result = self._captured[key](prompt, given)
            else:
                result = self._generate(steps, prompt, *(_sent(x, device) for x in given))
            pixels, finite = (x.to("cpu", non_blocking=True) for x in result)
            if device.type == "cuda":
                torch.cuda.current_stream().synchronize()
        if not finite:
            raise ExecutionFailed(
                "precision", "drawn target: not finite; if no precision helps, the checkpoint's weights are damaged"
            )
        self._proven.add(key)
        return pixels

    def _prompt(self, steps: Sampling, texts: tuple[str, ...], height: int, width: int) -> Prompt:
        if (key := (steps, texts, height, width)) not in self._prompts:
            agent = self._agent
            prompts = agent.prompts(texts)
            added = prompts.added(height, width)
            unet, controlnet = (
                tuple(embedding(network, step.t, len(texts), added) for step in steps.steps) if network else ()
                for network in (agent.unet, agent.controlnet)
            )
            self._prompts[key] = Prompt(prompts.tokens.to(self.config.precision), unet, controlnet)
        return self._prompts[key]

    def _generate(
        self, steps: Sampling, prompt: Prompt, tiles: Tensor, noise: Tensor, previous: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pixels (B, H, W, 3) uint8, and whether all are finite; waits for nothing, so that a graph can hold it."""
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
        return self._pixels(agent, self._decoder, self._decoded_in, latents)

    def _predict(self, i: int, noisy: Tensor, prompt: Prompt, condition: Tensor, added: Skips) -> tuple[Tensor, Skips]:
        unet, controlnet, tokens = self._agent.unet, self._agent.controlnet, prompt.tokens
        if controlnet is None:
            noisy = torch.cat([noisy, condition], 1)
        elif i % self._options.controlnet_every == 0:
            with _on_stream(self._side):
                added = self._controls(controlnet, noisy, prompt.controlnet[i], tokens, condition)
        middle, skips = self._encoded(unet, noisy, prompt.unet[i], tokens)
        if self._side:
            torch.cuda.current_stream().wait_stream(self._side)
        return self._decoded(unet, middle, skips, added, prompt.unet[i], tokens), added

    def _capture(self, steps: Sampling, prompt: Prompt, given: Sequence[Tensor]) -> _Captured:
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        inputs = [_sent(x, self._agent.device) for x in given]
        return _Captured(lambda *given: self._generate(steps, *given), prompt, inputs, self._pool)


class _Captured:
    """CUDA graph of one generation, on tensors at fixed addresses.

    Source: PyTorch's documentation of CUDA graphs.
    """

    def __init__(
        self, generate: Callable[..., tuple[Tensor, Tensor]], prompt: Prompt, inputs: Sequence[Tensor], pool: Any
    ) -> None:
        copies = [x.clone() for x in prompt.tensors]
        n = len(prompt.unet)
        self._prompt = Prompt(copies[0], tuple(copies[1 : n + 1]), tuple(copies[n + 1 :]))
        self._holds, self._inputs = prompt, [x.clone() for x in inputs]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                generate(self._prompt, *self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.stream(torch.cuda.current_stream()),  # a capture that fails leaves its own in force
            torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"),
        ):
            self._result = generate(self._prompt, *self._inputs)

    def __call__(self, prompt: Prompt, given: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Pixels and whether they are finite, valid until the next call; ``given`` is on the host."""
        if prompt is not self._holds:
            for mine, theirs in zip(self._prompt.tensors, prompt.tensors, strict=True):
                mine.copy_(theirs)
            self._holds = prompt
        for mine, theirs in zip(self._inputs, given, strict=True):
            mine.copy_(theirs.pin_memory(), non_blocking=True)
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
    """Pixels (B, H, W, 3) uint8, and whether all is finite: a tiny decoder makes finite pictures of anything."""
    scaled = (latents / decoder.config.scaling_factor).to(precision)
    images = decoder.decode(scaled, return_dict=False)[0].float()
    return agent.pixels(images).contiguous(), torch.isfinite(latents).all() & torch.isfinite(images).all()


def _sent(x: Tensor, device: torch.device) -> Tensor:
    """Copy to the device without waiting."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genima" / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    return torch.compile(function, fullgraph=True, dynamic=False, mode="max-autotune-no-cudagraphs")


def _unchanged(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


@contextlib.contextmanager
def _on_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Run the body on another stream of the GPU, after all work queued so far."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield


@contextlib.contextmanager
def translate_device_errors(device: torch.device, unproven: ExecutionConfig | None = None) -> Iterator[None]:
    """Make the device the current one, and turn its errors into ExecutionFailed or GenimaError.

    Args:
        unproven: the config, before its first result.
    """
    try:
        with _current(device):
            yield
    except (ExecutionFailed, GenimaError):
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and _FULL in str(error)):
            raise ExecutionFailed("memory", "the device has too little memory") from None
        if isinstance(error, torch.AcceleratorError):
            if unproven and unproven.cuda_graph:
                raise ExecutionFailed("capture", f"the CUDA graph cannot be captured: {reason}") from None
            raise GenimaError(f"device {device}: failed ({reason}); check its driver and restart") from None
        if unproven and unproven.compile:  # compilers raise what they like, from missing ones to faults of their own
            raise ExecutionFailed("compiler", f"the networks cannot be compiled: {reason}") from None
        if isinstance(error, RuntimeError) and device.type == "cuda":  # what its libraries raise
            raise ExecutionFailed("capture" if unproven and unproven.cuda_graph else "device", reason) from None
        raise


@contextlib.contextmanager
def _current(device: torch.device) -> Iterator[None]:
    """Streams, graphs and libraries take the current GPU; convolutions are chosen by trying, for shapes stay."""
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    with torch.cuda.device(device), cudnn.flags(enabled=True, benchmark=True, allow_tf32=cudnn.allow_tf32):
        yield
