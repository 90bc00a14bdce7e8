"""``./genima train video_policy``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from genima.system.command_line import parse_options
from genima.training.options import CLIP, SD_TURBO, DiffusionOptions, LoopOptions, Objective, VisuomotorOptions


@dataclass
class TrainVideoPolicy:
    """Train a video policy on the camera images of a dataset that ./genima render made.

    Its video model draws the next observations, and its action head denoises chunks from the video model's features.
    For several GPUs or machines run `accelerate launch --num_processes N -m genima_cli train video_policy ...` in the
    environment of ./genima setup. Interrupted, the same command resumes from the last checkpoint.
    """

    data: Path = Path("data/targets")
    """Folder of the dataset."""
    out: Path = Path("runs/video_policy")
    """Folder for the best and last checkpoint, and the video model's training in video_model/."""
    views: tuple[str, ...] | None = None
    """One to six of the rendered views; without it as rendered."""
    mode: Literal["two_stage", "joint"] = "two_stage"
    """two_stage: first the video model, then the action head on its frozen features; joint: the sum of both losses."""
    base: str = SD_TURBO
    """Video model's pre-trained model: on the Hugging Face hub, or a folder; `small`: from scratch."""
    clip: str = CLIP
    """Action head's text encoder, frozen: on the Hugging Face hub, or a folder; `small`: a small head."""
    objective: Objective = "ddpm"
    """Objective of the action head's training, which limits the samplers in use: docs/policies.md."""
    drawing: Annotated[DiffusionOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: DiffusionOptions(crop=0)
    )
    video: LoopOptions = field(default_factory=lambda: LoopOptions(epochs=200, batch_size=24, learning_rate=1e-5))
    chunks: VisuomotorOptions = field(default_factory=lambda: VisuomotorOptions(augmentation="none"))
    policy: LoopOptions = field(
        default_factory=lambda: LoopOptions(
            epochs=1000, batch_size=128, learning_rate=1e-4, weight_decay=1e-4, ema=0.9999
        )
    )


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima train video_policy``."""
    example = "./genima train video_policy --data data/targets --out runs/video_policy --video.epochs 200"
    options = parse_options(TrainVideoPolicy, "genima train video_policy", argv, example)

    from accelerate import PartialState

    from genima.data.datasets.target_dataset import TargetDataset
    from genima.training.video_policy import build_video_policy, train_video_policy

    targets = TargetDataset.load(options.data, options.views)
    config = {"objective": options.objective}
    policy = build_video_policy(targets, options.base, options.clip, options.policy.seed, config)
    train_video_policy(
        policy,
        targets,
        options.out,
        options.drawing,
        options.chunks,
        options.policy,
        options.video if options.mode == "two_stage" else None,
        origin=f"{options.base}, {options.clip}",
        trial=True,
    )
    if PartialState().is_main_process:
        print(f"\n{options.out}: best and last checkpoint; try it: ./genima eval --policy {options.out} --task TASK")
    return 0
