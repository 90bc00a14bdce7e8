"""``./genima train tiny``: from nothing to the small models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from genima.checkpoint import DrawingSpec, halve
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.training.control import train_small_controller
from genima.training.drawing import train_small_agent
from genima.training.loop import LoopOptions
from genima_sim import record

VIEW_SIZE = 128  # px: a quarter of the pixels of the paper's views


@dataclass
class TrainTiny:
    """Record demos of all tasks, then train the diffusion agent and the controller from scratch.

    Everything that is already there is kept: interrupted, the same command goes on where it was.
    """

    out: Path = Path("runs/tiny")
    """Folder for the checkpoints diffusion_agent/ and controller/."""
    demos: Path = Path("data/demos")
    """Folder for the demos."""
    episodes: int = 200
    """Demos of each task."""
    agent_steps: int = 4200
    """Training steps of the diffusion agent, 8 drawings each; 0: leave it out."""
    controller_steps: int = 3000
    """Training steps of the controller, 32 chunks each; 0: leave it out."""
    save_every: int = 200
    """Steps between checkpoints."""
    threads: int = 2
    """CPU threads."""
    seed: int = 0
    """Of all randomness in training."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima train tiny``."""
    options = tyro.cli(TrainTiny, prog="genima train tiny", args=list(argv))
    if min(options.agent_steps, options.controller_steps) < 0 or min(options.episodes, options.save_every) < 1:
        raise GenimaError("--episodes and --save-every must be positive, steps not negative")
    torch.set_num_threads(options.threads)
    record.main(["--episodes", str(options.episodes), "--out", str(options.demos), "--workers", str(options.threads)])
    robot = RobotModel.load("panda")
    spec = DrawingSpec(robot.name, robot.joint_names, view_size=VIEW_SIZE)
    if options.agent_steps:
        train_small_agent(
            options.demos,
            spec,
            LoopOptions(options.agent_steps, 8, 6e-4, save_every=options.save_every, seed=options.seed),
            options.out / "diffusion_agent",
        )
    if options.controller_steps:
        train_small_controller(
            options.demos,
            spec,
            LoopOptions(
                options.controller_steps, 32, 5e-4, weight_decay=1e-4, save_every=options.save_every, seed=options.seed
            ),
            options.out / "controller",
        )
    halve(options.out)
    print(
        f"the checkpoints are in {options.out}; try them: ./genima eval --task push_button --checkpoint {options.out}"
    )
    return 0
