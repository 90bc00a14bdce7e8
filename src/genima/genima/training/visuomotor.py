"""Training of policies that predict action chunks from camera images, and of SuSIE's controller."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from accelerate import Accelerator

from genima.data.datasets.augmentation import AUGMENTATIONS
from genima.data.datasets.chunk_samples import ObservationDataset
from genima.data.datasets.target_dataset import TargetDataset, split
from genima.policy.susie import GoalController
from genima.policy.visuomotor.policy import VisuomotorPolicy
from genima.system.command_line import check_options
from genima.training import loop
from genima.training.chunk_model import train_chunk_model
from genima.training.options import LoopOptions, VisuomotorOptions


def train_visuomotor(
    policy: VisuomotorPolicy | GoalController,
    targets: TargetDataset,
    options: VisuomotorOptions,
    loop_options: LoopOptions,
    folder: Path,
    accelerator: Accelerator | None = None,
    origin: str = "",
) -> None:
    """Train ``policy`` on the observations of ``targets``; checkpoints go to ``folder``.

    ``origin`` identifies the initial weights; resuming requires the same.

    Raises:
        GenimaError: as :func:`loop.run`.
    """
    check_options(options)
    in_training, in_validation = split(targets.moments)
    goals = isinstance(policy, GoalController)
    augmentation = AUGMENTATIONS[options.augmentation]() if options.augmentation != "none" else None
    train_chunk_model(
        policy,
        ObservationDataset(targets, in_training, policy.statistics, augmentation, loop_options.seed, goals),
        ObservationDataset(targets, in_validation, policy.statistics, goals=goals),
        {"data": targets.fingerprint, "views": targets.spec.views, "origin": origin, **asdict(options)},
        loop_options,
        folder,
        accelerator or loop.make_accelerator(loop_options, folder),
        validation_chunks=options.validation_chunks,
        half=options.half,
    )
