"""Diffusion agent: drawn targets from observations; checkpoint folders in the format of diffusers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, SchedulerMixin, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from genima.cameras.camera import VIRTUAL
from genima.cameras.tiling import tile, tile_grid
from genima.errors import GenimaError
from genima.io import model_files
from genima.policy import spec as checkpoint
from genima.policy.diffusion_agent.compiled_pipeline import CompiledPipeline
from genima.policy.diffusion_agent.diffusion_model import DiffusionModel
from genima.policy.diffusion_agent.patch_autoencoder import PatchCodec
from genima.policy.diffusion_agent.pretrained_base import BaseModel, load_base
from genima.policy.diffusion_agent.prompts import PromptEncoder
from genima.policy.diffusion_agent.sampling import sampling_schedule
from genima.policy.diffusion_agent.video import FRAMES, clip_images
from genima.policy.observed_views import ObservedViews
from genima.policy.small_text_encoder import load_tokenizer
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.types import DrawnTarget, Observation

_RECENT = 2.0  # s between observations: after more, the arm has passed the previous target


class DiffusionAgent(DiffusionModel):
    """First half of GENIMA: generates drawn targets, the joint positions K steps ahead on the tile of the views."""

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
        draws: str = checkpoint.TARGETS,
    ) -> None:
        """Networks are as in diffusers' pipelines.

        Args:
            steps: diffusion steps of a drawn target.
            tiled: generate the views as one image; else each at the tile's size (ablation of the paper).
            base: pre-trained model of the untrained parts; checkpoints name it without their weights.
            draws: ``targets``; for SuSIE ``goals``, the observation itself K steps later; for a video policy ``videos``
                (:mod:`genima.policy.diffusion_agent.video`).
        """
        super().__init__(spec, unet, controlnet, vae, prompts, scheduler, steps, tiled)
        self.base, self.draws = base, draws
        self.robot = RobotModel.load(spec.robot)
        spec.require_robot(self.robot, "the diffusion agent")
        self._observed_views = ObservedViews(self.robot)
        self._pipeline: CompiledPipeline | None = None

    @property
    def camera_views(self) -> tuple[str, ...]:
        """Views with a camera."""
        return tuple(view for view in self.views if view != VIRTUAL)

    @property
    def camera_size(self) -> tuple[int, int]:
        """Width and height in px of the images of :meth:`generate`."""
        return self.spec.camera_size

    @property
    def checkpoint_modules(self) -> dict[str, nn.Module]:
        """Networks in the checkpoint: all, or those trained on top of the base."""
        if self.base is None:
            return self.modules
        return {"unet": self.unet} if self.controlnet is None else {"controlnet": self.controlnet}

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu") -> DiffusionAgent:
        """Load a checkpoint folder (safetensors only), and the base model that it names.

        Raises:
            GenimaError: for a missing or damaged checkpoint, another schema, robot or base, and an unavailable device.
        """
        folder, spec, rest = checkpoint.open_checkpoint(folder, checkpoint.DIFFUSION_AGENT, device)
        with checkpoint.translate_load_errors(folder):
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
                prompts = PromptEncoder([load_tokenizer(folder / "tokenizer")], [_require_weights(encoder)])
            agent = cls(
                spec, unet, controlnet, vae, prompts, scheduler, int(rest["steps"]), bool(rest["tiled"]), base,
                str(rest.get("draws", checkpoint.TARGETS)),
            )  # fmt: skip
        try:
            for module in agent.modules.values():
                module.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        except torch.OutOfMemoryError:
            raise GenimaError(
                f"checkpoint {folder}: not enough free memory (device {device}); free it, or use --device cpu"
            ) from None
        with checkpoint.translate_load_errors(folder):
            agent._check()
        return agent

    @torch.inference_mode()
    def _check(self) -> None:
        """Generate once, at the smallest size and in one step, to detect parts that do not fit together."""
        (rows, columns), side = tile_grid(len(self.views)), 4 * self.latent_factor
        height, width = (2 * side, 2 * side) if self.tiled else (rows * side, columns * side)
        tiles, goal = torch.zeros(1, height, width, 3, dtype=torch.uint8), "do " * 100  # longer than any prompt
        sampling_schedule(self.scheduler, self.steps)
        if self.generate_tiles(tiles, [goal], torch.Generator().manual_seed(0), steps=1).shape != tiles.shape:
            raise ValueError("the drawn target has another size than the input")

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint; ``genima.json`` is written last, and marks a complete folder."""
        folder = Path(folder)
        (folder / checkpoint.FILE).unlink(missing_ok=True)
        for name, module in self.checkpoint_modules.items():
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
            draws=self.draws,
        )  # fmt: skip

    # --------------------------------------------------------------------------------------------------- inference

    @property
    def pipeline(self) -> CompiledPipeline:
        """Pipeline of :meth:`generate`; with the first target it sets the networks' precision."""
        if self._pipeline is None:
            self._pipeline = CompiledPipeline(self)
        return self._pipeline

    @pipeline.setter
    def pipeline(self, pipeline: CompiledPipeline) -> None:
        self._pipeline = pipeline

    def generate(self, observation: Observation, seed: int, previous: DrawnTarget | None = None) -> DrawnTarget:
        """Generate the drawn target of an observation; equal seeds and observations give equal targets.

        Args:
            previous: last drawn target; sampling may start from it if it is recent and of the same instruction.

        Raises:
            GenimaError: for a missing view, an image of another size, no instruction, and a result that is not finite.
        """
        started = time.perf_counter()
        if not observation.instruction.strip():
            raise GenimaError("instruction: empty; publish a task")
        scene = torch.from_numpy(tile(self._observed_views(observation, self.spec), self.views))[None]
        if self.draws == checkpoint.VIDEOS:
            scene = clip_images(torch.stack([scene] * FRAMES, 1))
        pixels = self.pipeline.generate_tiles(
            scene,
            [observation.instruction],
            torch.Generator().manual_seed(seed),
            torch.from_numpy(previous.tile)[None] if previous and self._is_recent(previous, observation) else None,
        )
        return DrawnTarget(
            observation.stamp, observation.instruction, self.views, pixels[0].numpy(),
            self.pipeline.steps, seed, time.perf_counter() - started,
        )  # fmt: skip

    def _is_recent(self, previous: DrawnTarget, observation: Observation) -> bool:
        same = previous.instruction == observation.instruction and previous.views == self.views
        return same and 0 <= observation.stamp - previous.stamp <= _RECENT


def _load(kind: Any, folder: Path, name: str) -> Any:
    model_files.require_network(kind, folder / name)
    options: dict[str, Any] = {"dtype": torch.float32, "low_cpu_mem_usage": False, "device_map": None}
    return _require_weights(
        kind.from_pretrained(folder, subfolder=name, use_safetensors=True, output_loading_info=True, **options)
    )


def _require_weights(loaded: tuple[Any, Mapping[str, Any]]) -> Any:
    """Return the loaded model if all its weights were loaded: the libraries only warn, and use random ones."""
    model, info = loaded
    if missing := info["missing_keys"]:
        raise ValueError(f"{type(model).__name__} lacks weights such as {min(missing)}")
    return model
