"""Training of the diffusion agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from kornia.augmentation import ColorJiggle, RandomCrop
from torch import Tensor, nn
from torch.nn import functional as F

from genima.cameras.tiling import untile
from genima.data.datasets.diffusion_samples import DiffusionDataset, DiffusionSample, collate
from genima.data.datasets.sample_index import SampleIndex
from genima.data.datasets.target_dataset import TargetDataset, split
from genima.errors import GenimaError
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.compiled_pipeline import CompiledPipeline
from genima.policy.diffusion_agent.diffusion_model import join_tile, split_tile
from genima.policy.diffusion_agent.execution_config import ExecutionConfig, execution_configs
from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima.policy.spec import TARGETS, convert_to_half
from genima.robot.model import RobotModel
from genima.system.command_line import check_options
from genima.targets.decoding import TargetDecoder, summarise_errors
from genima.training import TARGET_SHEET, loop
from genima.training.options import DiffusionOptions, LoopOptions
from genima.types import Joints, Observation

_FRAMES_AT_ONCE = 8  # generated in validation
_ROUNDING = 4.0  # mean grey levels between targets in single and half precision


class DiffusionLossModule(nn.Module):
    """Module of the denoising loss, for the scheduler's prediction type.

    Source: Zhang et al., Adding Conditional Control to Text-to-Image Diffusion Models, 2023, eq. 5; without a
    ControlNet: Brooks et al., InstructPix2Pix, 2023, eq. 2.
    """

    def __init__(self, agent: DiffusionAgent, options: DiffusionOptions) -> None:
        super().__init__()
        self.agent = agent  # not a module: only trained networks are in the state of this one
        trained = {name: m for name, m in agent.modules.items() if any(p.requires_grad for p in m.parameters())}
        self.trained = nn.ModuleDict(trained)
        self.options = options
        self.noise = DDPMScheduler.from_config(agent.scheduler.config)
        # Kornia shifts by padding and cropping; the images of a sample are shifted together as channels of one image.
        size = (agent.spec.view_size * (1 if agent.tiled else 2),) * 2
        self.crop = RandomCrop(size, padding=options.crop, padding_mode="reflect") if options.crop else None
        self.jitter = ColorJiggle(*options.jitter) if any(options.jitter) else None

    def forward(self, batch: DiffusionSample) -> dict[str, Tensor]:
        """Return the ``loss`` of a batch of tiles (B, H, W, 3) uint8."""
        agent = self.agent
        with torch.no_grad():
            canonical = [] if batch.canonical is None else [batch.canonical]
            frames = [agent.frames(images) for images in (batch.condition, batch.target, *canonical)]
            if self.training:
                frames = self._shift(frames)
            seen, wanted = frames[:2]
            scene = frames[2] if canonical else seen
            changed = (scene - wanted).abs().amax(1, keepdim=True) > 1 / 255
            if self.training and self.jitter:
                seen = self.jitter(seen)
            seen, wanted = (x.contiguous(memory_format=torch.channels_last) for x in (seen, wanted))
            latents = agent.encode(wanted, sample=self.training)
            condition = agent.condition(seen)
            noise = torch.randn_like(latents)
            t = torch.randint(0, self.noise.config.num_train_timesteps, (len(latents),), device=latents.device)
            noisy = self.noise.add_noise(latents, noise, t)
        prompts = agent.prompts(agent.texts(batch.instruction))
        prediction = agent.predict(noisy, t, prompts, condition)
        true = {
            "epsilon": lambda: noise,
            "sample": lambda: latents,
            "v_prediction": lambda: self.noise.get_velocity(latents, noise, t),
        }[self.noise.config.prediction_type]()
        weight = 1 + (self.options.sphere_weight - 1) * F.adaptive_max_pool2d(changed.float(), latents.shape[-2:])
        error = (prediction.float() - true).square().mean(1, keepdim=True)
        return {"loss": (error * weight).sum() / weight.sum()}

    def _shift(self, frames: list[Tensor]) -> list[Tensor]:
        """Shift each view separately: the tile keeps its borders."""
        if not self.crop:
            return frames
        joined, views = torch.cat(frames, dim=1), len(self.agent.views)
        joined = join_tile(self.crop(split_tile(joined, views)), views) if self.agent.tiled else self.crop(joined)
        return list(joined.chunk(len(frames), dim=1))


def diffusion_loss(
    agent: DiffusionAgent, options: DiffusionOptions, device: torch.device, mixed_precision: str
) -> DiffusionLossModule:
    """Return the loss on ``device``, with networks in the fastest precision, compiled as configured.

    Args:
        mixed_precision: of accelerate, ``no``, ``fp16`` or ``bf16``.
    """
    for module in agent.modules.values():
        module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    networks = [agent.unet, agent.controlnet] if agent.controlnet else [agent.unet]
    if agent.base and mixed_precision != "no":
        half = torch.bfloat16 if mixed_precision == "bf16" else torch.float16
        frozen = [*agent.prompts.encoders, agent.unet] if agent.controlnet else [*agent.prompts.encoders]
        if half == torch.bfloat16:  # SDXL's autoencoder overflows in float16; the decoder stays exact
            frozen += [agent.vae.encoder, agent.vae.quant_conv]
        for module in frozen:
            module.to(half)
    if options.gradient_checkpointing:
        for module in networks:
            module.enable_gradient_checkpointing()
    if options.compile:
        for module in [*networks, agent.vae.encoder] if agent.base else networks:
            module.compile()
    return DiffusionLossModule(agent, options)


def require_fitting(options: DiffusionOptions, targets: TargetDataset) -> None:
    """Check options against the dataset.

    Raises:
        GenimaError: for a shift as large as a view.
    """
    if options.crop >= targets.spec.view_size:
        raise GenimaError(f"--crop {options.crop}: must be less than the views' {targets.spec.view_size} px")


def train_diffusion(
    agent: DiffusionAgent,
    targets: TargetDataset,
    options: DiffusionOptions,
    loop_options: LoopOptions,
    folder: Path,
    accelerator: Accelerator | None = None,
) -> None:
    """Train the parts of ``agent`` that need gradients on ``targets``; checkpoints go to ``folder``.

    Raises:
        GenimaError: as :func:`loop.run`, and without held-out targets.
    """
    check_options(options)
    accelerator = accelerator or loop.make_accelerator(loop_options, folder)
    require_fitting(options, targets)
    training, validation = split(targets.moments)
    chosen = np.random.default_rng(loop_options.seed).choice(
        validation, min(options.validation_targets, len(validation)), replace=False
    )
    held_out = DiffusionDataset(targets, np.sort(chosen), agent.draws)
    model = diffusion_loss(agent, options, accelerator.device, accelerator.mixed_precision)

    def save(checkpoint: Path) -> None:
        agent.save_pretrained(checkpoint)
        if options.half:
            convert_to_half(checkpoint)

    def validate(step: int, checkpoint: Path) -> Mapping[str, float]:
        with torch.compiler.set_stance("force_eager"):  # batches of other sizes would be recompiled
            return validation_errors(model, held_out, targets, checkpoint / TARGET_SHEET)

    about = {
        "data": targets.fingerprint,
        **({"canonical": targets.canonical.fingerprint} if targets.canonical else {}),
        "views": targets.spec.views,
        "tiled": agent.tiled,
        **({"draws": agent.draws} if agent.draws != TARGETS else {}),
        "base": agent.base.fingerprint if agent.base else None,
        "trained": sorted(model.trained),
        **asdict(options),
    }
    dataset = DiffusionDataset(targets, training, agent.draws)
    loop.run(model, dataset, collate, loop_options, folder, save, validate, "off", about, accelerator)


def require_usable(agent: DiffusionAgent, targets: TargetDataset, folder: Path, device: torch.device) -> None:
    """Check before training that an agent can be saved, loaded and used.

    Args:
        agent: untrained.
        targets: training dataset.
        folder: training folder; a temporary copy is written next to it.
        device: of the training.

    Raises:
        GenimaError: when loading or generating fails, or the copy generates another target than the agent.
    """
    spec, device_name = targets.spec, str(device)
    width, height = spec.camera_size
    joints = Joints(0.0, targets.moments.positions[0], 1.0)
    images = {view: np.full((height, width, 3), 127, np.uint8) for view in agent.camera_views}
    observation = Observation(0.0, images, joints, str(targets.moments.instructions[0]))
    with loop.trial_folder(folder) as copy, loop.translate_trial_errors("diffusion agent"):
        agent.save_pretrained(copy)
        used = DiffusionAgent.from_pretrained(copy, device_name)
        quick = [config for config in execution_configs(used.device) if not config.compile]  # compilers take minutes
        used.pipeline = CompiledPipeline(used, configs=quick)
        drawn = used.generate(observation, 0)
        if drawn.tile.shape != (*spec.tile_size, 3):
            raise ValueError(f"drawn target has the wrong size ({drawn.tile.shape})")
        shown = torch.from_numpy(drawn.tile)[None]
        once = SamplingOptions(steps=1)
        used.pipeline = CompiledPipeline(used, once, [ExecutionConfig()])
        fast = used.pipeline.generate_tiles(shown, [observation.instruction], torch.Generator().manual_seed(0))
        exact = used.generate_tiles(shown, [observation.instruction], torch.Generator().manual_seed(0), steps=1)
        if (fast.float() - exact.float()).abs().mean() > _ROUNDING:
            raise ValueError("the compiled pipeline differs from its networks")


@torch.inference_mode()
def validation_errors(
    model: DiffusionLossModule, held_out: DiffusionDataset, targets: TargetDataset, picture: Path
) -> dict[str, float]:
    """Generate and decode targets of held-out moments and compare them with the truth; write a contact sheet.

    Returns:
        ``loss``; ``off``, the fraction of spheres missing or more than 3 px off; and the keys of
        :func:`genima.targets.decoding.summarise_errors`, in pixels and degrees. Of goals and videos: ``loss``;
        ``grey levels``, the mean absolute error; and ``off``, that error relative to the unchanged observation's.
    """
    agent, spec, moments = model.agent, targets.spec, targets.moments
    differences: list[tuple[float, float]] = []  # of goals and videos: to the true one, and of the observation to it
    cameras = {view: targets.cameras[view].crop_square(spec.view_size) for view in spec.views}
    decoder = TargetDecoder(cameras, RobotModel.load(spec.robot), spec.appearance)
    errors, sheet, losses = [], [], []
    at_once = _FRAMES_AT_ONCE if agent.tiled else _FRAMES_AT_ONCE // len(spec.views)
    for start in range(0, len(held_out), at_once):
        indices = [SampleIndex(k, k) for k in range(start, min(start + at_once, len(held_out)))]
        batch = collate([held_out[index] for index in indices])
        torch.manual_seed(start)
        losses.append(model(batch)["loss"].item())
        drawn = agent.generate_tiles(batch.condition, list(batch.instruction), torch.Generator().manual_seed(start))
        sheet.append(torch.cat([torch.cat(list(rows), dim=1) for rows in (batch.condition, drawn, batch.target)]))
        if agent.draws != TARGETS:
            goals, seen_now = batch.target.float(), batch.condition.float()
            pairs = zip(drawn.float(), seen_now, goals, strict=True)
            differences += [((a - c).abs().mean().item(), (b - c).abs().mean().item()) for a, b, c in pairs]
            continue
        for index, tile, scene in zip(indices, drawn.numpy(), batch.scene.numpy(), strict=True):
            i = held_out.moment(index)
            errors.append(
                decoder.errors(
                    untile(tile, spec.views), moments.target[i], bool(moments.target_open[i]), moments.positions[i],
                    untile(scene, spec.views),
                )
            )  # fmt: skip
    cv2.imwrite(str(picture), sheet[0].numpy()[..., ::-1])
    if agent.draws != TARGETS:
        drawn_error, still_error = np.mean(differences, axis=0)
        return {
            "loss": float(np.mean(losses)),
            "off": float(drawn_error / still_error),
            "grey levels": float(drawn_error),
        }
    summary = summarise_errors(errors)
    well_drawn = summary["found"] * np.nan_to_num(summary["px_within_3"])
    return {"loss": float(np.mean(losses)), "off": float(1 - well_drawn), **summary}
