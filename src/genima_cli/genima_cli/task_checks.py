"""``./genima tasks check``: experts, limits and success tests of the simulated tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field

from genima.errors import GenimaError
from genima.io.files import atomic_write, load_json, require_writable
from genima.system.command_line import Episodes, Seed, Workers, parse_options
from genima.system.process_pool import WorkerPool
from genima.system.signals import interrupt_on_signals
from genima.system.terminal import printable
from genima_sim.tasks import get_task, variation_names

_CHUNK = 5  # seeds of one call to a worker
_MIN_SUCCESS = 0.95  # share of the experts' episodes, with and without the guard
_EXPERT, _GUARDED, _IDLE, _NEAR_MISSES = "expert", "guarded", "idle", "near misses"
Results = dict[str, dict[str, dict[str, Any]]]
"""Results by task, check and seed, or by task, check and name of a near miss."""


@dataclass
class Check:
    """Run experts within the arm's limits, near misses, resting and randomly moving arms, and print a table.

    With --out the results are kept as they come; interrupted, the same command resumes.
    """

    tasks: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of tasks, with all their variations, or of variations such as open_drawer@1; default: all tasks."""
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
    """JSON file for the results; one that this command left is continued."""
    overwrite: bool = False
    """Replace the results in --out, and run all checks; no other file is ever replaced."""


def check_tasks(argv: Sequence[str]) -> int:
    """Entry point of ``./genima tasks check``; 1 where a task fails."""
    options = parse_options(
        Check, "genima tasks check", argv, example="./genima tasks check open_drawer --seeds 100 --guarded 20"
    )
    names = variation_names(options.tasks)
    if options.out is not None:
        if options.out.suffix != ".json":
            raise GenimaError(f"--out {options.out}: the results are a .json file")
        require_writable(options.out)
    results = _load_results(options)
    jobs = [job for name in names for job in _jobs(options, name, results.get(name, {}))]
    try:
        with interrupt_on_signals():
            _run_all(jobs, results, options)
    except KeyboardInterrupt:
        where = f": results are in {printable(options.out)}; the same command resumes" if options.out else ""
        print(f"\ninterrupted{where}")
        return 130
    rows = {name: summarize(_select(options, results[name])) for name in names}
    _print_table(rows)
    if options.out is not None:
        print(f"results: {printable(options.out)}")
    failed = {name: "; ".join(problems) for name, row in rows.items() if (problems := list(_problems(row)))}
    if failed:
        print(f"{len(failed)} of {len(rows)} failed: {', '.join(f'{name} ({text})' for name, text in failed.items())}")
    return int(bool(failed))


def _seeds(options: Check) -> dict[str, range]:
    """Return the seeds of each check that has seeds."""
    counts = {_EXPERT: options.seeds, _GUARDED: options.guarded, _IDLE: options.idle}
    return {kind: range(options.first, options.first + count) for kind, count in counts.items()}


def _jobs(options: Check, name: str, done: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, list[int]]]:
    """Return the task, check and seeds of each call that is missing."""
    jobs = []
    for kind, seeds in _seeds(options).items():
        todo = [seed for seed in seeds if str(seed) not in done.get(kind, {})]
        jobs += [(name, kind, todo[i : i + _CHUNK]) for i in range(0, len(todo), _CHUNK)]
    return jobs if _NEAR_MISSES in done else [*jobs, (name, _NEAR_MISSES, [options.first])]


def _select(options: Check, results: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the results that the options ask for: a file may have more."""
    selected = {kind: [results[kind][str(seed)] for seed in seeds] for kind, seeds in _seeds(options).items() if seeds}
    return selected | {_NEAR_MISSES: [miss for miss, counts in results[_NEAR_MISSES].items() if counts]}


def _load_results(options: Check) -> Results:
    """Return the results that the file has and that the options keep.

    Raises:
        GenimaError: for another file.
    """
    if options.out is None or not options.out.exists():
        return {}
    results = load_json(Results, options.out, "results of ./genima tasks check")  # nothing else is replaced
    return {} if options.overwrite else results


def _run_all(jobs: Sequence[tuple[str, str, list[int]]], results: Results, options: Check) -> None:
    """Run checks in processes, and keep each result."""
    from tqdm import tqdm

    if not jobs:
        return
    workers = min(options.workers, len(jobs))
    with WorkerPool(workers, _start_worker) as pool, tqdm(total=len(jobs), unit="job", dynamic_ncols=True) as bar:
        pending = {pool.submit(_run, *job): job for job in jobs}
        for future in as_completed(pending):
            name, kind, _ = pending[future]
            results.setdefault(name, {}).setdefault(kind, {}).update(future.result())
            if options.out is not None:
                atomic_write(options.out, (json.dumps(results, indent=1) + "\n").encode())
            bar.update()


def summarize(results: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return the row of a task from the results of its checks, as plain JSON types."""
    attempts = results.get(_EXPERT, [])
    succeeded = [attempt for attempt in attempts if attempt["success"]]
    processing = sum(attempt["processing"] for attempt in attempts)
    return {
        "episodes": len(attempts),
        "successes": len(succeeded),
        "over_limits": sum(attempt["excess"] > 1 for attempt in attempts),
        "largest_excess": max((attempt["excess"] for attempt in attempts), default=0.0),
        "longest": max((attempt["simulated"] for attempt in succeeded), default=0.0),
        "real_time_factor": sum(attempt["simulated"] for attempt in attempts) / max(processing, 1e-9),
        "guarded": len(results.get(_GUARDED, [])),
        "guarded_successes": sum(results.get(_GUARDED, [])),
        "idle": len(results.get(_IDLE, [])),
        "idle_successes": sum(results.get(_IDLE, [])),
        "near_misses_counted": list(results.get(_NEAR_MISSES, [])),
        "problems": sorted({attempt["problem"] for attempt in attempts if attempt["problem"]}),
    }


def _problems(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a task fails in."""
    for kind, done, total in (("expert", "successes", "episodes"), ("guarded", "guarded_successes", "guarded")):
        if row[done] < _MIN_SUCCESS * row[total]:
            yield f"{kind} {row[done]} of {row[total]}, at least {_MIN_SUCCESS:.0%} expected"
    if row["over_limits"]:
        yield f"{row['over_limits']} plans over the arm's limits"
    if row["near_misses_counted"]:
        yield f"near misses counted: {', '.join(row['near_misses_counted'])}"
    if row["idle_successes"]:
        yield f"{row['idle_successes']} successes without an expert"


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


def _run(task: str, kind: str, seeds: Sequence[int]) -> dict[str, Any]:
    from genima_sim import task_checks

    simulation = _environment.simulation
    if kind == _NEAR_MISSES:  # those of variation 0
        misses = {} if "@" in task else get_task(task).near_misses
        return {name: task_checks.near_miss_counts(simulation, task, changes) for name, changes in misses.items()}

    def check(seed: int) -> Any:
        if kind == _EXPERT:
            return asdict(task_checks.run_expert(simulation, _expert, task, seed))
        if kind == _GUARDED:
            return task_checks.run_guarded_expert(_environment, _policy, task, seed)
        return task_checks.resting_arm_succeeds(simulation, task, seed) or task_checks.random_motion_succeeds(
            simulation, task, seed
        )

    return {str(seed): check(seed) for seed in seeds}
