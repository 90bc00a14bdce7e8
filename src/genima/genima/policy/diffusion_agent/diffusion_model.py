"""Latent diffusion model of drawn targets: networks, prompts and sampling."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, SchedulerMixin, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from genima.cameras.tiling import tile_grid
from genima.errors import GenimaError
from genima.policy.diffusion_agent.patch_autoencoder import PatchCodec
from genima.policy.diffusion_agent.prompts import PromptEncoder, Prompts
from genima.policy.diffusion_agent.sampling import sampling_schedule
from genima.policy.precision import half_precision
from genima.policy.spec import PolicySpec


class DiffusionModel:
    """Diffusion model that generates tiles with target spheres from tiles of the scene and instructions.

    It is conditioned on the scene through a ControlNet, or through the UNet's input as in InstructPix2Pix (Brooks et
    al., 2023).
    """

    def __init__(
        self,
        spec: PolicySpec,
        unet: UNet2DConditionModel,
        controlnet: ControlNetModel | None,
        vae: AutoencoderKL | PatchCodec,
        prompts: PromptEncoder,
        scheduler: SchedulerMixin,
        steps: int,
        tiled: bool = True,
    ) -> None:
        """Networks are as in diffusers' pipelines.

        Args:
            steps: diffusion steps of a drawn target.
            tiled: generate the views as one image; else each by itself at the tile's size (for the paper's ablation).
        """
        self.spec, self.steps, self.tiled = spec, steps, tiled
        self.unet, self.controlnet, self.vae, self.prompts, self.scheduler = unet, controlnet, vae, prompts, scheduler

    @property
    def views(self) -> tuple[str, ...]:
        """Views in tile order, row by row."""
        return self.spec.views

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return self.unet.device

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Networks by folder name."""
        modules = {"unet": self.unet, "controlnet": self.controlnet, "vae": self.vae}
        modules |= {name: encoder for name, encoder in zip(TEXT_ENCODERS, self.prompts.encoders, strict=False)}
        return {name: module for name, module in modules.items() if module is not None}

    @torch.inference_mode()
    def generate_tiles(
        self, tiles: Tensor, instructions: Sequence[str], generator: torch.Generator, steps: int | None = None
    ) -> Tensor:
        """Generate a batch of tiles from tiles (B, H, W, 3) uint8 rgb; same shape and type, on the CPU.

        ``steps`` is the number of diffusion steps; None: the model's. Networks are not converted: for training, and
        as reference of :class:`genima.policy.diffusion_agent.compiled_pipeline.CompiledPipeline`.
        """
        condition, prompts = self.condition(self.frames(tiles)), self.prompts(self.texts(instructions))
        schedule = sampling_schedule(self.scheduler, steps or self.steps)

        def predict(i: int, noisy: Tensor) -> Tensor:
            with half_precision(self.device):
                return self.predict(noisy, torch.tensor(schedule.steps[i].t), prompts, condition)

        latents = schedule.denoise(schedule.sample_noise(self.latent_shape(tiles), generator).to(self.device), predict)
        images = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        if not torch.isfinite(images).all():
            raise GenimaError("drawn target: not finite; the checkpoint's weights are damaged")
        return self.pixels(images).cpu()

    def texts(self, instructions: Sequence[str]) -> list[str]:
        """Return the prompts of a batch of tiles, one for each frame, each with the goal."""
        if self.tiled:
            return [self.spec.prompt(instruction) for instruction in instructions]
        return [self.spec.prompt(instruction, view) for instruction in instructions for view in self.views]

    def frames(self, tiles: Tensor) -> Tensor:
        """Convert tiles (B, H, W, 3) uint8 to frames (N, 3, H, W) in 0..1: the tiles, or each view enlarged."""
        pixels = tiles.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        if not self.tiled:
            pixels = F.interpolate(split_tile(pixels, len(self.views)), scale_factor=2, mode="bilinear")
        return pixels.contiguous(memory_format=torch.channels_last)

    def pixels(self, images: Tensor) -> Tensor:
        """Convert frames (N, 3, H, W) in -1..1 to tiles (B, H, W, 3) uint8: the inverse of :meth:`frames`."""
        images = (images / 2 + 0.5).clamp(0, 1)
        if not self.tiled:
            images = join_tile(F.interpolate(images, scale_factor=0.5, mode="area"), len(self.views))
        return (images * 255).round().byte().permute(0, 2, 3, 1)

    def latent_shape(self, tiles: Tensor) -> tuple[int, int, int, int]:
        """Return the shape (N, C, h, w) of the latents of tiles (B, H, W, 3)."""
        n, (height, width) = len(tiles), tiles.shape[1:3]
        if not self.tiled:
            rows, columns = tile_grid(len(self.views))
            n, height, width = n * len(self.views), 2 * height // rows, 2 * width // columns
        return n, self.unet.config.out_channels, height // self.latent_factor, width // self.latent_factor

    @property
    def latent_factor(self) -> int:
        """Pixels per latent, along a side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode(self, frames: Tensor, sample: bool = False) -> Tensor:
        """Encode frames in 0..1 to latents, scaled for the UNet.

        Args:
            sample: sample the autoencoder's distribution by the global generator; else use its mode.
        """
        with torch.autocast(self.device.type, enabled=False):  # some autoencoders overflow in float16
            distribution = self.vae.encode((frames * 2 - 1).to(self.vae.dtype)).latent_dist
            latents = (distribution.sample() if sample else distribution.mode()).float()
        return latents.contiguous(memory_format=torch.channels_last) * self.vae.config.scaling_factor

    def condition(self, frames: Tensor) -> Tensor:
        """Return the networks' condition on the scene: frames (N, 3, H, W) in 0..1, or their latents.

        Released ControlNets encode pixels; one with as many conditioning channels as latents takes those of the frozen
        autoencoder (GENIMA paper, appendix D). InstructPix2Pix takes unscaled latents.
        """
        if self.controlnet is None:
            return self.encode(frames) / self.vae.config.scaling_factor
        if self.controlnet.config.conditioning_channels == frames.shape[1]:
            return frames
        return self.encode(frames)

    def predict(self, noisy: Tensor, t: Tensor, prompts: Prompts, condition: Tensor) -> Tensor:
        """Predict noise, sample or velocity (by the scheduler's prediction type) from noisy latents."""
        added = prompts.added_cond_kwargs(*(self.latent_factor * pixels for pixels in noisy.shape[-2:]))
        text: dict[str, Any] = {"encoder_hidden_states": prompts.tokens, "added_cond_kwargs": added}
        if self.controlnet is None:
            return self.unet(torch.cat([noisy, condition], dim=1), t, **text, return_dict=False)[0]
        down, middle = self.controlnet(noisy, t, controlnet_cond=condition, **text, return_dict=False)
        half = None if self.unet.dtype == torch.float32 else self.unet.dtype
        # Weights in half precision need no autocast, which would run norms in single precision.
        with torch.autocast(self.device.type, enabled=False) if half else contextlib.nullcontext():
            text["encoder_hidden_states"] = prompts.tokens.to(dtype=half)
            return self.unet(
                noisy.to(dtype=half), t, **text, down_block_additional_residuals=[x.to(dtype=half) for x in down],
                mid_block_additional_residual=middle.to(dtype=half), return_dict=False,
            )[0]  # fmt: skip


TEXT_ENCODERS = ("text_encoder", "text_encoder_2")  # folders


def split_tile(images: Tensor, views: int) -> Tensor:
    """Split (B, C, rows h, columns w) tiles into (views B, C, h, w) views, each tile's row by row."""
    (B, C, H, W), (rows, columns) = images.shape, tile_grid(views)
    h, w = H // rows, W // columns
    cells = images.reshape(B, C, rows, h, columns, w).permute(0, 2, 4, 1, 3, 5).reshape(B, rows * columns, C, h, w)
    return cells[:, :views].reshape(B * views, C, h, w)


def join_tile(images: Tensor, views: int) -> Tensor:
    """Return the inverse of :func:`split_tile`; unused cells are 0."""
    (N, C, h, w), (rows, columns) = images.shape, tile_grid(views)
    cells = F.pad(images.reshape(N // views, views, C, h, w), (0,) * 7 + (rows * columns - views,))
    return cells.reshape(-1, rows, columns, C, h, w).permute(0, 3, 1, 4, 2, 5).reshape(-1, C, rows * h, columns * w)
