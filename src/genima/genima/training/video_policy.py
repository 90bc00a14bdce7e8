"""Training of a video policy: first its video model, then its action head, or both together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genima.data.datasets.target_dataset import TargetDataset
from genima.errors import GenimaError
from genima.io import hub
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.video import FRAMES, feature_channels
from genima.policy.names import VIDEO_POLICY
from genima.policy.spec import VIDEO_MODEL, VIDEOS
from genima.policy.video_policy import VideoPolicy
from genima.policy.visuomotor.video import VideoConfig
from genima.training import chunk_model, diffusion, loop
from genima.training.build_agent import build_agent
from genima.training.options import CLIP, RANDOM, SD_TURBO, SMALL, DiffusionOptions, LoopOptions, VisuomotorOptions
from genima.training.visuomotor import build_visuomotor, train_visuomotor

_STEPS = {SMALL: 1}  # diffusion steps of a clip in validation, by base
_BASE_STEPS = 10


def build_video_policy(
    targets: TargetDataset,
    base: str = SD_TURBO,
    clip: str = CLIP,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
) -> VideoPolicy:
    """Return an untrained policy with an untrained video model.

    Args:
        targets: dataset.
        base: of the video model: on the hub or in a folder, or ``SMALL``.
        clip: of the action head: see :func:`genima.training.chunk_model.build_chunk_model`.
        seed: of random weights.
        config: choices of the action head's configuration.

    Raises:
        GenimaError: when loading the base model or the text encoder fails, or views do not fit the features.
    """
    steps = _STEPS.get(base, _BASE_STEPS)
    agent = build_agent(base, targets, "unet", steps=steps, seed=seed, draws=VIDEOS)
    sizes = {"frames": FRAMES, "channels": feature_channels(agent, VideoConfig.block), **(config or {})}
    policy = build_visuomotor(VIDEO_POLICY, targets, RANDOM, clip, seed, sizes)
    assert isinstance(policy, VideoPolicy)
    policy.video_model = agent
    return policy


def train_video_policy(
    policy: VideoPolicy,
    targets: TargetDataset,
    folder: Path,
    drawing: DiffusionOptions,
    chunks: VisuomotorOptions,
    policy_loop: LoopOptions,
    video_loop: LoopOptions | None = None,
    origin: str = "",
    trial: bool = False,
) -> None:
    """Train ``policy``; checkpoints go to ``folder``, those of the video model alone to ``video_model`` in it.

    Args:
        policy: trained in place.
        targets: dataset.
        folder: of the training.
        drawing: options of the video model.
        chunks: options of the action head.
        policy_loop: length and learning rate of the action head's training, or of both together.
        video_loop: of the video model's, which comes first: the best one is frozen. None: sum both losses.
        origin: identifies the initial weights; resuming requires the same.
        trial: check before training that checkpoints can be saved, loaded and used.

    Raises:
        GenimaError: as :func:`loop.run`, and for views to be shifted: a clip's frames would shift apart.
    """
    if drawing.crop:
        raise GenimaError(f"--crop {drawing.crop}: not available for a video model; use 0")
    first = folder / VIDEO_MODEL
    accelerator = loop.make_accelerator(policy_loop, folder)
    if trial and accelerator.is_main_process:
        chunk_model.require_usable(policy, folder, accelerator.device)
    accelerator.wait_for_everyone()
    if video_loop is None:
        origin = f"{origin}, joint with {drawing}"
        video = diffusion.diffusion_loss(policy.video_model, drawing, accelerator.device, accelerator.mixed_precision)
    else:
        own = loop.make_accelerator(video_loop, first)
        diffusion.train_diffusion(policy.video_model, targets, drawing, video_loop, first, own)
        policy.video_model = DiffusionAgent.from_pretrained(first, str(accelerator.device))
        video = None
    origin = f"{origin}, {hub.fingerprint(*policy.video_model.modules.values())}"
    train_visuomotor(policy, targets, chunks, policy_loop, folder, accelerator, origin, video)
