"""``./genima record``: demos by the scripted experts, in lock-step with the simulator."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

from genima.episodes import EpisodeWriter
from genima.errors import GenimaError
from genima.observation import Command
from genima_sim.experts import DEMO_HZ, Expert, Waypoint, lift_from, waypoints
from genima_sim.rendering import SceneRenderer
from genima_sim.simulation import Simulation
from genima_sim.tasks import TASKS, get_task

FIRST_SEED = 100_000  # demos and evaluations never share a seed: evaluations count from 0
_MISSED_SHARE = 0.3  # of the demos of take_lid_off begin with a grasp that went wrong
_MISSED_BY = (0.018, 0.045)  # m
_CLOSING = 0.7  # s that the gripper takes


class DemoRecorder:
    """Plays an expert and writes what the cameras and joints show at ``DEMO_HZ``."""

    def __init__(self) -> None:
        self.simulation = Simulation()
        self.renderer = SceneRenderer(self.simulation.model, self.simulation.cameras)
        self.expert = Expert(self.simulation.robot)

    def record(self, folder: Path, task: str, seed: int) -> bool:
        """Record one episode; returns whether the expert succeeded (failures are not kept)."""
        simulation = self.simulation
        rng = np.random.default_rng([seed, 0xDE30])
        simulation.reset(task, seed)
        simulation.reset(task, seed, self._random_start(task, rng))
        displaced = rng.normal(0.0, 0.012, 2)
        rng = np.random.default_rng([seed, 0x4E74])
        missed = task == "take_lid_off" and rng.random() < _MISSED_SHARE
        if missed:
            self._miss_grasp(seed, rng)
        try:
            with EpisodeWriter(folder, simulation.robot, simulation.cameras, simulation.instruction) as episode:
                layout = simulation.layout
                if missed:
                    self._play(episode, [lift_from(self._tip())])
                    layout = replace(layout, saucepan=simulation.lid_position[:2])
                if not simulation.success:  # now and then the grasp held after all
                    self._play(episode, waypoints(task, layout, miss=displaced), settle_seconds=0.5)
                if not simulation.success:
                    raise _ExpertFailed
                episode.judge(simulation.time, True)
        except _ExpertFailed:
            return False
        return True

    def _play(self, episode: EpisodeWriter, plan: list[Waypoint], settle_seconds: float = 0.0) -> None:
        simulation = self.simulation
        trajectory = self.expert.plan(plan, simulation.joints().positions, settle_seconds)
        for positions, gripper in zip(trajectory.positions, trajectory.gripper, strict=True):
            now = simulation.time
            episode.observe(now, self.renderer.render(simulation.qpos()), simulation.joints())
            episode.command(Command(now, positions, gripper=float(gripper)))
            simulation.command(positions, float(gripper))
            simulation.step(1 / DEMO_HZ)

    def _tip(self) -> NDArray[np.float64]:
        return self.simulation.robot.link_poses(self.simulation.joints().positions)[-1, :3, 3]

    def _miss_grasp(self, seed: int, rng: np.random.Generator) -> None:
        """Start where a policy is that has just closed the gripper beside the knob: such demos show how to go on."""
        simulation = self.simulation
        _, grasp, *_ = waypoints("take_lid_off", simulation.layout)
        angle, distance = rng.uniform(-np.pi, np.pi), rng.uniform(*_MISSED_BY)
        beside = np.array(grasp.position) + [distance * np.cos(angle), distance * np.sin(angle), rng.uniform(0.0, 0.02)]
        start = self.expert.reach(beside, simulation.robot.home)
        simulation.reset("take_lid_off", seed, start)
        simulation.command(start, 0.0)
        simulation.step(_CLOSING)

    def _random_start(self, task: str, rng: np.random.Generator) -> np.ndarray:
        """Starts wider than an evaluation's: round home, or over the table near the object, so that errors are seen."""
        simulation = self.simulation
        if rng.random() < 0.4:
            return simulation.robot.home + rng.uniform(-0.15, 0.15, len(simulation.robot.home))
        spot = waypoints(task, simulation.layout)[0].position
        spread = np.array([0.10, 0.10, 0.05])
        return self.expert.reach(np.array(spot) + [0, 0, 0.03] + rng.uniform(-spread, spread), simulation.robot.home)


class _ExpertFailed(Exception):
    pass


@dataclass
class Record:
    """Record demos with the scripted experts in the simulator."""

    task: tuple[str, ...] = tuple(TASKS)
    """Which tasks."""
    episodes: int = 50
    """How many demos of each task."""
    seed: int = FIRST_SEED
    """First seed; demo i uses seed + i. Evaluations use small numbers."""
    out: Path = Path("data/demos")
    """Folder for the episodes, about 6 MB each; those already there are kept and not made again."""
    workers: int = 2
    """Processes."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima record``."""
    options = tyro.cli(Record, prog="genima record", args=list(argv))
    for task in options.task:
        get_task(task)
    if min(options.episodes, options.workers) < 1 or options.seed < 0:
        raise GenimaError("--episodes and --workers must be positive, --seed must not be negative")
    folders = episode_folders(options.out, options.task, options.episodes, options.seed)
    todo = [folder for folder in folders if not folder.exists()]
    failed = _record_all(todo, options.workers, len(folders)) if todo else 0
    print(f"{len(folders) - failed} demos in {options.out}; the expert failed {failed} times")
    if failed == len(folders):
        raise GenimaError("no expert succeeded; nothing was recorded")
    return 0


def episode_folders(out: Path, tasks: Sequence[str], episodes: int, seed: int = FIRST_SEED) -> list[Path]:
    """Where the demos of ``tasks`` with seeds from ``seed`` on lie: <out>/<task>-<seed>."""
    return [out / f"{task}-{seed + i}" for i in range(episodes) for task in tasks]


def _record_all(folders: Sequence[Path], workers: int, total: int) -> int:
    """Record in processes; returns how often the expert failed."""
    context = multiprocessing.get_context("spawn")
    bar = tqdm(total=total, initial=total - len(folders), unit="demo", dynamic_ncols=True)
    with bar, ProcessPoolExecutor(workers, context, _start_worker) as pool:
        jobs = [pool.submit(_record_one, folder) for folder in folders]
        try:
            failed = 0
            for job in as_completed(jobs):
                failed += not job.result()
                bar.update()
        except BrokenProcessPool:
            raise GenimaError("a process that records has died; its last words are above") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


_recorder: DemoRecorder


def _start_worker() -> None:
    global _recorder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent: each demo under way is finished
    _recorder = DemoRecorder()


def _record_one(folder: Path) -> bool:
    task, seed = folder.name.rsplit("-", 1)
    return _recorder.record(folder, task, int(seed))
