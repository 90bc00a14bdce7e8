"""Video model: a diffusion agent that draws a clip of the next observations, and its hidden features.

The frames of a clip are the tiles of all views at half size, in one picture as large as a tile: a network for images
draws them together. The scene enters the UNet as a clip that stands still, in which every frame lies where it is to be
drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genima.errors import GenimaError
from genima.policy.diffusion_agent.diffusion_model import DiffusionModel, join_tile, split_tile

FRAMES = 4  # of a clip, the last one K steps ahead


def frame_steps(horizon: int) -> list[int]:
    """Return how many steps ahead the frames of a clip are, with equal distances up to the horizon."""
    return [math.ceil(horizon * (i + 1) / FRAMES) for i in range(FRAMES)]


def join_clip(tiles: Tensor) -> Tensor:
    """Return pictures (B, C, H, W) of clips of tiles (B, FRAMES, C, H, W)."""
    return join_tile(F.avg_pool2d(tiles.flatten(0, 1), 2), FRAMES)


def still_clip(tiles: Tensor) -> Tensor:
    """Return pictures (B, C, H, W) of clips in which a tile (B, C, H, W) stands still: the video model's condition."""
    return join_clip(tiles[:, None].expand(-1, FRAMES, -1, -1, -1))


def clip_images(tiles: Tensor) -> Tensor:
    """Return the pictures (B, H, W, 3) uint8 of clips of tiles (B, FRAMES, H, W, 3) uint8."""
    return join_clip(tiles.movedim(-1, 2).float()).round().byte().movedim(1, -1).contiguous()


def split_clip(pictures: Tensor, views: int) -> Tensor:
    """Split pictures (B, C, H, W), or maps of them, into (B, FRAMES * views, C, h, w), each frame's views in order."""
    return split_tile(split_tile(pictures, FRAMES), views).unflatten(0, (len(pictures), -1))


def feature_channels(model: DiffusionModel, block: int) -> int:
    """Return the channels of :func:`clip_features`."""
    return int(model.unet.config.block_out_channels[-block])


def require_features(model: DiffusionModel, block: int, timestep: int) -> None:
    """Check that a model has the features of :func:`clip_features`.

    Raises:
        GenimaError: for another block or time step than the model has, and views that do not divide into features.
    """
    blocks, steps = len(model.unet.up_blocks), int(model.scheduler.config.num_train_timesteps)
    if not (1 <= block <= blocks and 0 <= timestep < steps):
        raise GenimaError(
            f"video model: features of block {block} at time step {timestep}; it has blocks 1 to {blocks} and time "
            f"steps 0 to {steps - 1}"
        )
    stride = 2 * model.latent_factor * 2 ** max(blocks - 1 - block, 0)  # frames have half size
    if model.spec.view_size % stride:
        raise GenimaError(
            f"video model: views of {model.spec.view_size} px do not divide into its features; render with --view-size "
            f"a multiple of {stride}"
        )


def clip_features(
    model: DiffusionModel, views: Tensor, instructions: Sequence[str], block: int, timestep: int
) -> Tensor:
    """Return features (B, FRAMES * views, C, h, w) of the clip that follows, from one pass through the UNet.

    Source: Hu et al., Video Prediction Policy: A Generalist Robot Policy with Predictive Visual Representations, 2024:
    the first denoising step has the future already, though not its details. The noise is always the same: equal
    observations have equal features.

    Args:
        model: video model.
        views: (B, views, 3, s, s) in 0..1.
        instructions: B texts.
        block: up block of the UNet, from the coarsest, 1, whose output is returned.
        timestep: of the training's noise levels; the last one is almost pure noise.
    """
    condition = model.condition(still_clip(join_tile(views.flatten(0, 1), views.shape[1])))
    noise = torch.randn(condition.shape[1:], generator=torch.Generator().manual_seed(0)).to(condition.device)
    found: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Tensor) -> None:
        found.append(output)

    handle = model.unet.up_blocks[block - 1].register_forward_hook(keep)
    try:
        prompts = model.prompts(model.texts(instructions))
        model.predict(noise.expand_as(condition), torch.tensor(timestep), prompts, condition)
    finally:
        handle.remove()
    return split_clip(found[0], views.shape[1])
