"""``./genima train act``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from genima.system.command_line import parse_options
from genima.training.options import CLIP, IMAGENET, LoopOptions, VisuomotorOptions


@dataclass
class TrainAct:
    """Train ACT on the camera images of a dataset that ./genima render made: the paper's baseline without drawing.

    Defaults are the GENIMA paper's (table 4). For several GPUs or machines run
    `accelerate launch --num_processes N -m genima_cli train act ...` in the environment of ./genima setup.
    Interrupted, the same command resumes from the last checkpoint.
    """

    data: Path = Path("data/targets")
    """Folder of the dataset."""
    out: Path = Path("runs/act")
    """Folder for the best and last checkpoint, with TensorBoard's logs."""
    views: tuple[str, ...] | None = None
    """One to six of the rendered views; without it as rendered."""
    resnet: str = IMAGENET
    """ImageNet weights: on the Hugging Face hub, or a folder; `random`: none."""
    clip: str = CLIP
    """Text encoder, frozen: on the Hugging Face hub, or a folder; `small`: a small network, all from scratch."""
    training: Annotated[VisuomotorOptions, tyro.conf.arg(name="")] = field(default_factory=VisuomotorOptions)
    loop: Annotated[LoopOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LoopOptions(
            epochs=1000, batch_size=96, learning_rate=1e-5, weight_decay=1e-4, warmup_steps=0, gradient_clip=0.0
        )
    )


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima train act``."""
    example = "./genima train act --data data/targets --out runs/act --epochs 1000"
    options = parse_options(TrainAct, "genima train act", argv, example)

    from genima.data.datasets.target_dataset import TargetDataset
    from genima.policy.act import ActPolicy
    from genima.training import loop
    from genima.training.chunk_model import build_chunk_model, require_usable
    from genima.training.visuomotor import train_visuomotor

    accelerator = loop.make_accelerator(options.loop, options.out)
    targets = TargetDataset.load(options.data, options.views)
    policy = build_chunk_model(
        ActPolicy, "act", targets.spec, targets.moments, options.resnet, options.clip, options.loop.seed
    )
    if accelerator.is_main_process:
        require_usable(policy, options.out, accelerator.device)
    accelerator.wait_for_everyone()
    origin = f"{options.clip}, {options.resnet}"
    train_visuomotor(policy, targets, options.training, options.loop, options.out, accelerator, origin)
    if accelerator.is_main_process:
        print(f"\n{options.out}: best and last checkpoint; try it: ./genima eval --policy {options.out} --task TASK")
    return 0
