"""Run commands of ./genima that need each other's output, in parallel by Ray.

Each job has a log, and a record once it is done: jobs with a record are not run again. Interrupted commands resume by
themselves when their job is run again.

Where all have to end by some time, jobs that can be stopped get the share of the remaining time that the plan gives
them. Those that need their output wait until all of them have ended, and begin in the order of the plan: the last ones
may be left out.
"""

from __future__ import annotations

import contextlib
import heapq
import re
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from genima.errors import GenimaError
from genima.io.files import FileSchema, NonNegative, atomic_write, describe_error, load_json, shorten
from genima.system.ray_cluster import connect
from genima_cli.supervisor import end_with_parent

_POLL = 2.0  # s between updates of the progress bar
_CANCEL_CHECK = 0.2  # s
_SAVING = 180.0  # s that an interrupted command has to save what it has; a training ends its step first
_TAIL = 2000  # bytes of a log: the last state of its progress bar, and its last line
_PERCENT = re.compile(rb"(\d{1,3})%\|")  # of a progress bar
_STOPPED = re.compile(r"stopped at step \d+ of \d+")  # what an interrupted training prints
_INTERRUPTED = 130  # exit code


@dataclass(frozen=True)
class Job:
    """Commands that run one after the other."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    seconds: float  # expected, on one core or its GPUs
    after: tuple[str, ...] = ()  # names of the jobs whose output it needs
    gpus: float = 0
    links: tuple[tuple[Path, Path], ...] = ()  # made before, with what they point to
    can_stop: bool = False  # its commands are trainings, whose last checkpoints are of use
    behind: tuple[str, ...] = ()  # names of jobs that have ended before it begins; the same for all that have any


@dataclass(frozen=True)
class JobResult:
    """End of a job."""

    name: str
    problem: str = ""  # empty: it succeeded


class JobRecord(FileSchema):
    """Record of a job that is done."""

    commands: list[list[str]]
    seconds: NonNegative
    machine: str
    stopped: str = ""
    """Trainings that the time limit stopped, with their steps; empty: none."""


class JobFolder:
    """Logs and records of jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def log(self, name: str) -> Path:
        """Return the file with the output of a job's commands."""
        return self.folder / f"{name}.log"

    def record(self, name: str) -> JobRecord | None:
        """Return the record of a job; None: it is not done.

        Raises:
            GenimaError: for a damaged record.
        """
        file = self._record_file(name)
        return load_json(JobRecord, file, "record of a job") if file.exists() else None

    def is_done(self, job: Job) -> bool:
        """Return whether a job has been done, by the same commands."""
        record = self.record(job.name)
        return record is not None and record.commands == [list(command) for command in job.commands]

    def finish(self, job: Job, seconds: float, stopped: str = "") -> None:
        """Write the record of a job."""
        commands = [list(command) for command in job.commands]
        record = JobRecord(commands=commands, seconds=seconds, machine=socket.gethostname(), stopped=stopped)
        atomic_write(self._record_file(job.name), (record.model_dump_json(indent=2) + "\n").encode())

    def progress(self, name: str, since: float) -> float | None:
        """Return the fraction of a job that is done, by the progress bar in its log; None: not started ``since``."""
        try:
            log = self.log(name)
            if log.stat().st_mtime < since:
                return None
            percents = _PERCENT.findall(_tail(log))
            return min(1.0, int(percents[-1]) / 100) if percents else 0.0
        except OSError:
            return None

    def _record_file(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def schedule(jobs: Sequence[Job], workers: int, gpus: float = float("inf")) -> dict[str, tuple[float, float]]:
    """Return the expected begin and end of each job, in s from now, by its name.

    Ray starts jobs in the order in which they become ready, those with and those without GPUs by themselves.

    Args:
        jobs: each stands behind those that it needs; what is not among them is done.
        workers: jobs at a time.
        gpus: of all jobs at a time.
    """
    names = {job.name for job in jobs}
    needed = {job.name: len({*job.after, *job.behind} & names) for job in jobs}
    following: dict[str, list[Job]] = {name: [] for name in names}
    for job in jobs:
        for name in {*job.after, *job.behind} & names:
            following[name].append(job)
    with_gpus, without = deque[Job](), deque[Job]()
    now, times, running = 0.0, dict[str, tuple[float, float]](), list[tuple[float, int, Job]]()
    ready = [job for job in jobs if not needed[job.name]]
    while True:
        for job in ready:
            (with_gpus if job.gpus else without).append(job)
        for queue in (with_gpus, without):
            while queue and len(running) < workers and queue[0].gpus <= gpus + 1e-9:
                job = queue.popleft()
                gpus -= job.gpus
                times[job.name] = now, now + job.seconds
                heapq.heappush(running, (now + job.seconds, len(times), job))
        if not running:
            return times
        now, _, ended = heapq.heappop(running)
        gpus += ended.gpus
        ready = []
        for job in following[ended.name]:
            needed[job.name] -= 1
            ready += [job] if not needed[job.name] else []


def run_jobs(
    jobs: Sequence[Job],
    folder: JobFolder,
    workers: int,
    address: str | None,
    on_success: Callable[[Job], str],
    end: float | None = None,
) -> list[JobResult]:
    """Run the jobs that are not done; return those that failed, or need one that failed.

    Args:
        jobs: each stands behind those that it needs.
        folder: of logs and records; on a cluster, one that all machines share.
        workers: jobs at a time on this machine.
        address: of a Ray cluster; None: this machine.
        on_success: returns a text for the user about a job that is done.
        end: epoch s at which what runs is interrupted; what is not done is left for the next run. None: all is done.

    Raises:
        GenimaError: without a cluster at the address, or a machine with the GPUs that a job needs.
        KeyboardInterrupt: on Ctrl-C, after the running commands have saved what they have.
    """
    import ray

    todo = [job for job in jobs if not folder.is_done(job)]
    total = sum(job.seconds for job in jobs) / 3600
    bar = tqdm(
        total=total, initial=total - sum(job.seconds for job in todo) / 3600, dynamic_ncols=True,
        bar_format="{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} h of work [{elapsed}<{remaining}{postfix}]",
    )  # fmt: skip
    failed: list[JobResult] = []
    if not todo:
        bar.close()
        return failed
    with bar, connect(workers, address) as cpus:
        gpus = ray.cluster_resources().get("GPU", 0)
        _require_gpus(todo, gpus)
        started, references = time.time(), dict[str, Any]()
        todo = todo if end is None else _stop_before_the_rest(todo)
        shares = {} if end is None else _time_shares(todo, cpus, gpus)
        pending: dict[Any, Job] = {}

        def submit(job: Job) -> None:
            run = ray.remote(num_cpus=1, num_gpus=job.gpus)(_run)
            needed = [references[name] for name in job.after if name in references]
            share = (end, shares[job.name]) if end is not None and job.can_stop else None
            references[job.name] = run.remote(job, folder, Path.cwd(), share, *needed)
            pending[references[job.name]] = job

        later = [job for job in todo if job.behind]
        for job in todo:
            if not job.behind:
                submit(job)
        try:
            while (pending or later) and (end is None or time.time() < end):
                if later and pending.keys().isdisjoint(references[name] for name in later[0].behind):
                    for job in later:  # all at once: Ray starts jobs that are ready in the order of their submission
                        submit(job)
                    later = []
                done, _ = ray.wait(list(pending), num_returns=1, timeout=_POLL)
                for reference in done:
                    job = pending.pop(reference)
                    result = _get(reference, job)
                    failed += [result] if result.problem else []
                    tqdm.write(f"{job.name}: {result.problem or on_success(job)}")
                _show(bar, jobs, [*pending.values(), *later], folder, started)
        finally:
            if pending:  # interrupted, or at the end of the time
                bar.set_postfix_str("saving")
                for reference in pending:
                    ray.cancel(reference)
                ray.wait(list(pending), num_returns=len(pending), timeout=_SAVING)
    return failed


def _stop_before_the_rest(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs; those that need the output of one that can be stopped wait for all of these."""
    names = {job.name for job in jobs if job.can_stop}
    return [
        job if job.can_stop or names.isdisjoint(job.after) else replace(job, behind=tuple(sorted(names)))
        for job in jobs
    ]


def _time_shares(jobs: Sequence[Job], workers: int, gpus: float) -> Mapping[str, float]:
    """Return the share of the time from its beginning on that each job is expected to take, 0..1."""
    times = schedule(jobs, workers, gpus)
    last = max(end for _, end in times.values())
    return {name: (end - begin) / (last - begin) if last > begin else 1.0 for name, (begin, end) in times.items()}


def _require_gpus(jobs: Sequence[Job], gpus: float) -> None:
    """Raise a GenimaError for a job with more GPUs than there are: Ray would wait for a machine that joins."""
    if demanding := [job for job in jobs if job.gpus > gpus]:
        job = demanding[0]
        raise GenimaError(f"{job.name}: needs {job.gpus:g} GPUs (found: {gpus:g}); name a cluster that has them")


def _show(bar: tqdm, jobs: Sequence[Job], pending: Sequence[Job], folder: JobFolder, started: float) -> None:
    fractions = {job.name: folder.progress(job.name, started) for job in pending}
    left = sum(job.seconds * (1 - (fractions[job.name] or 0)) for job in pending)
    running = [name for name, fraction in fractions.items() if fraction is not None]
    bar.set_postfix_str(f"{len(jobs) - len(pending)} of {len(jobs)} jobs; {', '.join(running[:2])}", refresh=False)
    bar.update(sum(job.seconds for job in jobs) / 3600 - left / 3600 - bar.n)


def _get(reference: Any, job: Job) -> JobResult:
    """Return a job's result; where its process ended, as a failure."""
    import ray

    try:
        result: JobResult = ray.get(reference)
        return result
    except ray.exceptions.RayError as error:
        return JobResult(job.name, f"failed: its process ended ({describe_error(error)}); start the command again")


def _run(
    job: Job, folder: JobFolder, working_folder: Path, share: tuple[float, float] | None, *needed: JobResult
) -> JobResult:
    """Run a job in a process of Ray.

    Args:
        job: what to run.
        folder: of its log and record.
        working_folder: of its commands.
        share: epoch s at which all jobs end, and the share of the time until then that is the job's; its commands get
            equal parts of that. None: as long as it takes.
        needed: results of the jobs that it needs.
    """
    if failed := [result.name for result in needed if result.problem]:
        return JobResult(job.name, f"left out: needs {failed[0]}")
    log, begin = folder.log(job.name), time.monotonic()
    until = None if share is None else time.time() + max(0.0, share[0] - time.time()) * share[1]
    stopped: list[str] = []
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        for link, target in job.links:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        with log.open("ab") as output:
            for i, command in enumerate(job.commands):
                seconds = None if until is None else (until - time.time()) / (len(job.commands) - i)
                written = log.stat().st_size
                code = _run_command(command, output, working_folder, seconds)
                if code == _INTERRUPTED and seconds is not None:
                    steps = _STOPPED.findall(log.read_bytes()[written:].decode(errors="replace"))
                    if not steps:
                        return JobResult(job.name, "failed: no time for its first step; raise --time-limit")
                    stopped += [f"{' '.join(command[:2])} {each}" for each in steps]
                elif code:
                    return JobResult(job.name, f"failed: {_last_line(log) or f'exit code {code}'} (log: {log})")
        folder.finish(job, time.monotonic() - begin, ", ".join(stopped))
    except (OSError, GenimaError) as error:
        return JobResult(job.name, f"failed: {shorten(str(error), 200)}")
    return JobResult(job.name)


def _run_command(command: Sequence[str], output: Any, working_folder: Path, seconds: float | None = None) -> int:
    """Run a command, for ``seconds`` at most, and return its exit code; Ctrl-C and the end let it save what it has."""
    end = float("inf") if seconds is None else time.monotonic() + seconds
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "genima_cli", *command], stdin=subprocess.DEVNULL, stdout=output,
        stderr=subprocess.STDOUT, cwd=working_folder, process_group=0, preexec_fn=_prepare_command,
    )  # fmt: skip
    try:
        while time.monotonic() < end:  # Ray's cancellation is seen between system calls
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_CANCEL_CHECK)
        process.send_signal(signal.SIGINT)
        return process.wait(_SAVING)
    except BaseException:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SAVING)
        process.kill()
        raise


def _prepare_command() -> None:
    end_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # processes of Ray block it


def _tail(file: Path) -> bytes:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _TAIL))
        return stream.read()


def _last_line(log: Path) -> str:
    """Return the last line of a log, without the name of the program."""
    lines = [line for line in _tail(log).decode(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
    return shorten(lines[-1].removeprefix("genima: error: "), 200) if lines else ""
