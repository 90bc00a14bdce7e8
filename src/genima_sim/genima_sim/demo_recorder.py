"""Record demos of scripted experts, in lock-step with the simulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tqdm import tqdm

from genima.cell import SIMULATED, Cell, load_cell
from genima.data.episodes import EpisodeWriter
from genima.data.episodes.scene_states import SceneDescription
from genima.errors import GenimaError
from genima.robot.ik import UnreachableError
from genima.system.process_pool import WorkerPool
from genima.system.terminal import printable
from genima.types import Command
from genima_sim.demo_starts import Demo
from genima_sim.experts import Expert, Trajectory
from genima_sim.motions import GRIP_TIME
from genima_sim.simulation import OverlapError
from genima_sim.simulators import perturb, require_experts, require_perturbations
from genima_sim.tasks import DEMO_HZ, DEMO_SEED, get_task

ImageFormat: TypeAlias = Literal["jpeg", "png", "none"]


@dataclass(frozen=True)
class DemoOptions:
    """Cell, images and perturbations of demos."""

    cell: str = SIMULATED
    images: ImageFormat = "jpeg"  # none: states only
    perturbations: Sequence[str] = ()


class DemoRecorder:
    """Let an expert move the arm, and write images, joints and commands at ``DEMO_HZ``."""

    def __init__(
        self, cell: Cell | None = None, images: ImageFormat = "jpeg", perturbations: Sequence[str] = ()
    ) -> None:
        """Args:
        cell: a simulated one; None: the Panda's.
        images: format, or none to record states only.
        perturbations: names of those of the scenes.

        Raises:
            GenimaError: when its simulator cannot record demos of experts.
        """
        cell = cell or load_cell(SIMULATED)
        simulator = require_experts(cell)
        self.environment = simulator.demo_environment(cell, images != "none")
        perturb(self.environment, perturbations)
        self._images, self._perturbations = images, list(perturbations)
        self.expert = Expert(cell.robot)
        self._cameras = cell.load_cameras()

    def record(self, folder: Path, task: str, seed: int) -> bool:
        """Record one episode; return whether the expert succeeded (failures are not kept)."""
        environment, expert = self.environment, self.expert
        environment.reset(task, seed)
        demo = Demo.random(get_task(task), seed, environment.bodies(), expert)
        try:
            environment.reset(task, seed, demo.start)
        except OverlapError:  # a finger in a handle: not every random start is free
            return False
        if demo.failed_grasp:
            environment.apply(Command(environment.time, demo.start, gripper=0.0), GRIP_TIME)
        try:
            images = "jpeg" if self._images == "none" else self._images
            with EpisodeWriter(folder, expert.robot, self._cameras, demo.task.instruction, images) as episode:
                episode.describe_scene(SceneDescription(task=task, seed=seed, perturbations=self._perturbations))
                for plan in demo.planners(expert):
                    if not environment.done:  # a grasp that should fail holds now and then
                        self._play(episode, plan(environment.joints().positions, environment.bodies()))
                if not environment.done:
                    raise _ExpertFailed
                episode.judge(environment.time, True)
        except _ExpertFailed:
            return False
        return True

    def _play(self, episode: EpisodeWriter, trajectory: Trajectory) -> None:
        for positions, gripper in zip(trajectory.positions, trajectory.gripper, strict=True):
            observation = self.environment.observe()
            command = Command(observation.stamp, positions, gripper=float(gripper))
            episode.observe(observation.stamp, observation.images, observation.joints)
            if (state := self.environment.state()) is not None:
                episode.state(observation.stamp, state)
            episode.command(command)
            self.environment.apply(command, 1 / DEMO_HZ)

    def close(self) -> None:
        """Free what the simulator holds."""
        self.environment.close()


class _ExpertFailed(Exception):
    pass


def record(
    out: Path,
    tasks: Sequence[str],
    episodes: int,
    seed: int = DEMO_SEED,
    workers: int = 2,
    options: DemoOptions | None = None,
) -> int:
    """Record ``episodes`` demos of each task, with seeds from ``seed`` on; demos that exist are kept.

    Raises:
        GenimaError: for a cell or task without an expert, for a simulator without states when there are no images,
            and for tasks with fewer demos in the end.
    """
    options = options or DemoOptions()
    simulated = load_cell(options.cell)  # and what follows: before processes begin
    simulator = require_experts(simulated)
    if options.images == "none" and not simulator.stores_states:
        raise GenimaError(f"--images none: simulator {simulator.name} stores no states; record images")
    for task in tasks:
        simulator.require_task(task, simulated)
    require_perturbations(simulated, options.perturbations, tasks)
    return record_episodes(
        out, tasks, episodes, seed, lambda folders, total: _record_all(folders, workers, total, options)
    )


def record_episodes(
    out: Path, tasks: Sequence[str], episodes: int, seed: int, record_all: Callable[[Sequence[Path], int], int]
) -> int:
    """Record until there are ``episodes`` demos of each task; where the expert fails, the next seed takes its place.

    Args:
        out: folder of the demos.
        tasks: names.
        episodes: demos of each task.
        seed: the first; at most twice as many are tried as there are to be demos.
        record_all: records demos into folders, and returns how often the expert failed; it is also given the number of
            all demos.

    Returns:
        Exit code.

    Raises:
        GenimaError: for tasks with fewer demos in the end.
    """
    tried: set[Path] = set()
    failed = 0
    while todo := _missing_demos(out, tasks, episodes, seed, tried):
        failed += record_all(todo, episodes * len(tasks))
        tried.update(todo)
    found = {task: len(demo_folders(out, [task], episodes, seed)) for task in tasks}
    print(f"{sum(found.values())} demos in {out}; the expert failed {failed} times")
    if short := [f"{task} {count} of {episodes}" for task, count in found.items() if count < episodes]:
        raise GenimaError(f"record: too few demos, the expert fails too often ({', '.join(short)})")
    return 0


def demo_folders(out: Path, tasks: Sequence[str], episodes: int, seed: int = DEMO_SEED) -> list[Path]:
    """Return the folders <out>/<task>-<seed> of the first ``episodes`` recorded demos of each task."""
    found = []
    for task in tasks:
        found += [folder for folder in _candidates(out, task, episodes, seed) if folder.exists()][:episodes]
    return found


def _missing_demos(out: Path, tasks: Sequence[str], episodes: int, seed: int, tried: set[Path]) -> list[Path]:
    """Return the folders of the next demos to record, seed by seed."""
    missing: list[tuple[int, Path]] = []
    for task in tasks:
        candidates = _candidates(out, task, episodes, seed)
        exist = sum(folder.exists() for folder in candidates)
        new = [folder for folder in candidates if not folder.exists() and folder not in tried]
        missing += enumerate(new[: max(0, episodes - exist)])
    return [folder for _, folder in sorted(missing, key=lambda entry: entry[0])]


def _candidates(out: Path, task: str, episodes: int, seed: int) -> list[Path]:
    return [out / f"{task}-{seed + i}" for i in range(2 * episodes)]


def _record_all(folders: Sequence[Path], workers: int, total: int, options: DemoOptions) -> int:
    """Record in processes; returns how often the expert failed."""
    bar = tqdm(total=total, initial=total - len(folders), unit="demo", dynamic_ncols=True)
    failed = 0
    with bar, WorkerPool(workers, _start_worker, (options,)) as pool:
        jobs = [pool.submit(_record_one, folder) for folder in folders]
        for job in as_completed(jobs):
            success, problem = job.result()
            failed += not success
            if problem:
                bar.write(f"genima: not recorded: {printable(problem)}")
            bar.update()
    return failed


_recorder: DemoRecorder


def _start_worker(options: DemoOptions) -> None:
    global _recorder
    _recorder = DemoRecorder(load_cell(options.cell), options.images, options.perturbations)


def _record_one(folder: Path) -> tuple[bool, str]:
    """Return whether the expert succeeded, and why it could not begin."""
    task, seed = folder.name.rsplit("-", 1)
    try:
        return _recorder.record(folder, task, int(seed)), ""
    except UnreachableError as error:  # of one placement or start: the others may be within reach
        return False, f"{folder.name}: {error}"
