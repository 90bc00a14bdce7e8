"""The diffusion agent: a ControlNet-conditioned latent diffusion model, in the folders that diffusers uses."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, SchedulerMixin, UNet2DConditionModel
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, PreTrainedTokenizerBase

from genima import checkpoint
from genima.checkpoint import DrawingSpec
from genima.diffusion.patch_codec import PatchCodec
from genima.errors import GenimaError
from genima.observation import DrawnTarget, Image, Observation
from genima.precision import half_precision
from genima.robot.model import RobotModel
from genima.views.tiling import tile


class DiffusionAgent:
    """Draws where the joints should be K steps from now, on the tile of four views."""

    def __init__(
        self,
        spec: DrawingSpec,
        unet: UNet2DConditionModel,
        controlnet: ControlNetModel,
        vae: AutoencoderKL | PatchCodec,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: SchedulerMixin,
        steps: int,
    ) -> None:
        """``steps`` is the number of diffusion steps of a drawing; everything else is as in diffusers' pipelines."""
        self.spec, self.steps = spec, steps
        self.unet, self.controlnet, self.vae = unet, controlnet, vae
        self.text_encoder, self.tokenizer, self.scheduler = text_encoder, tokenizer, scheduler
        self.robot = RobotModel.load(spec.robot)
        spec.require_robot(self.robot, "the diffusion agent")
        self._prompt_embeds: dict[str, Tensor] = {}

    @property
    def views(self) -> tuple[str, ...]:
        """Tile order, row by row."""
        return self.spec.views

    @property
    def camera_size(self) -> int:
        """Side in px of the square images that ``draw`` takes."""
        return self.spec.camera_size

    @property
    def device(self) -> torch.device:
        """Where the drawing happens."""
        return self.unet.device

    @property
    def modules(self) -> dict[str, Any]:
        """The networks by their folder name."""
        return {
            "unet": self.unet,
            "controlnet": self.controlnet,
            "vae": self.vae,
            "text_encoder": self.text_encoder,
        }

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu") -> DiffusionAgent:
        """Load a checkpoint folder (safetensors only).

        Raises:
            GenimaError: when it is missing, damaged, or of another schema or robot, or there is no such device.
        """
        folder = Path(folder)
        checkpoint.require_device(device)
        spec, rest = checkpoint.read(folder, checkpoint.DIFFUSION_AGENT)
        with checkpoint.loading(folder):
            scheduler_class = getattr(diffusers, rest["scheduler"])
            vae_class = {"AutoencoderKL": AutoencoderKL, "PatchCodec": PatchCodec}[rest["vae"]]
            safe = {"use_safetensors": True, "output_loading_info": True}
            options: dict[str, Any] = {
                **safe,
                "torch_dtype": torch.float32,
                "low_cpu_mem_usage": False,
                "device_map": None,
            }
            agent = cls(
                spec,
                _whole(UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **options)),
                _whole(ControlNetModel.from_pretrained(folder, subfolder="controlnet", **options)),
                _whole(vae_class.from_pretrained(folder, subfolder="vae", **options)),
                _whole(CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32, **safe)),
                AutoTokenizer.from_pretrained(folder / "tokenizer"),
                scheduler_class.from_pretrained(folder, subfolder="scheduler"),
                int(rest["steps"]),
            )
        for module in agent.modules.values():
            module.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)
        return agent

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint; ``genima.json`` comes last, so that half a folder is never taken for a whole one."""
        folder = Path(folder)
        (folder / checkpoint.FILE).unlink(missing_ok=True)
        for name, module in self.modules.items():
            module.save_pretrained(folder / name, safe_serialization=True)
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.scheduler.save_pretrained(folder / "scheduler")
        checkpoint.write(
            folder, checkpoint.DIFFUSION_AGENT, self.spec,
            steps=self.steps, scheduler=type(self.scheduler).__name__, vae=type(self.vae).__name__,
        )  # fmt: skip

    def draw(self, observation: Observation, seed: int) -> DrawnTarget:
        """Draw the target spheres for one observation; the same seed and observation give the same drawing.

        Raises:
            GenimaError: for a missing view, an image of another size, no instruction or a drawing that is not finite.
        """
        started = time.perf_counter()
        if not observation.instruction.strip():
            raise GenimaError("there is no instruction to draw for")
        views = {view: self._view(observation, view) for view in self.views}
        pixels = self.draw_pixels(
            torch.from_numpy(tile(views, self.views))[None],
            [observation.instruction],
            torch.Generator().manual_seed(seed),
        )
        return DrawnTarget(
            observation.stamp, observation.instruction, self.views, pixels[0].numpy(),
            self.steps, seed, time.perf_counter() - started,
        )  # fmt: skip

    def _view(self, observation: Observation, view: str) -> Image:
        if view not in observation.images:
            raise GenimaError(f"the observation has no image of view {view}")
        image, size = observation.images[view], self.camera_size
        if image.shape != (size, size, 3):
            raise GenimaError(
                f"the image of view {view} has shape {image.shape}; the checkpoint takes ({size}, {size}, 3)"
            )
        return resize(image, self.spec.view_size)

    @torch.inference_mode()
    def draw_pixels(self, tiles: Tensor, instructions: list[str], generator: torch.Generator) -> Tensor:
        """Draw a batch of tiles (B, H, W, 3) uint8 rgb; returns the same shape and type, on the CPU."""
        condition = self.condition(tiles)
        embeds = torch.cat([self._embed(instruction) for instruction in instructions])
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        shape = (len(tiles), self.unet.config.in_channels, tiles.shape[1] // factor, tiles.shape[2] // factor)
        self.scheduler.set_timesteps(self.steps)
        latents = torch.randn(shape, generator=generator).to(self.device) * self.scheduler.init_noise_sigma
        for t in self.scheduler.timesteps:
            scaled = self.scheduler.scale_model_input(latents, t)
            with half_precision(self.device):
                down, middle = self.controlnet(scaled, t, embeds, condition, return_dict=False)
                prediction = self.unet(
                    scaled, t, embeds,
                    down_block_additional_residuals=down, mid_block_additional_residual=middle, return_dict=False,
                )[0]  # fmt: skip
            latents = self.scheduler.step(prediction.float(), t, latents, return_dict=False)[0]
        images = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        if not torch.isfinite(images).all():
            raise GenimaError("the drawing is not finite: the checkpoint's weights are damaged")
        return ((images / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu()

    def condition(self, tiles: Tensor) -> Tensor:
        """What the ControlNet sees of tiles (B, H, W, 3) uint8: pixels (B, 3, H, W) in 0..1, or their latents.

        Released ControlNets learn to encode pixels; one that takes as many channels as there are latents is given
        those of the frozen autoencoder (GENIMA paper, appendix D).
        """
        pixels = tiles.to(self.device).permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last) / 255
        if self.controlnet.config.conditioning_channels == pixels.shape[1]:
            return pixels
        return self.vae.encode(pixels * 2 - 1).latent_dist.mode() * self.vae.config.scaling_factor

    def _embed(self, instruction: str) -> Tensor:
        if instruction not in self._prompt_embeds:
            self._prompt_embeds[instruction] = self.embed([self.spec.prompt(instruction)])
        return self._prompt_embeds[instruction]

    def forget_prompts(self) -> None:
        """Drop the embeddings kept from earlier drawings, after the text encoder has changed."""
        self._prompt_embeds.clear()

    def embed(self, prompts: list[str]) -> Tensor:
        """Text embeddings (B, tokens, channels) of whole prompts."""
        tokens = self.tokenizer(
            prompts,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoder(tokens.input_ids.to(self.text_encoder.device)).last_hidden_state


def _whole(loaded: tuple[Any, Mapping[str, Any]]) -> Any:
    """The model that was loaded; the libraries only warn of missing weights and go on with random ones."""
    model, info = loaded
    if missing := info["missing_keys"]:
        raise ValueError(f"{type(model).__name__} lacks weights such as {min(missing)}")
    return model


def resize(image: Image, size: int) -> Image:
    """A square image at another size; by area, so that shrinking does not alias."""
    if image.shape[0] == size:
        return image
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
