"""``./genima eval``: success of a checkpoint over many seeds, by the closed loop in lock-step."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
import tyro
from tqdm import tqdm

from genima import checkpoint
from genima.checkpoint import DrawingSpec
from genima.chunks import ChunkStream, Mode
from genima.chunks.ensemble import TemporalEnsemble
from genima.closed_loop import Draws, Reads, Robot, run_episode
from genima.controller import Controller
from genima.diffusion import DiffusionAgent
from genima.diffusion.engine import DrawingEngine, Shortcuts
from genima.errors import GenimaError
from genima.evaluation import BlankTargets, Success
from genima.files import atomic_write, require_writable
from genima.guard import CommandGuard
from genima.robot.model import RobotModel
from genima_sim.coppeliasim import DEFAULT_HOST, DEFAULT_PORT
from genima_sim.coppeliasim.connection import PATIENT, Connection
from genima_sim.coppeliasim.environment import CoppeliaEnvironment
from genima_sim.coppeliasim.names import SceneNames
from genima_sim.coppeliasim.scene import CoppeliaScene
from genima_sim.environment import Environment
from genima_sim.rlbench.environment import RLBenchEnvironment
from genima_sim.rlbench.tasks import RATE, ROBOT, STEPS, require_task
from genima_sim.tasks import get_task


@dataclass
class Evaluate:
    """Measure success in simulation, in lock-step and without ROS."""

    task: str
    """push_button or take_lid_off; with --simulator rlbench one of the paper's 25, by its file's name; with coppeliasim
    one that the scene's names know."""
    simulator: Literal["mujoco", "rlbench", "coppeliasim"] = "mujoco"
    """Ours, RLBench where it is installed, or a scene in a CoppeliaSim that runs (docs/coppeliasim.md)."""
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
    scene: str = "rlbench"
    """With coppeliasim, what its objects are called: a name in config/coppeliasim or a YAML file."""
    host: str = DEFAULT_HOST
    """With coppeliasim, where it runs."""
    port: int = DEFAULT_PORT
    """With coppeliasim, of its ZeroMQ remote API."""
    drawing: Shortcuts = field(default_factory=Shortcuts)
    """What makes drawings faster, and others."""
    out: Path | None = None
    """Write the result to this JSON file."""


class _Simulated(Robot, Protocol):
    """A robot in a scene that can be reset."""

    @property
    def command_rate(self) -> float:
        """Hz."""

    def reset(self, task: str, seed: int) -> None:
        """Start an episode."""

    def close(self) -> None:
        """End the simulator."""


class _Simulator(NamedTuple):
    """How a simulator's tasks are evaluated."""

    require_task: Callable[[Evaluate, DrawingSpec], object]  # raises a GenimaError for an unknown one
    begin: Callable[[Evaluate, DrawingSpec], _Simulated]
    time_limit: float  # s of an episode


def _scene(options: Evaluate, spec: DrawingSpec) -> SceneNames:
    names = SceneNames.load(options.scene, RobotModel.load(spec.robot))
    names.require_task(options.task)
    return replace(names, image_size=spec.camera_size)


def _begin_coppeliasim(options: Evaluate, spec: DrawingSpec) -> _Simulated:
    def connect() -> Connection:
        return Connection(options.host, options.port, PATIENT)

    return CoppeliaEnvironment(CoppeliaScene(connect, _scene(options, spec), RobotModel.load(spec.robot)))


def _begin_rlbench(options: Evaluate, spec: DrawingSpec) -> _Simulated:
    spec.require_robot(RobotModel.load(ROBOT), f"the checkpoint {options.checkpoint or 'of Genima'}")
    return RLBenchEnvironment(spec.camera_size)


_SIMULATORS = {
    "mujoco": _Simulator(lambda options, _: get_task(options.task), lambda *_: Environment(), 20.0),
    "rlbench": _Simulator(lambda options, _: require_task(options.task), _begin_rlbench, STEPS / RATE),
    "coppeliasim": _Simulator(_scene, _begin_coppeliasim, 20.0),
}


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima eval``."""
    options = tyro.cli(Evaluate, prog="genima eval", args=list(argv))
    simulator = _SIMULATORS[options.simulator]
    spec, _ = checkpoint.read_pair(options.checkpoint)
    simulator.require_task(options, spec)
    time_limit = options.time_limit = simulator.time_limit if options.time_limit is None else options.time_limit
    if min(options.episodes, options.threads) < 1 or not time_limit > 0:
        raise GenimaError("--episodes, --threads and --time-limit must be positive")
    torch.set_num_threads(options.threads)
    agent, controller = load_pair(options.checkpoint, options.device)
    agent.engine = DrawingEngine(agent, options.drawing)
    if not 1 <= options.horizon <= spec.horizon:
        raise GenimaError(f"--horizon must lie between 1 and the checkpoint's K = {spec.horizon}")
    if options.ensemble is not None and not (math.isfinite(options.ensemble) and options.horizon < spec.horizon):
        raise GenimaError(
            f"--ensemble takes a finite number, and a --horizon below K = {spec.horizon}, so that chunks overlap"
        )
    if not (math.isfinite(options.latency) and options.latency >= 0):
        raise GenimaError("--latency must be a number of seconds, not negative")
    draws: Draws = BlankTargets(spec) if options.blank_targets else agent
    if options.out:
        require_writable(options.out)
    environment = simulator.begin(options, spec)
    rate = environment.command_rate
    seeds = range(options.seed, options.seed + options.episodes)
    succeeded: list[int] = []
    with closing(environment), tqdm(seeds, unit="episode", desc=options.task, dynamic_ncols=True) as progress:
        for done, seed in enumerate(progress, 1):
            environment.reset(options.task, seed)
            reads: Reads = controller if options.ensemble is None else TemporalEnsemble(controller, options.ensemble)
            run_episode(
                environment, draws, reads,
                ChunkStream(agent.robot, rate, options.horizon, options.mode),
                CommandGuard(agent.robot, rate),
                command_rate=rate, latency=options.latency, time_limit=time_limit, seed=seed * 1000,
            )  # fmt: skip
            succeeded += [seed] if environment.done else []
            progress.set_postfix_str(f"{len(succeeded)}/{done}", refresh=False)
    success = Success(len(succeeded), options.episodes)
    print(f"{options.task}{' with blank targets' if options.blank_targets else ''}: {success}")
    if options.out:
        atomic_write(options.out, (json.dumps(result(options, success, succeeded), indent=2) + "\n").encode())
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
        "drawing": asdict(options.drawing),
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
