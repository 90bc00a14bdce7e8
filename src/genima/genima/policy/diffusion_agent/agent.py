"""The diffusion agent: redraws a tile of views by a latent diffusion model, in the folders that diffusers uses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, SchedulerMixin, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

from genima.cameras.camera import VIRTUAL
from genima.cameras.tiling import fit, tile
from genima.errors import GenimaError
from genima.io import model_files
from genima.policy import spec as checkpoint
from genima.policy.diffusion_agent.compiled_pipeline import CompiledPipeline
from genima.policy.diffusion_agent.patch_autoencoder import PatchCodec
from genima.policy.diffusion_agent.pretrained_base import BaseModel, load_base
from genima.policy.diffusion_agent.prompts import PromptEncoder, Prompts
from genima.policy.diffusion_agent.sampling import sampling
from genima.policy.precision import half_precision
from genima.policy.small_text_encoder import load_tokenizer
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.types import DrawnTarget, Image, Observation

_RECENT = 2.0  # s between observations: in more the arm goes through a whole chunk, and what was drawn is behind it


class DiffusionAgent:
    """Draws where the joints should be K steps from now, on the tile of four views.

    The scene conditions the drawing through a ControlNet, or without one through the UNet's own input, as in
    InstructPix2Pix (Brooks et al., 2023).
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
        base: BaseModel | None = None,
    ) -> None:
        """Networks are as in diffusers' pipelines.

        Args:
            steps: diffusion steps of a drawing.
            tiled: draw the views as one picture; else each by itself at the tile's size (for the paper's ablation).
            base: where the parts come from that were not trained; checkpoints then leave them out.
        """
        self.spec, self.steps, self.tiled, self.base = spec, steps, tiled, base
        self.unet, self.controlnet, self.vae, self.prompts, self.scheduler = unet, controlnet, vae, prompts, scheduler
        self.robot = RobotModel.load(spec.robot)
        spec.require_robot(self.robot, "the diffusion agent")
        self._virtual: Any = None
        self._engine: CompiledPipeline | None = None

    @property
    def views(self) -> tuple[str, ...]:
        """Tile order, row by row."""
        return self.spec.views

    @property
    def camera_views(self) -> tuple[str, ...]:
        """The views that need a camera's image."""
        return tuple(view for view in self.views if view != VIRTUAL)

    @property
    def camera_size(self) -> tuple[int, int]:
        """Width and height in px of the images that ``draw`` takes."""
        return self.spec.camera_size

    @property
    def device(self) -> torch.device:
        """Where the drawing happens."""
        return self.unet.device

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The networks by their folder name."""
        modules = {"unet": self.unet, "controlnet": self.controlnet, "vae": self.vae}
        modules |= {name: encoder for name, encoder in zip(_TEXT_ENCODERS, self.prompts.encoders, strict=False)}
        return {name: module for name, module in modules.items() if module is not None}

    @property
    def own_modules(self) -> dict[str, nn.Module]:
        """The networks that a checkpoint holds: all, or those that were trained on top of the base."""
        if self.base is None:
            return self.modules
        return {"unet": self.unet} if self.controlnet is None else {"controlnet": self.controlnet}

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu") -> DiffusionAgent:
        """Load a checkpoint folder (safetensors only), and the base model that it names.

        Raises:
            GenimaError: when it is missing, damaged, or of another schema, robot or base, or there is no such device.
        """
        checkpoint.require_device(device)
        folder = checkpoint.resolve(folder)
        spec, rest = checkpoint.read(folder, checkpoint.DIFFUSION_AGENT)
        with checkpoint.loading(folder):
            scheduler = model_files.load_scheduler(folder / "scheduler", rest["scheduler"])
            controlnet = _load(ControlNetModel, folder, "controlnet") if rest["conditioning"] == "controlnet" else None
            name, fingerprint = rest["base"], rest["base_fingerprint"]
            if base := load_base(name) if name else None:
                if base.fingerprint != fingerprint:
                    raise GenimaError(f"checkpoint {folder} was trained on another version of {base.name}")
                unet = base.unet if controlnet else _load(UNet2DConditionModel, folder, "unet")
                vae, prompts = base.vae, base.prompts
            else:
                unet, vae = _load(UNet2DConditionModel, folder, "unet"), _load(PatchCodec, folder, "vae")
                config = CLIPTextConfig.from_pretrained(folder / "text_encoder")
                model_files.require_network(CLIPTextModel, folder / "text_encoder", config)
                encoder = CLIPTextModel.from_pretrained(
                    folder / "text_encoder", dtype=torch.float32, use_safetensors=True, output_loading_info=True
                )
                prompts = PromptEncoder([load_tokenizer(folder / "tokenizer")], [_whole(encoder)])
            agent = cls(spec, unet, controlnet, vae, prompts, scheduler, int(rest["steps"]), bool(rest["tiled"]), base)
        try:
            for module in agent.modules.values():
                module.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        except torch.OutOfMemoryError:
            raise GenimaError(f"the memory of {device} is too small for the checkpoint {folder}, or in use") from None
        with checkpoint.loading(folder):
            agent._try()
        return agent

    @torch.inference_mode()
    def _try(self) -> None:
        """Draw once, as small and in as few steps as can be: parts that do not fit together raise here."""
        side = 8 * self._factor
        tiles, goal = torch.zeros(1, side, side, 3, dtype=torch.uint8), "do " * 100  # longer than any prompt
        sampling(self.scheduler, self.steps)
        if self.draw_pixels(tiles, [goal], torch.Generator().manual_seed(0), steps=1).shape != tiles.shape:
            raise ValueError("what it draws is of another size than what it sees")

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint; ``genima.json`` comes last, so that half a folder is never taken for a whole one."""
        folder = Path(folder)
        (folder / checkpoint.FILE).unlink(missing_ok=True)
        for name, module in self.own_modules.items():
            module.save_pretrained(folder / name, safe_serialization=True)  # type: ignore[operator]
        if self.base is None:
            self.prompts.tokenizers[0].save_pretrained(folder / "tokenizer")
        self.scheduler.save_pretrained(folder / "scheduler")
        checkpoint.write(
            folder, checkpoint.DIFFUSION_AGENT, self.spec,
            steps=self.steps, scheduler=type(self.scheduler).__name__, tiled=self.tiled,
            conditioning="controlnet" if self.controlnet else "unet",
            base=self.base.name if self.base else None,
            base_fingerprint=self.base.fingerprint if self.base else None,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------------ in use

    @property
    def engine(self) -> CompiledPipeline:
        """What draws in use. From its first drawing on, the networks are in the engine's precision."""
        if self._engine is None:
            self._engine = CompiledPipeline(self)
        return self._engine

    @engine.setter
    def engine(self, engine: CompiledPipeline) -> None:
        self._engine = engine

    def generate(self, observation: Observation, seed: int, previous: DrawnTarget | None = None) -> DrawnTarget:
        """Draw the target spheres for one observation; equal seeds and observations give equal targets.

        Args:
            previous: the last drawn target, which sampling may start from if it is recent and of the same instruction.

        Raises:
            GenimaError: for a missing view, an image of another size, no instruction or a drawing that is not finite.
        """
        started = time.perf_counter()
        if not observation.instruction.strip():
            raise GenimaError("there is no instruction to draw for")
        views = {view: self._view(observation, view) for view in self.views}
        pixels = self.engine.draw(
            torch.from_numpy(tile(views, self.views))[None],
            [observation.instruction],
            torch.Generator().manual_seed(seed),
            torch.from_numpy(previous.tile)[None] if previous and self._is_recent(previous, observation) else None,
        )
        return DrawnTarget(
            observation.stamp, observation.instruction, self.views, pixels[0].numpy(),
            self.engine.steps, seed, time.perf_counter() - started,
        )  # fmt: skip

    def _is_recent(self, previous: DrawnTarget, observation: Observation) -> bool:
        same = previous.instruction == observation.instruction and previous.views == self.views
        return same and 0 <= observation.stamp - previous.stamp <= _RECENT

    def _view(self, observation: Observation, view: str) -> Image:
        if view == VIRTUAL:
            from genima.cameras.virtual_view import VirtualView  # only here: it brings a whole simulator

            self._virtual = self._virtual or VirtualView(self.robot)
            joints = observation.joints
            return fit(self._virtual.render(joints.positions, joints.gripper), self.spec.view_size)
        if view not in observation.images:
            raise GenimaError(f"the observation has no image of view {view}")
        image, (width, height) = observation.images[view], self.camera_size
        if image.shape != (height, width, 3):
            raise GenimaError(
                f"the image of view {view} has shape {image.shape}; the checkpoint takes ({height}, {width}, 3)"
            )
        return fit(image, self.spec.view_size)

    @torch.inference_mode()
    def draw_pixels(
        self, tiles: Tensor, instructions: Sequence[str], generator: torch.Generator, steps: int | None = None
    ) -> Tensor:
        """Draw a batch of tiles (B, H, W, 3) uint8 rgb; returns the same shape and type, on the CPU.

        ``steps`` is the number of diffusion steps; None: the agent's.

        This is what an engine's drawings are compared with; a training's networks draw by it, as they are.
        """
        condition, prompts = self.condition(self.frames(tiles)), self.prompts(self.texts(instructions))
        schedule = sampling(self.scheduler, steps or self.steps)
        start, *of_steps = schedule.draw_noise(self.latent_shape(tiles), generator).to(self.device)
        latents, noises = schedule.noise * start, iter(of_steps)
        for step in schedule.steps:
            with half_precision(self.device):
                prediction = self.predict(step.scale * latents, torch.tensor(step.t), prompts, condition)
            latents = step.keep * latents + step.add * prediction.float()
            if step.random:
                latents = latents + step.random * next(noises)
        images = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        if not torch.isfinite(images).all():
            raise GenimaError("the drawing is not finite: the checkpoint's weights are damaged")
        return self.pixels(images).cpu()

    # ------------------------------------------------------------------------------------- in use and in training

    def texts(self, instructions: Sequence[str]) -> list[str]:
        """The prompts of a batch of tiles, one for each frame; the goal is in every one of them."""
        if self.tiled:
            return [self.spec.prompt(instruction) for instruction in instructions]
        return [self.spec.prompt(instruction, view) for instruction in instructions for view in self.views]

    def frames(self, tiles: Tensor) -> Tensor:
        """What is drawn at once, (N, 3, H, W) in 0..1, of tiles (B, H, W, 3) uint8: those, or each view enlarged."""
        pixels = tiles.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        if not self.tiled:
            pixels = F.interpolate(split_tile(pixels), scale_factor=2, mode="bilinear")
        return pixels.contiguous(memory_format=torch.channels_last)

    def pixels(self, images: Tensor) -> Tensor:
        """Tiles (B, H, W, 3) uint8 of what was drawn, (N, 3, H, W) in -1..1: the inverse of :meth:`frames`."""
        images = (images / 2 + 0.5).clamp(0, 1)
        if not self.tiled:
            images = join_tile(F.interpolate(images, scale_factor=0.5, mode="area"))
        return (images * 255).round().byte().permute(0, 2, 3, 1)

    def latent_shape(self, tiles: Tensor) -> tuple[int, int, int, int]:
        """Shape (N, C, h, w) of the latents of tiles (B, H, W, 3)."""
        n, (height, width) = len(tiles) if self.tiled else 4 * len(tiles), tiles.shape[1:3]
        return n, self.unet.config.out_channels, height // self._factor, width // self._factor

    @property
    def _factor(self) -> int:
        """Pixels to a latent, in a row."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode(self, frames: Tensor, sample: bool = False) -> Tensor:
        """Latents of frames in 0..1, scaled as the UNet takes them.

        Args:
            sample: draw from the autoencoder's distribution, by the global generator, instead of taking its mode.
        """
        with torch.autocast(self.device.type, enabled=False):  # some autoencoders overflow in float16
            distribution = self.vae.encode((frames * 2 - 1).to(self.vae.dtype)).latent_dist
            latents = (distribution.sample() if sample else distribution.mode()).float()
        return latents.contiguous(memory_format=torch.channels_last) * self.vae.config.scaling_factor

    def condition(self, frames: Tensor) -> Tensor:
        """What the networks see of the scene: frames (N, 3, H, W) in 0..1, or their latents.

        Released ControlNets learn to encode pixels; one that takes as many channels as there are latents is given
        those of the frozen autoencoder (GENIMA paper, appendix D). InstructPix2Pix takes unscaled latents.
        """
        if self.controlnet is None:
            return self.encode(frames) / self.vae.config.scaling_factor
        if self.controlnet.config.conditioning_channels == frames.shape[1]:
            return frames
        return self.encode(frames)

    def predict(self, noisy: Tensor, t: Tensor, prompts: Prompts, condition: Tensor) -> Tensor:
        """The networks' prediction (of noise, sample or velocity, as the scheduler says) for noisy latents."""
        added = prompts.added(noisy.shape[-1] * self._factor)
        text: dict[str, Any] = {"encoder_hidden_states": prompts.tokens, "added_cond_kwargs": added}
        if self.controlnet is None:
            return self.unet(torch.cat([noisy, condition], dim=1), t, **text, return_dict=False)[0]
        down, middle = self.controlnet(noisy, t, controlnet_cond=condition, **text, return_dict=False)
        half = None if self.unet.dtype == torch.float32 else self.unet.dtype
        # What is stored in half precision needs no autocast, which would widen what its norms read and write.
        with torch.autocast(self.device.type, enabled=False) if half else contextlib.nullcontext():
            text["encoder_hidden_states"] = prompts.tokens.to(dtype=half)
            return self.unet(
                noisy.to(dtype=half), t, **text, down_block_additional_residuals=[x.to(dtype=half) for x in down],
                mid_block_additional_residual=middle.to(dtype=half), return_dict=False,
            )[0]  # fmt: skip


_TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


def _load(kind: Any, folder: Path, name: str) -> Any:
    model_files.require_network(kind, folder / name)
    options: dict[str, Any] = {"dtype": torch.float32, "low_cpu_mem_usage": False, "device_map": None}
    return _whole(
        kind.from_pretrained(folder, subfolder=name, use_safetensors=True, output_loading_info=True, **options)
    )


def _whole(loaded: tuple[Any, Mapping[str, Any]]) -> Any:
    """The model that was loaded; the libraries only warn of missing weights and go on with random ones."""
    model, info = loaded
    if missing := info["missing_keys"]:
        raise ValueError(f"{type(model).__name__} lacks weights such as {min(missing)}")
    return model


def split_tile(images: Tensor) -> Tensor:
    """(B, C, 2h, 2w) tiles to (4B, C, h, w) views, each tile's row by row."""
    B, C, H, W = images.shape
    return images.reshape(B, C, 2, H // 2, 2, W // 2).permute(0, 2, 4, 1, 3, 5).reshape(4 * B, C, H // 2, W // 2)


def join_tile(images: Tensor) -> Tensor:
    """The inverse of :func:`split_tile`."""
    N, C, h, w = images.shape
    return images.reshape(N // 4, 2, 2, C, h, w).permute(0, 3, 1, 4, 2, 5).reshape(N // 4, C, 2 * h, 2 * w)
