"""``./genima eval``: success of a checkpoint over many seeds, by the closed loop in lock-step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from tqdm import tqdm

from genima.closed_loop import Robot, run_episode
from genima.control.chunk_stream import ChunkStream
from genima.control.command_guard import CommandGuard
from genima.errors import GenimaError
from genima.evaluation import BlankTargets
from genima.io.files import require_writable
from genima.policy import spec as checkpoint
from genima.policy.base import Policy
from genima.policy.genima import GenimaPolicy
from genima.policy.registry import GENIMA, PolicyOptions, load_policy
from genima.policy.spec import PolicySpec
from genima.policy.temporal_ensemble import EnsemblePolicy
from genima.robot.model import RobotModel
from genima.system.signals import interruptible
from genima_cli.evaluation_results import Results, checkpoint_digest, open_results
from genima_sim.coppeliasim.connection import LOCKSTEP_TIMEOUT, Connection
from genima_sim.coppeliasim.environment import CoppeliaEnvironment
from genima_sim.coppeliasim.names import SceneNames
from genima_sim.coppeliasim.scene import CoppeliaScene
from genima_sim.environment import Environment
from genima_sim.rlbench.environment import RLBenchEnvironment
from genima_sim.rlbench.tasks import ROBOT

if TYPE_CHECKING:
    from genima_cli.evaluate_options import Evaluate


class _Simulated(Robot, Protocol):
    """A robot in a scene that can be reset."""

    @property
    def command_rate(self) -> float:
        """Hz."""

    def reset(self, task: str, seed: int) -> None:
        """Start an episode."""

    def close(self) -> None:
        """End the simulator."""


def _scene(options: Evaluate, spec: PolicySpec) -> SceneNames:
    names = SceneNames.load(options.scene, RobotModel.load(spec.robot))
    names.require_task(options.task)
    return replace(names, image_size=spec.camera_size)


def _begin_coppeliasim(options: Evaluate, spec: PolicySpec) -> _Simulated:
    def connect() -> Connection:
        return Connection(options.host, options.port, LOCKSTEP_TIMEOUT)

    return CoppeliaEnvironment(CoppeliaScene(connect, _scene(options, spec), RobotModel.load(spec.robot)))


def _begin_rlbench(options: Evaluate, spec: PolicySpec) -> _Simulated:
    spec.require_robot(RobotModel.load(ROBOT), f"the checkpoint {options.checkpoint or 'of Genima'}")
    return RLBenchEnvironment(spec.camera_size)


_SIMULATORS: dict[str, Callable[[Evaluate, PolicySpec], _Simulated]] = {
    "mujoco": lambda *_: Environment(),
    "rlbench": _begin_rlbench,
    "coppeliasim": _begin_coppeliasim,
}


def run(options: Evaluate) -> int:
    """Evaluate; return the exit code.

    Raises:
        GenimaError: for options that the checkpoint or the simulator does not allow.
    """
    genima = options.policy == GENIMA
    if genima:  # in a moment, before the models are loaded
        spec, folders = checkpoint.read_pair(options.checkpoint)
        policy = None
    else:
        policy = load_policy(options.policy, policy_options(options))
        spec, folders = policy.spec, {}
    if options.simulator == "coppeliasim":
        _scene(options, spec)
    if options.horizon > spec.horizon:
        raise GenimaError(f"--horizon {options.horizon}: the checkpoint has chunks of K = {spec.horizon} actions")
    if options.ensemble is not None and options.horizon >= spec.horizon:
        raise GenimaError(f"--ensemble needs a --horizon below K = {spec.horizon}, so that chunks overlap")
    torch.set_num_threads(options.threads)
    policy = policy or load_policy(GENIMA, policy_options(options))
    if options.blank_targets and isinstance(policy, GenimaPolicy):
        policy = GenimaPolicy(BlankTargets(spec), policy.controller)
    if options.ensemble is not None:
        policy = EnsemblePolicy(policy, options.ensemble)
    if options.out:
        require_writable(options.out)
    with interruptible(), open_results(options.out, settings(options, folders), options.overwrite) as results:
        seeds = range(options.seed, options.seed + options.episodes)
        todo = [seed for seed in seeds if seed not in set(results.seeds)]
        if len(todo) < len(seeds):
            print(f"{len(seeds) - len(todo)} of {len(seeds)} episodes are in {options.out} already")
        try:
            _run_episodes(options, policy, todo, results)
        except KeyboardInterrupt:
            where = f" are in {options.out}; the same command resumes" if options.out else ""
            print(f"\ninterrupted: {results.success().episodes} of {len(seeds)} episodes{where or ' were evaluated'}")
            return 130
    print(f"{options.task}{' with blank targets' if options.blank_targets else ''}: {results.success()}")
    return 0


def _run_episodes(options: Evaluate, policy: Policy, seeds: Sequence[int], results: Results) -> None:
    assert options.time_limit is not None
    robot = RobotModel.load(policy.spec.robot)
    environment = _SIMULATORS[options.simulator](options, policy.spec)
    rate = environment.command_rate
    with closing(environment), tqdm(seeds, unit="episode", desc=options.task, dynamic_ncols=True) as progress:
        for seed in progress:
            environment.reset(options.task, seed)
            run_episode(
                environment, policy, ChunkStream(robot, rate, options.horizon, options.mode),
                CommandGuard(robot, rate),
                command_rate=rate, latency=options.latency, time_limit=options.time_limit, seed=seed * 1000,
            )  # fmt: skip
            results.add(seed, environment.done)
            success = results.success()
            progress.set_postfix_str(f"{success.successes}/{success.episodes}", refresh=False)


def settings(options: Evaluate, folders: Mapping[str, Path]) -> dict[str, Any]:
    """Return whatever a result depends on, as plain JSON types."""
    return {
        "task": options.task,
        "simulator": options.simulator,
        "seed": options.seed,
        **({"policy": options.policy, "episode": options.episode} if options.policy != GENIMA else {}),
        "checkpoint": str(options.checkpoint or "bundled"),
        "checkpoint_digest": checkpoint_digest(folders),
        "blank_targets": options.blank_targets,
        "horizon": options.horizon,
        "mode": options.mode,
        "latency": options.latency,
        "ensemble": options.ensemble,
        "time_limit": options.time_limit,
        "drawing": asdict(options.drawing),
        **({"scene": options.scene} if options.simulator == "coppeliasim" else {}),
    }


def policy_options(options: Evaluate) -> PolicyOptions:
    """Return the options of the policy."""
    folder = str(options.checkpoint) if options.checkpoint else ""
    return PolicyOptions(folder, options.device, episode=options.episode, sampling=options.drawing)
