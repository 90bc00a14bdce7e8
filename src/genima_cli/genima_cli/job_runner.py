"""Run commands of ./genima that need each other's output, in parallel by Ray.

Each job has a log, and a record once it is done: jobs with a record are not run again. Interrupted commands resume by
themselves when their job is run again.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Job:
    """Commands that run one after the other."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    seconds: float  # expected, on one core or its GPUs
    after: tuple[str, ...] = ()  # names of the jobs whose output it needs
    gpus: float = 0
    links: tuple[tuple[Path, Path], ...] = ()  # made before, with what they point to


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

    def finish(self, job: Job, seconds: float) -> None:
        """Write the record of a job."""
        commands = [list(command) for command in job.commands]
        record = JobRecord(commands=commands, seconds=seconds, machine=socket.gethostname())
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


def run_jobs(
    jobs: Sequence[Job], folder: JobFolder, workers: int, address: str | None, on_success: Callable[[Job], str]
) -> list[JobResult]:
    """Run the jobs that are not done; return those that failed, or need one that failed.

    Args:
        jobs: each stands behind those that it needs.
        folder: of logs and records; on a cluster, one that all machines share.
        workers: jobs at a time on this machine.
        address: of a Ray cluster; None: this machine.
        on_success: returns a text for the user about a job that is done.

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
    with bar, connect(workers, address):
        _require_gpus(todo, ray.cluster_resources().get("GPU", 0))
        started, references = time.time(), dict[str, Any]()
        for job in todo:
            run = ray.remote(num_cpus=1, num_gpus=job.gpus)(_run)
            needed = [references[name] for name in job.after if name in references]
            references[job.name] = run.remote(job, folder, Path.cwd(), *needed)
        pending = {references[job.name]: job for job in todo}
        try:
            while pending:
                done, _ = ray.wait(list(pending), num_returns=1, timeout=_POLL)
                for reference in done:
                    job = pending.pop(reference)
                    result = _get(reference, job)
                    failed += [result] if result.problem else []
                    tqdm.write(f"{job.name}: {result.problem or on_success(job)}")
                _show(bar, jobs, list(pending.values()), folder, started)
        except KeyboardInterrupt:
            bar.set_postfix_str("saving")
            for reference in pending:
                ray.cancel(reference)
            ray.wait(list(pending), num_returns=len(pending), timeout=_SAVING)
            raise
    return failed


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


def _run(job: Job, folder: JobFolder, working_folder: Path, *needed: JobResult) -> JobResult:
    """Run a job in a process of Ray."""
    if failed := [result.name for result in needed if result.problem]:
        return JobResult(job.name, f"left out: needs {failed[0]}")
    log, begin = folder.log(job.name), time.monotonic()
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        for link, target in job.links:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        with log.open("ab") as output:
            for command in job.commands:
                if code := _run_command(command, output, working_folder):
                    return JobResult(job.name, f"failed: {_last_line(log) or f'exit code {code}'} (log: {log})")
        folder.finish(job, time.monotonic() - begin)
    except (OSError, GenimaError) as error:
        return JobResult(job.name, f"failed: {shorten(str(error), 200)}")
    return JobResult(job.name)


def _run_command(command: Sequence[str], output: Any, working_folder: Path) -> int:
    """Run a command; Ctrl-C lets it save what it has."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "genima_cli", *command], stdin=subprocess.DEVNULL, stdout=output,
        stderr=subprocess.STDOUT, cwd=working_folder, process_group=0, preexec_fn=_prepare_command,
    )  # fmt: skip
    try:
        while True:  # Ray's cancellation is seen between system calls
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_CANCEL_CHECK)
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
