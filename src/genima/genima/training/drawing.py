"""Train the diffusion agent to draw targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genima import paths
from genima.checkpoint import DrawingSpec
from genima.datasets.demos import Demo, split
from genima.datasets.drawings import DrawingDataset, collate
from genima.diffusion.agent import DiffusionAgent
from genima.diffusion.small import small_agent
from genima.robot.model import RobotModel
from genima.training import loop
from genima.views.camera import load_cameras

_SPHERE_WEIGHT = 6.0  # a sphere's pixels count this much more than the scene's, which only has to be copied


def train_small_agent(demos: Sequence[Demo], spec: DrawingSpec, options: loop.LoopOptions, folder: Path) -> None:
    """Train a small agent from scratch on ``demos``; checkpoint and samples go to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    robot = RobotModel.load(spec.robot)
    cameras = load_cameras(paths.shared("calibration", "sim"))
    training, validation = (DrawingDataset(part, robot, cameras, spec) for part in split(demos))
    rng = np.random.default_rng(options.seed)
    for_codec = [training[i] for i in rng.choice(len(training), min(256, len(training)), replace=False)]
    instructions = sorted({sample.instruction for sample in for_codec})
    agent = small_agent(spec, instructions, _to_unit(torch.stack([sample.target for sample in for_codec])))
    shown = collate([validation[i] for i in rng.integers(0, len(validation), 8)])

    def loss(batch: tuple[Tensor, Tensor, list[str]], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return drawing_loss(agent, *batch, generator), {}

    def save(step: int) -> None:
        agent.save_pretrained(folder)
        agent.forget_prompts()
        _sample(agent, shown, folder / "drawings.png")

    loop.run(agent.modules, loss, training, collate, options, folder, save)


def drawing_loss(
    agent: DiffusionAgent, condition: Tensor, target: Tensor, instructions: list[str], generator: torch.Generator
) -> Tensor:
    """The denoising loss of a batch of (B, H, W, 3) uint8 images, for whatever the scheduler says is predicted.

    Source: Zhang et al., Adding Conditional Control to Text-to-Image Diffusion Models, 2023, eq. 5.
    """
    scheduler, device = agent.scheduler, agent.device
    latents = agent.vae.encode(_to_unit(target.to(device))).latent_dist.mode() * agent.vae.config.scaling_factor
    latents = latents.contiguous(memory_format=torch.channels_last)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    t = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),), generator=generator).to(device)
    noisy = scheduler.add_noise(latents, noise, t)
    embeds = agent.embed([agent.spec.prompt(instruction) for instruction in instructions])
    down, middle = agent.controlnet(noisy, t, embeds, agent.condition(condition), return_dict=False)
    prediction = agent.unet(
        noisy, t, embeds,
        down_block_additional_residuals=down, mid_block_additional_residual=middle, return_dict=False,
    )[0]  # fmt: skip
    wanted = {
        "epsilon": lambda: noise,
        "sample": lambda: latents,
        "v_prediction": lambda: scheduler.get_velocity(latents, noise, t),
    }[scheduler.config.prediction_type]()
    changed = (condition != target).any(-1).float()[:, None]
    weight = 1 + (_SPHERE_WEIGHT - 1) * F.adaptive_max_pool2d(changed, latents.shape[-2:]).to(device)
    return ((prediction.float() - wanted).square().mean(1, keepdim=True) * weight).sum() / weight.sum()


def _to_unit(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def _sample(agent: DiffusionAgent, shown: tuple[Tensor, Tensor, list[str]], file: Path) -> None:
    """A contact sheet: observations above, drawings in the middle, truth below."""
    condition, target, instructions = shown
    drawn = agent.draw_pixels(condition, instructions, torch.Generator().manual_seed(0))
    rows = [torch.cat(list(images), dim=1) for images in (condition, drawn, target)]
    cv2.imwrite(str(file), torch.cat(rows, dim=0).numpy()[..., ::-1])
