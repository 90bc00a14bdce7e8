"""``./genima train diffusion_policy``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from genima.policy.names import DIFFUSION_POLICY
from genima.system.command_line import parse_options
from genima.training.options import LoopOptions, Objective
from genima_cli.visuomotor_training import VisuomotorTraining, train_policy


@dataclass
class TrainDiffusionPolicy(VisuomotorTraining):
    """Train a diffusion policy on the camera images of a dataset that ./genima render made: a baseline of the paper.

    Defaults are the GENIMA paper's (table 5), with the weights' average of Diffusion Policy. The paper's chunks have 16
    actions: ./genima render --horizon 16. For several GPUs or machines run
    `accelerate launch --num_processes N -m genima_cli train diffusion_policy ...` in the environment of ./genima setup.
    Interrupted, the same command resumes from the last checkpoint.
    """

    out: Path = Path("runs/diffusion_policy")
    """Folder for the best and last checkpoint, with TensorBoard's logs."""
    objective: Objective = "ddpm"
    """Objective of the training, which limits the samplers in use: docs/policies.md."""
    loop: Annotated[LoopOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LoopOptions(
            epochs=1000, batch_size=128, learning_rate=1e-4, weight_decay=1e-4, ema=0.9999
        )
    )


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima train diffusion_policy``."""
    example = "./genima train diffusion_policy --data data/targets --out runs/diffusion_policy --epochs 1000"
    options = parse_options(TrainDiffusionPolicy, "genima train diffusion_policy", argv, example)
    return train_policy(DIFFUSION_POLICY, options, {"objective": options.objective})
