"""Plan and run a study, and report on it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genima.cell import load_cell
from genima.errors import GenimaError
from genima.evaluation.results import load_outcomes
from genima.evaluation.study import NONE, Exclusions, Study, is_evaluation
from genima.evaluation.study_report import JobSummary, write_report
from genima.evaluation.study_results import StudyResults
from genima.evaluation.success import Success
from genima.policy.registry import require_policy
from genima.system.signals import interrupt_on_signals
from genima.system.terminal import printable
from genima_cli.job_runner import Job, JobFolder, run_jobs, schedule
from genima_cli.study_jobs import StudyFolders, checkpoint_names, plan_jobs
from genima_sim.environment import StateEnvironment
from genima_sim.simulators import get_simulator, require_perturbations
from genima_sim.tasks import get_task

if TYPE_CHECKING:
    from genima_cli.study import RunStudy


_PLANNED = 0.9  # of a time limit; the rest is for checkpoints and the report


def run(options: RunStudy) -> int:
    """Plan and run a study; return the exit code.

    Raises:
        GenimaError: for a faulty study, one that exceeds the budget, and when jobs have failed.
    """
    started = time.time()
    study = Study.load(options.file)
    exclusions = find_exclusions(study, options.file)
    folders = StudyFolders((options.out or Path("runs") / options.file.stem).absolute())
    jobs = plan_jobs(study, options.file, folders.root, exclusions)
    job_folder = JobFolder(folders.root / "jobs")

    def report() -> None:
        print(f"report: {printable(_report(study, exclusions, jobs, job_folder, folders))}")

    if options.report:
        report()
        return 0
    todo = _require_same_commands(jobs, job_folder, folders.root)
    hours = max((end for _, end in schedule(todo, options.workers).values()), default=0.0) / 3600
    if options.dry_run:
        _print_plan(jobs, todo, options.workers, hours)
        return 0
    if options.budget is not None and hours > options.budget:
        raise GenimaError(
            f"study {options.file}: takes about {hours:.1f} h with {options.workers} workers (budget: "
            f"{options.budget:g} h); raise --budget or --workers, or shorten the study"
        )
    end = None if options.time_limit is None else started + _PLANNED * options.time_limit * 60
    if end is not None and (unknown := [job.name for job in todo if job.can_stop and not job.seconds]):
        raise GenimaError(f"study {options.file}: {unknown[0]}: no hours, of which --time-limit takes shares; add them")
    _make_root(folders.root)
    interrupted = False
    with interrupt_on_signals():
        try:
            failed = run_jobs(
                jobs, job_folder, options.workers, options.address, lambda job: _describe(job, job_folder), end
            )
        except KeyboardInterrupt:
            failed, interrupted = [], True
    report()
    if interrupted:
        print("interrupted; the same command resumes")
        return 130
    if failed:
        raise GenimaError(f"study {options.file}: {len(failed)} of {len(jobs)} jobs failed; the same command retries")
    if left := sum(not job_folder.is_done(job) for job in jobs):
        print(f"time limit: {left} of {len(jobs)} jobs are left; the same command does them")
    return 0


def find_exclusions(study: Study, file: Path) -> Exclusions:
    """Return why a perturbation does not go with a task, by task and condition, such as a colour that matters.

    Raises:
        GenimaError: for an unknown cell, task, perturbation or policy.
    """
    exclusions: Exclusions = {}
    try:
        cell = load_cell(study.cell)
        simulator = get_simulator(cell)
        for task in study.tasks:
            simulator.require_task(task, cell)
        for policy in study.policies.values():
            if policy.policy:
                require_policy(policy.policy)
        for condition, names in study.conditions.items():
            require_perturbations(cell, names)
            for task in study.tasks:
                try:
                    require_perturbations(cell, names, [task])
                except GenimaError as error:
                    exclusions[task, condition] = str(error)
    except GenimaError as error:
        raise GenimaError(f"study {file}: {error}") from None
    return exclusions


def _require_same_commands(jobs: Sequence[Job], folder: JobFolder, root: Path) -> list[Job]:
    """Return the jobs that are to be done; data and checkpoints of other commands are an error."""
    todo = [job for job in jobs if not folder.is_done(job)]
    for job in todo:
        record = folder.record(job.name)
        if record is not None and not is_evaluation(job.name):
            before = "; ".join(shlex.join(command) for command in record.commands)
            raise GenimaError(
                f"{job.name}: made in {root} by another command (./genima {before}); use another --out for this study"
            )
    return todo


def _print_plan(jobs: Sequence[Job], todo: Sequence[Job], workers: int, hours: float) -> None:
    names = {job.name for job in todo}
    for job in jobs:
        state = f"{job.seconds / 3600:8.2f} h" if job.name in names else "      done"
        print(f"{state}  {job.name}{f'  ({job.gpus:g} GPUs)' if job.gpus else ''}")
        if not is_evaluation(job.name):
            print("\n".join(f"              ./genima {shlex.join(command)}" for command in job.commands))
    cores = sum(job.seconds for job in todo if job.gpus < 1) / 3600
    gpus = sum(job.seconds * job.gpus for job in todo) / 3600
    print(f"{len(todo)} of {len(jobs)} jobs to do: {cores:.1f} core hours, {gpus:.1f} GPU hours")
    print(f"expected with {workers} workers: {hours:.1f} h")


def _make_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GenimaError(f"cannot write study {root}: {error.strerror}") from None


def _describe(job: Job, folder: JobFolder) -> str:
    """Return a line about a job that is done."""
    record = folder.record(job.name)
    minutes = f"{record.seconds / 60:.1f} min" if record else ""
    if not is_evaluation(job.name):
        return f"{record.stopped if record and record.stopped else 'done'} in {minutes}"
    outcomes = load_outcomes(Path(job.commands[0][-1]))
    return f"{Success(sum(outcomes.values()), len(outcomes))}, {minutes}"


def _load_results(study: Study, folders: StudyFolders, exclusions: Exclusions) -> StudyResults:
    """Read the results that are there."""
    results = StudyResults(study, exclusions)
    for condition in study.conditions:
        for task in study.tasks:
            for policy in study.policies:
                for checkpoint in checkpoint_names(study, policy):
                    file, seeds = folders.result(policy, checkpoint, task, condition), study.seeds(condition)
                    if file.exists():
                        cell = results.cells.setdefault((policy, task, condition), {})
                        outcomes = load_outcomes(file)
                        cell |= {(checkpoint, seed): outcomes[seed] for seed in seeds if seed in outcomes}
    return results


def _report(
    study: Study, exclusions: Exclusions, jobs: Sequence[Job], folder: JobFolder, folders: StudyFolders
) -> Path:
    records = {job.name: folder.record(job.name) if folder.is_done(job) else None for job in jobs}
    summaries = [
        JobSummary(
            job.name,
            [shlex.join(command) for command in job.commands],
            record.seconds / 3600 if (record := records[job.name]) else None,
            record.machine if record else "",
            record.stopped if record else "",
        )
        for job in jobs
    ]
    return write_report(_load_results(study, folders, exclusions), summaries, folders.root, _places(study))


def _places(study: Study) -> dict[int, tuple[float, float]]:
    """Return where the first object of the spatial map's task is, m, by seed."""
    if not study.spatial_map:
        return {}
    environment, places = StateEnvironment(load_cell(study.cell)), {}
    name = get_task(study.spatial_map).objects[0].name
    for seed in study.seeds(NONE):
        environment.reset(study.spatial_map, seed)
        x, y = environment.bodies()[name][:2, 3]
        places[seed] = float(x), float(y)
    return places
