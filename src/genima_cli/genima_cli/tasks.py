"""``./genima tasks``: list the simulated tasks, check them, and draw a gallery.

Modules of the simulator are imported only when a command runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import Field

from genima.errors import GenimaError
from genima.io.files import require_writable
from genima.io.outputs import require_free
from genima.system.command_group import Command, CommandGroup
from genima.system.command_line import Episodes, Seed, Workers, parse_options
from genima.system.process_pool import WorkerPool
from genima.system.terminal import printable
from genima_sim.tasks import TASKS, get_task

if TYPE_CHECKING:
    from genima.types import Image
    from genima_sim.environment import Environment
    from genima_sim.experts import Expert

_GALLERY_ATTEMPTS = 5  # seeds
_CHUNK = 5  # seeds of one call to a worker


@dataclass
class List:
    """List the simulated tasks with their variations and instructions."""


def list_tasks(argv: Sequence[str]) -> int:
    """Entry point of ``./genima tasks list``."""
    parse_options(List, "genima tasks list", argv, example="./genima tasks list")
    names = _variations([])
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}}  {get_task(name).instruction}")
    return 0


@dataclass
class Check:
    """Run experts within the arm's limits, near misses, resting and randomly moving arms.

    Prints a table; --out keeps it as JSON.
    """

    tasks: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of tasks, or of variations such as open_drawer@1; default: all of them."""
    seeds: Episodes = 20
    """Number of the experts' episodes for each."""
    first: Seed = 1000
    """First seed."""
    guarded: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Number of these that also run through the 50 Hz stream and the command guard."""
    idle: Annotated[int, Field(ge=0, le=10_000)] = 2
    """Number of episodes of a resting arm, and of one that moves at random."""
    workers: Workers = 2
    """Processes."""
    out: Path | None = None
    """JSON file for the results."""
    overwrite: bool = False
    """Replace the results in --out."""


def check_tasks(argv: Sequence[str]) -> int:
    """Entry point of ``./genima tasks check``; 1 where a task breaks a rule."""
    options = parse_options(
        Check, "genima tasks check", argv, example="./genima tasks check open_drawer --seeds 100 --guarded 20"
    )
    names = _variations(options.tasks)
    if options.out is not None:
        if options.out.suffix != ".json":
            raise GenimaError(f"--out {options.out}: the results are a .json file")
        require_free(options.out, "results", options.overwrite)
        require_writable(options.out)
    from tqdm import tqdm

    jobs = {
        name: [
            (name, kind, list(range(start, min(start + _CHUNK, options.first + count))))
            for kind, count in (("expert", options.seeds), ("guarded", options.guarded), ("idle", options.idle))
            for start in range(options.first, options.first + count, _CHUNK)
        ]
        + [(name, "near misses", [options.first])]
        for name in names
    }
    results: dict[str, dict[str, list[Any]]] = {name: {} for name in names}
    total = sum(map(len, jobs.values()))
    with (
        WorkerPool(options.workers, _start_worker) as pool,
        tqdm(total=total, unit="job", dynamic_ncols=True) as bar,
    ):
        pending = {pool.submit(_run, *job): job for group in jobs.values() for job in group}
        for future in as_completed(pending):
            name, kind, _ = pending[future]
            results[name].setdefault(kind, []).extend(future.result())
            bar.update()
    rows = {name: summarize(results[name]) for name in names}
    _print_table(rows)
    if options.out is not None:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        print(f"results: {printable(options.out)}")
    return int(any(row["over_limits"] or row["near_misses_counted"] or row["idle_successes"] for row in rows.values()))


@dataclass
class Gallery:
    """Draw each task at its start and when its expert has accomplished it, in one picture."""

    out: tyro.conf.Positional[Path]
    """PNG file for the picture."""
    tasks: tuple[str, ...] = ()
    """Names of tasks; default: all of them."""
    view: str = "left_shoulder"
    """Camera."""
    seed: Seed = 1000
    """Seed of the placements; the next ones where the expert fails."""
    columns: Annotated[int, Field(ge=1, le=20)] = 5
    """Tasks in a row."""
    overwrite: bool = False
    """Replace a picture that is there; no other file is ever replaced."""


def draw_gallery(argv: Sequence[str]) -> int:
    """Entry point of ``./genima tasks gallery``."""
    options = parse_options(Gallery, "genima tasks gallery", argv, example="./genima tasks gallery gallery.png")
    if options.out.suffix.lower() != ".png":
        raise GenimaError(f"{options.out}: the picture is a .png file")
    for name in options.tasks:
        get_task(name)
    from contextlib import closing

    from tqdm import tqdm

    from genima.inspection.sheet import add_caption, grid, is_picture, write_picture
    from genima_sim.environment import Environment
    from genima_sim.experts import Expert

    require_free(options.out, "picture", options.overwrite, is_picture)
    require_writable(options.out)
    pictures = []
    with closing(Environment()) as environment:
        if options.view not in environment.simulation.cameras:
            views = ", ".join(environment.simulation.cameras)
            raise GenimaError(f"view {options.view!r}: not in the scene; use one of {views}")
        expert = Expert(environment.simulation.robot)
        for name in tqdm(options.tasks or list(TASKS), unit="task", dynamic_ncols=True):
            pair = _start_and_end(environment, expert, name, options)
            pictures.append(add_caption(grid([_half_size(image) for image in pair], gap=2), name))
    write_picture(options.out, grid(pictures, options.columns))
    print(f"gallery: {printable(options.out)}")
    return 0


def _start_and_end(environment: Environment, expert: Expert, task: str, options: Gallery) -> list[Image]:
    """Return the images before and after an expert's episode that succeeds.

    Raises:
        GenimaError: for a task whose expert fails several times.
    """
    from genima_sim.task_checks import run_expert

    for seed in range(options.seed, options.seed + _GALLERY_ATTEMPTS):
        environment.reset(task, seed)
        start = environment.observe().images[options.view]
        if run_expert(environment.simulation, expert, task, seed).success:
            return [start, environment.observe().images[options.view]]
    raise GenimaError(f"task {task}: the expert fails from seed {options.seed} on; ./genima tasks check {task}")


def _half_size(image: Image) -> Image:
    """Return an image of half the size, for a picture of many."""
    import cv2
    import numpy as np

    return np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


def summarize(results: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return the row of a task from the results of its checks, as plain JSON types."""
    attempts = results.get("expert", [])
    succeeded = [attempt for attempt in attempts if attempt["success"]]
    processing = sum(attempt["processing"] for attempt in attempts)
    return {
        "episodes": len(attempts),
        "successes": len(succeeded),
        "over_limits": sum(attempt["excess"] > 1 for attempt in attempts),
        "largest_excess": max((attempt["excess"] for attempt in attempts), default=0.0),
        "longest": max((attempt["simulated"] for attempt in succeeded), default=0.0),
        "real_time_factor": sum(attempt["simulated"] for attempt in attempts) / max(processing, 1e-9),
        "guarded": len(results.get("guarded", [])),
        "guarded_successes": sum(results.get("guarded", [])),
        "idle": len(results.get("idle", [])),
        "idle_successes": sum(results.get("idle", [])),
        "near_misses_counted": list(results.get("near misses", [])),
        "problems": sorted({attempt["problem"] for attempt in attempts if attempt["problem"]}),
    }


def _print_table(rows: Mapping[str, Mapping[str, Any]]) -> None:
    width = max(map(len, rows))
    print(f"\n{'task':{width}}  expert    limits  longest  real time  guarded  idle   near misses counted")
    for name, row in rows.items():
        guarded = f"{row['guarded_successes']}/{row['guarded']}" if row["guarded"] else "-"
        print(
            f"{name:{width}}  {row['successes']:3}/{row['episodes']:<4}  {row['largest_excess']:6.2f}  "
            f"{row['longest']:5.1f} s  {row['real_time_factor']:7.0f} x  {guarded:>7}  "
            f"{row['idle_successes']}/{row['idle']:<3}  {', '.join(row['near_misses_counted']) or 'none'}"
        )
        for problem in row["problems"]:
            print(f"{'':{width}}  {problem}")


def _variations(names: Sequence[str]) -> list[str]:
    """Return the names of variations, all of those of the tasks that are named without one.

    Raises:
        GenimaError: for an unknown task or variation.
    """
    for name in names:
        get_task(name)
    chosen: list[str] = []
    for name in names or TASKS:
        count = len(get_task(name).variations)
        chosen += [name] if "@" in name else [name, *(f"{name}@{v}" for v in range(1, count))]
    return chosen


# A worker's.

_environment: Any
_expert: Any
_policy: Any


def _start_worker() -> None:
    global _environment, _expert, _policy
    from genima.policy.registry import load_policy
    from genima_sim.environment import StateEnvironment
    from genima_sim.experts import Expert

    _environment = StateEnvironment()
    _expert, _policy = Expert(_environment.simulation.robot), load_policy("expert")


def _run(task: str, kind: str, seeds: Sequence[int]) -> list[Any]:
    from genima_sim import task_checks

    simulation = _environment.simulation
    if kind == "expert":
        return [asdict(task_checks.run_expert(simulation, _expert, task, seed)) for seed in seeds]
    if kind == "guarded":
        return [task_checks.run_guarded_expert(_environment, _policy, task, seed) for seed in seeds]
    if kind == "idle":
        return [
            task_checks.resting_arm_succeeds(simulation, task, seed)
            or task_checks.random_motion_succeeds(simulation, task, seed)
            for seed in seeds
        ]
    if "@" in task:
        return []  # near misses are those of variation 0
    misses = get_task(task).near_misses
    return [name for name, changes in misses.items() if task_checks.near_miss_counts(simulation, task, changes)]


COMMANDS: dict[str, Command] = {
    "list": Command("genima_cli.tasks:list_tasks", "list tasks, variations and instructions"),
    "gallery": Command("genima_cli.tasks:draw_gallery", "draw every task before and after its expert"),
    "check": Command("genima_cli.tasks:check_tasks", "check experts, limits and success tests"),
}
main = CommandGroup("tasks", COMMANDS, "Example: ./genima tasks check open_drawer --seeds 100 --guarded 20").run
