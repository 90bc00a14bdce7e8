"""Training of policies that predict action chunks from camera images, and of SuSIE's controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from genima.data.datasets.augmentation import AUGMENTATIONS
from genima.data.datasets.chunk_samples import ObservationDataset
from genima.data.datasets.target_dataset import TargetDataset, split
from genima.policy.act import ActPolicy
from genima.policy.diffusion_policy import DiffusionPolicy
from genima.policy.names import ACT, DIFFUSION_POLICY, VIDEO_POLICY
from genima.policy.susie import GoalController
from genima.policy.video_policy import VideoPolicy
from genima.policy.visuomotor.action_space import JOINTS
from genima.policy.visuomotor.policy import VisuomotorPolicy
from genima.system.command_line import check_options
from genima.training import loop
from genima.training.chunk_model import build_chunk_model, train_chunk_model
from genima.training.diffusion import DiffusionLossModule
from genima.training.options import CLIP, IMAGENET, LoopOptions, VisuomotorOptions

POLICIES: dict[str, tuple[type[VisuomotorPolicy], str]] = {
    ACT: (ActPolicy, "act"),
    DIFFUSION_POLICY: (DiffusionPolicy, "diffusion"),
    VIDEO_POLICY: (VideoPolicy, "video"),
}
"""Policies by name, with their network's name in NETWORKS."""


def build_visuomotor(
    name: str,
    targets: TargetDataset,
    resnet: str = IMAGENET,
    clip: str = CLIP,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    action_space: str = JOINTS,
) -> VisuomotorPolicy:
    """Return an untrained policy, a name in :data:`POLICIES`, for a dataset; see :func:`build_chunk_model`."""
    policy, network = POLICIES[name]
    return build_chunk_model(policy, network, targets.spec, targets.moments, resnet, clip, seed, config, action_space)


def train_visuomotor(
    policy: VisuomotorPolicy | GoalController,
    targets: TargetDataset,
    options: VisuomotorOptions,
    loop_options: LoopOptions,
    folder: Path,
    accelerator: Accelerator | None = None,
    origin: str = "",
    video: DiffusionLossModule | None = None,
) -> None:
    """Train ``policy`` on the observations of ``targets``; checkpoints go to ``folder``.

    ``origin`` identifies the initial weights; resuming requires the same. ``video`` is the loss of a video
    model to train along.

    Raises:
        GenimaError: as :func:`loop.run`.
    """
    check_options(options)
    in_training, in_validation = split(targets.moments)
    seed, statistics, encoding = loop_options.seed, policy.statistics, policy.encoding
    goals = isinstance(policy, GoalController)
    augmentation = AUGMENTATIONS[options.augmentation]() if options.augmentation != "none" else None
    chosen = asdict(options)
    if not any(options.jitter):  # trainings of earlier versions are resumed
        del chosen["jitter"]
    train_chunk_model(
        policy,
        ObservationDataset(targets, in_training, statistics, augmentation, seed, goals, encoding, bool(video)),
        ObservationDataset(targets, in_validation, statistics, goals=goals, encoding=encoding),
        {"data": targets.fingerprint, "views": targets.spec.views, "origin": origin, **chosen},
        loop_options,
        folder,
        accelerator or loop.make_accelerator(loop_options, folder),
        validation_chunks=options.validation_chunks,
        half=options.half,
        video=video,
        jitter=options.jitter,
    )
