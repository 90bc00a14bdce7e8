"""``./genima train tiny``: from nothing to the small models."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from tqdm import tqdm

from genima.checkpoint import CONTROLLER, DIFFUSION_AGENT, FOLDERS, DrawingSpec, halve
from genima.datasets.demos import Demo, load_demos
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.training.control import train_small_controller
from genima.training.drawing import train_small_agent
from genima.training.loop import LoopOptions
from genima_sim import record
from genima_sim.tasks import TASKS

VIEW_SIZE = 128  # px: a quarter of the pixels of the paper's views


@dataclass
class TrainTiny:
    """Record demos of all tasks, then train the diffusion agent and the controller from scratch, side by side.

    Everything that is already there is kept: interrupted, the same command goes on where it was.
    """

    out: Path = Path("runs/tiny")
    """Folder for the checkpoints diffusion_agent/ and controller/."""
    demos: Path = Path("data/demos")
    """Folder for the demos, 25 MB each with their cache."""
    episodes: int = 200
    """Demos of each task."""
    agent_steps: int = 8000
    """Training steps of the diffusion agent, 8 drawings each; 0: leave it out."""
    controller_steps: int = 8200
    """Training steps of the controller, 16 chunks each; 0: leave it out."""
    save_every: int = 200
    """Steps between checkpoints."""
    threads: int = 2
    """Processor cores to use."""
    seed: int = 0
    """Of all randomness in training."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima train tiny``."""
    options = tyro.cli(TrainTiny, prog="genima train tiny", args=list(argv))
    steps, counts = (options.agent_steps, options.controller_steps), (options.episodes, options.save_every)
    if min(steps) < 0 or min(*counts, options.threads) < 1:
        raise GenimaError("--episodes, --save-every and --threads must be positive, steps not negative")
    record.main(["--episodes", str(options.episodes), "--out", str(options.demos), "--workers", str(options.threads)])
    robot = RobotModel.load("panda")
    spec = DrawingSpec(robot.name, robot.joint_names, view_size=VIEW_SIZE)
    names = {folder.name for folder in record.episode_folders(options.demos, tuple(TASKS), options.episodes)}
    demos = load_demos(options.demos, robot, spec, names)
    seed, save_every = options.seed, options.save_every
    agent = LoopOptions(options.agent_steps, 8, 6e-4, save_every=save_every, seed=seed)
    controller = LoopOptions(
        options.controller_steps, 16, 5e-4, weight_decay=1e-4, save_every=save_every, seed=seed, bar=1
    )
    halves = [(train_small_agent, agent, DIFFUSION_AGENT), (train_small_controller, controller, CONTROLLER)]
    # Two trainings of one thread each do more than one after the other with two: the networks are small.
    context, threads = multiprocessing.get_context("spawn"), max(1, options.threads // 2)
    with ProcessPoolExecutor(min(2, options.threads), context, tqdm.set_lock, (context.RLock(),)) as pool:
        trainings = [
            pool.submit(_train, train, demos, spec, loop, options.out / FOLDERS[kind], threads)
            for train, loop, kind in halves
            if loop.steps
        ]
        try:
            for training in as_completed(trainings):
                training.result()
        except BaseException:  # without one half the other is of no use; both go on from their last checkpoints
            for child in multiprocessing.active_children():
                child.terminate()
            raise
    print(f"\nthe models are in {options.out}; try them: ./genima eval --task push_button --checkpoint {options.out}")
    return 0


def _train(
    train: Callable[[Sequence[Demo], DrawingSpec, LoopOptions, Path], None],
    demos: Sequence[Demo],
    spec: DrawingSpec,
    loop: LoopOptions,
    folder: Path,
    threads: int,
) -> None:
    torch.set_num_threads(threads)
    train(demos, spec, loop, folder)
    halve(folder)
