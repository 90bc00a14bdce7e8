"""``./genima eval``: success of a checkpoint over many seeds, by the closed loop in lock-step."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro
from tqdm import tqdm

from genima import checkpoint
from genima.chunks import ChunkStream, Mode
from genima.chunks.ensemble import TemporalEnsemble
from genima.closed_loop import Draws, Reads, run_episode
from genima.controller import Controller
from genima.diffusion import DiffusionAgent
from genima.errors import GenimaError
from genima.evaluation import BlankTargets, Success
from genima.files import require_writable, write_whole
from genima.guard import CommandGuard
from genima_sim.environment import Environment
from genima_sim.rlbench.environment import RLBenchEnvironment
from genima_sim.rlbench.tasks import RATE, STEPS, require_task
from genima_sim.tasks import get_task


class _Rule(NamedTuple):
    """How a simulator's tasks are evaluated."""

    require_task: Callable[[str], object]  # raises a GenimaError for an unknown one
    command_rate: float  # Hz
    time_limit: float  # s of an episode


_RULES = {"mujoco": _Rule(get_task, 50.0, 20.0), "rlbench": _Rule(require_task, RATE, STEPS / RATE)}


@dataclass
class Evaluate:
    """Measure success in simulation, in lock-step and without ROS."""

    task: str
    """push_button or take_lid_off; with --simulator rlbench one of the paper's 25, by its file's name."""
    simulator: Literal["mujoco", "rlbench"] = "mujoco"
    """Ours, or RLBench where it is installed (docs/coppeliasim.md)."""
    episodes: int = 50
    """How many episodes."""
    seed: int = 0
    """First seed; episode i uses seed + i. Demos are recorded with seeds from 100000 on."""
    blank_targets: bool = False
    """Give the controller blank images instead of drawings, to see what it does without them."""
    checkpoint: Path | None = None
    """Folder with diffusion_agent/ and controller/; default: the bundled models/tiny."""
    device: str = "cpu"
    """Where the models run."""
    threads: int = 1
    """Processor cores that the models use; the small ones are fastest on one."""
    horizon: int = 20
    """Actions executed before the next drawing takes over, 1 to K."""
    mode: Mode = "overlapped"
    """overlapped: the next drawing is made while the chunk runs; serial: when it has been executed."""
    latency: float = 0.0
    """Seconds from an observation until its chunk can be followed; time stands still meanwhile if 0."""
    ensemble: float | None = None
    """Average chunks that overlap, the i-th oldest with weight exp(-M i), as ACT does; needs a --horizon below K."""
    time_limit: float | None = None
    """Seconds of an episode; default: 20, in RLBench 10, which are 200 steps."""
    out: Path | None = None
    """Write the result to this JSON file."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima eval``."""
    options = tyro.cli(Evaluate, prog="genima eval", args=list(argv))
    rule = _RULES[options.simulator]
    rule.require_task(options.task)
    time_limit = options.time_limit = rule.time_limit if options.time_limit is None else options.time_limit
    if min(options.episodes, options.threads) < 1 or not time_limit > 0:
        raise GenimaError("--episodes, --threads and --time-limit must be positive")
    torch.set_num_threads(options.threads)
    agent, controller = load_pair(options.checkpoint, options.device)
    if not 1 <= options.horizon <= agent.spec.horizon:
        raise GenimaError(f"--horizon must lie between 1 and the checkpoint's K = {agent.spec.horizon}")
    if options.ensemble is not None and not (math.isfinite(options.ensemble) and options.horizon < agent.spec.horizon):
        raise GenimaError(
            f"--ensemble takes a finite number, and a --horizon below K = {agent.spec.horizon}, so that chunks overlap"
        )
    if not (math.isfinite(options.latency) and options.latency >= 0):
        raise GenimaError("--latency must be a number of seconds, not negative")
    draws: Draws = BlankTargets(agent.spec) if options.blank_targets else agent
    if options.out:
        require_writable(options.out)
    environment = Environment() if options.simulator == "mujoco" else RLBenchEnvironment(agent.camera_size)
    seeds = range(options.seed, options.seed + options.episodes)
    succeeded: list[int] = []
    with tqdm(seeds, unit="episode", desc=options.task, dynamic_ncols=True) as progress:
        for done, seed in enumerate(progress, 1):
            environment.reset(options.task, seed)
            reads: Reads = controller if options.ensemble is None else TemporalEnsemble(controller, options.ensemble)
            run_episode(
                environment, draws, reads,
                ChunkStream(agent.robot, rule.command_rate, options.horizon, options.mode),
                CommandGuard(agent.robot, rule.command_rate),
                command_rate=rule.command_rate, latency=options.latency, time_limit=time_limit, seed=seed * 1000,
            )  # fmt: skip
            succeeded += [seed] if environment.done else []
            progress.set_postfix_str(f"{len(succeeded)}/{done}", refresh=False)
    environment.close()
    success = Success(len(succeeded), options.episodes)
    print(f"{options.task}{' with blank targets' if options.blank_targets else ''}: {success}")
    if options.out:
        write_whole(options.out, (json.dumps(result(options, success, succeeded), indent=2) + "\n").encode())
    return 0


def result(options: Evaluate, success: Success, succeeded: Sequence[int]) -> dict[str, Any]:
    """What goes into the JSON file."""
    return {
        "task": options.task,
        "simulator": options.simulator,
        "episodes": success.episodes,
        "successes": success.successes,
        "score": 100 * success.rate,  # as the paper counts: the mean of 0 and 100
        "interval_95": success.interval(),
        "seeds": list(range(options.seed, options.seed + options.episodes)),
        "succeeded": list(succeeded),
        "blank_targets": options.blank_targets,
        "horizon": options.horizon,
        "mode": options.mode,
        "latency": options.latency,
        "ensemble": options.ensemble,
        "time_limit": options.time_limit,
    }


def load_pair(folder: Path | None, device: str) -> tuple[DiffusionAgent, Controller]:
    """The diffusion agent and the controller of a checkpoint folder, checked to fit each other.

    Raises:
        GenimaError: when either cannot be loaded, they do not fit together, or there is no such device.
    """
    _, folders = checkpoint.read_pair(folder)
    agent = DiffusionAgent.from_pretrained(folders[checkpoint.DIFFUSION_AGENT], device)
    controller = Controller.from_pretrained(folders[checkpoint.CONTROLLER], device)
    return agent, controller
