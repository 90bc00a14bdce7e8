"""``./genima train act``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from genima.policy.names import ACT
from genima.system.command_line import parse_options
from genima.training.options import LoopOptions
from genima_cli.visuomotor_training import VisuomotorTraining, train_policy


@dataclass
class TrainAct(VisuomotorTraining):
    """Train ACT on the camera images of a dataset that ./genima render made: the paper's baseline without drawing.

    Defaults are the GENIMA paper's (table 4). For several GPUs or machines run
    `accelerate launch --num_processes N -m genima_cli train act ...` in the environment of ./genima setup.
    Interrupted, the same command resumes from the last checkpoint.
    """

    out: Path = Path("runs/act")
    """Folder for the best and last checkpoint, with TensorBoard's logs."""
    loop: Annotated[LoopOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LoopOptions(
            epochs=1000, batch_size=96, learning_rate=1e-5, weight_decay=1e-4, warmup_steps=0, gradient_clip=0.0
        )
    )


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima train act``."""
    example = "./genima train act --data data/targets --out runs/act --epochs 1000"
    return train_policy(ACT, parse_options(TrainAct, "genima train act", argv, example))
