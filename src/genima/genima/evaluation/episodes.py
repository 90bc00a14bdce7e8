"""Episodes of a policy in lock-step, over seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from genima.closed_loop import Robot, run_episode
from genima.control.chunk_stream import ChunkStream
from genima.control.command_guard import CommandGuard
from genima.policy.base import Policy
from genima.robot.model import RobotModel


class Environment(Robot, Protocol):
    """Robot in a scene that can be reset."""

    @property
    def command_rate(self) -> float:
        """Hz."""

    def reset(self, task: str, seed: int) -> None:
        """Start an episode; raise a GenimaError for an unknown task."""

    def close(self) -> None:
        """Free what the simulator holds."""


class DemoEnvironment(Environment, Protocol):
    """Environment that knows where its objects are."""

    def bodies(self) -> Mapping[str, NDArray[np.float64]]:
        """Return the poses of the objects' bodies by name, (4, 4) in the base frame each."""

    def reset(self, task: str, seed: int, start: NDArray[np.float64] | None = None) -> None:
        """Start an episode; ``start`` (n,) in rad overrides the arm's random joints."""

    def state(self) -> NDArray[np.float64] | None:
        """Return the configuration (nq,) of the scene; None where images cannot be rendered from it."""


@dataclass(frozen=True)
class EpisodeOptions:
    """Execution of chunks, and the time limit."""

    horizon: int = 20  # actions executed before the next chunk
    mode: Literal["overlapped", "serial"] = "overlapped"
    latency: float = 0.0  # s from an observation to the first command of its chunk
    time_limit: float = 20.0  # s of an episode


def run_seed(
    environment: Environment, policy: Policy, robot: RobotModel, task: str, seed: int, options: EpisodeOptions
) -> bool:
    """Run the episode of a seed; return its success."""
    rate = environment.command_rate
    environment.reset(task, seed)
    run_episode(
        environment,
        policy,
        ChunkStream(robot, rate, options.horizon, options.mode),
        CommandGuard(robot, rate),
        command_rate=rate,
        latency=options.latency,
        time_limit=options.time_limit,
        seed=seed * 1000,
    )
    return environment.done


def run_episodes(
    environment: Environment,
    policy: Policy,
    robot: RobotModel,
    task: str,
    seeds: Iterable[int],
    options: EpisodeOptions,
    on_result: Callable[[int, bool], None],
) -> None:
    """Run one episode per seed; call ``on_result`` with the seed and the success after each."""
    for seed in seeds:
        on_result(seed, run_seed(environment, policy, robot, task, seed, options))
