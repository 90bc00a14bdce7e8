"""``./genima record``: demos by the scripted experts, in lock-step with the simulator."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
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
    """Folder for the episodes; those already there are kept and not made again."""
    workers: int = 2
    """Processes."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima record``."""
    options = tyro.cli(Record, prog="genima record", args=list(argv))
    for task in options.task:
        get_task(task)
    jobs = [
        (options.out / f"{task}-{options.seed + i}", task, options.seed + i)
        for i in range(options.episodes)
        for task in options.task
    ]
    todo = [job for job in jobs if not job[0].exists()]
    failed = 0
    with multiprocessing.get_context("spawn").Pool(max(1, options.workers), _start_worker) as pool:
        progress = tqdm(
            pool.imap_unordered(_record_one, todo), total=len(jobs), initial=len(jobs) - len(todo), unit="demo"
        )
        for succeeded in progress:
            failed += not succeeded
    print(f"{len(jobs) - failed} demos in {options.out}; the expert failed {failed} times")
    if failed == len(jobs):
        raise GenimaError("no expert succeeded; nothing was recorded")
    return 0


_recorder: DemoRecorder


def _start_worker() -> None:
    global _recorder
    _recorder = DemoRecorder()


def _record_one(job: tuple[Path, str, int]) -> bool:
    return _recorder.record(*job)
