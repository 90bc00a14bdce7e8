"""Smoothness of executing the same chunks: one after the other, or spliced by the chunk stream.

Chunks are recorded from closed-loop episodes on the simulated robot, in which every chunk is drawn while the one before
it runs. Then they are executed again in three ways, at the rate of commands:

- serial, as it is: the GENIMA paper's execution. Each chunk's actions one by one, linear in between, as far as the next
  chunk's observation; then the arm waits for the inference, and the next chunk begins.
- serial, through the stream: the same with the controller's limits on velocity, acceleration and jerk.
- overlapped, through the stream: the controller's default; every chunk takes over when it comes.

The limit: a chunk itself, executed as it is and never interrupted, has the jerk of its actions; no splice can have less
than none.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from benchmark_report import ReportOptions, require_report, write_report
from numpy.typing import NDArray

from genima.closed_loop import run_episode
from genima.control.chunk_stream import ChunkStream
from genima.control.command_guard import CommandGuard
from genima.errors import GenimaError
from genima.policy.controller import Controller
from genima.policy.genima import GenimaPolicy, load_pair
from genima.robot.model import RobotModel
from genima.types import ActionChunk, DrawnTarget, Joints
from genima_sim.environment import Environment
from genima_sim.tasks import BUNDLED_TASKS

Array = NDArray[np.float64]
OVERLAPPED = "overlapped, through the stream"


@dataclass
class Options(ReportOptions):
    """Compare ways to execute the same chunks."""

    episodes: int = 5
    """Recorded of each task."""
    latency: float = 0.3
    """Seconds from an observation until its chunk can be followed."""
    horizon: int = 16
    """Actions of a chunk that are executed before the next takes over."""
    rate: float = 50.0
    """Commands a second."""
    checkpoint: Path | None = None
    """Folder with diffusion_agent/ and controller/; the bundled models if not given."""


@dataclass(frozen=True)
class Jerk:
    """Third differences of the set-points, of the worst joint, over all episodes."""

    peak: float  # rad/s^3
    p99: float  # rad/s^3
    ratio: float  # of the peak to the first variant's


class Recording:
    """A controller whose chunks are kept."""

    def __init__(self, controller: Controller) -> None:
        self._controller, self.chunks = controller, list[ActionChunk]()

    def predict_chunk(self, drawn: DrawnTarget, joints: Joints) -> ActionChunk:
        """See :class:`genima.policy.genima.TargetFollower`."""
        self.chunks.append(self._controller.predict_chunk(drawn, joints))
        return self.chunks[-1]


def main() -> None:
    options = tyro.cli(Options)
    if options.episodes < 1 or not 0 < options.latency < 1 or not 20 <= options.rate <= 200:
        raise GenimaError("--episodes must be positive, --latency between 0 and 1 s, --rate from 20 to 200 Hz")
    require_report(options.out, "smoothness", options.overwrite)
    torch.set_num_threads(1)
    agent, controller = load_pair(options.checkpoint, "cpu")
    robot, environment = agent.robot, Environment()
    jerks: dict[str, list[Array]] = {"serial, as it is": [], "serial, through the stream": [], OVERLAPPED: []}
    chunks = 0
    for task in BUNDLED_TASKS:
        for seed in range(options.episodes):
            environment.reset(task, seed)
            start, recording = environment.joints(), Recording(controller)
            run_episode(
                environment, GenimaPolicy(agent, recording), ChunkStream(robot, options.rate, options.horizon),
                CommandGuard(robot, options.rate), command_rate=options.rate, latency=options.latency,
                time_limit=20.0, seed=1000 * seed,
            )  # fmt: skip
            recorded = recording.chunks
            chunks += len(recorded)
            executed = [c.stamp for c in recorded[1:]] + [recorded[-1].due[-1]]
            plain = as_it_is(recorded, executed, start, options)
            jerks["serial, as it is"].append(jerk(plain, options.rate))
            jerks["serial, through the stream"].append(jerk(serial(robot, recorded, start, options), options.rate))
            jerks[OVERLAPPED].append(jerk(overlapped(robot, recorded, start, options), options.rate))
    environment.close()
    results = summary(jerks)
    episodes = len(BUNDLED_TASKS) * options.episodes
    print(f"{chunks} chunks of {episodes} episodes, latency {options.latency} s, {options.rate:g} Hz")
    print(f"{'':<32}{'peak jerk':>12}{'99%':>10}   rad/s^3{'peak, ratio':>14}")
    for name, result in results.items():
        print(f"{name:<32}{result.peak:>12.0f}{result.p99:>10.1f}{result.ratio:>24.3f}")
    if options.out:
        content = {"chunks": chunks, "variants": {name: asdict(result) for name, result in results.items()}}
        write_report(options.out, "smoothness", content)


def as_it_is(chunks: list[ActionChunk], executed: list[float], start: Joints, options: Options) -> Array:
    """Return set-points (N, n) of each chunk up to ``executed``, then the time of inference."""
    parts, rest = [], start.positions
    for chunk, end in zip(chunks, executed, strict=True):
        wait = np.repeat(rest[None], round(options.latency * options.rate), axis=0)
        now = np.arange(chunk.stamp, end, 1 / options.rate) + 1 / options.rate
        times, actions = np.append(chunk.stamp, chunk.due), np.vstack([rest, chunk.positions])
        way = np.column_stack([np.interp(now, times, column) for column in actions.T])
        parts += [wait, way]
        rest = way[-1]
    return np.concatenate(parts)


def serial(robot: RobotModel, chunks: list[ActionChunk], start: Joints, options: Options) -> Array:
    """Set-points (N, n) of the stream in its serial mode."""
    stream = ChunkStream(robot, options.rate, options.horizon, "serial")
    stream.reset(start)
    now, heard = 0.0, []
    for chunk in chunks:
        for _ in range(round(options.latency * options.rate)):
            heard.append(_set_point(stream, now, start))
            now += 1 / options.rate
        stream.add(ActionChunk(now - options.latency / 2, chunk.period, chunk.positions, chunk.gripper))
        for _ in range(round(options.horizon * chunk.period * options.rate)):
            heard.append(_set_point(stream, now, start))
            now += 1 / options.rate
    return np.array(heard)


def overlapped(robot: RobotModel, chunks: list[ActionChunk], start: Joints, options: Options) -> Array:
    """Set-points (N, n) of the stream in its default mode; chunks come a latency after their observations."""
    stream = ChunkStream(robot, options.rate, options.horizon)
    stream.reset(start)
    coming, heard = list(chunks), []
    for now in np.arange(chunks[0].stamp, chunks[-1].due[-1] + 0.5, 1 / options.rate):
        while coming and coming[0].stamp + options.latency <= now:
            stream.add(coming.pop(0))
        heard.append(_set_point(stream, float(now), start))
    return np.array(heard)


def _set_point(stream: ChunkStream, now: float, start: Joints) -> Array:
    command = stream.command(now, start)
    return start.positions if command is None else command.positions


def jerk(set_points: Array, rate: float) -> Array:
    """Third differences (N - 3,) rad/s^3 of set-points (N, n), of the worst joint."""
    return np.asarray(np.abs(np.diff(set_points, n=3, axis=0)).max(axis=1) * rate**3)


def summary(jerks: dict[str, list[Array]]) -> dict[str, Jerk]:
    """Over all episodes."""
    joined = {name: np.concatenate(parts) for name, parts in jerks.items()}
    first = next(iter(joined.values())).max()
    return {
        name: Jerk(float(all_.max()), float(np.percentile(all_, 99)), float(all_.max() / first))
        for name, all_ in joined.items()
    }


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
