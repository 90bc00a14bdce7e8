"""Jobs of a study: the commands that make its datasets, checkpoints and results."""

from __future__ import annotations

import contextlib
import io
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from genima.errors import GenimaError
from genima.evaluation.study import EVALUATE, Exclusions, Study, fill_command
from genima.policy.spec import FOLDERS, last_checkpoints
from genima.system.command_line import ParsedOptions, only_parse
from genima_cli import GROUP
from genima_cli.job_runner import Job

_EVALUATION_GPUS = 0.25  # of an evaluation at most, which mostly simulates on its core
_DEVICE = "--device"
DATA, TRAIN = "data", "train"  # first parts of the names of jobs, with EVALUATE


@dataclass(frozen=True)
class StudyFolders:
    """Layout of a study's folder."""

    root: Path

    def dataset(self, name: str) -> Path:
        """Return the folder of a dataset."""
        return self.root / "data" / name

    def training(self, policy: str) -> Path:
        """Return the folder of a training."""
        return self.root / "runs" / policy

    def result(self, policy: str, checkpoint: str, task: str, condition: str) -> Path:
        """Return the result file of the episodes of a policy."""
        name = f"{condition}.{checkpoint}.json" if checkpoint else f"{condition}.json"
        return self.root / "results" / policy / task / name


def plan_jobs(study: Study, file: Path, root: Path, exclusions: Exclusions) -> list[Job]:
    """Return all jobs of a study but ``exclusions``; each stands behind those that it needs.

    Raises:
        GenimaError: for a command that cannot be parsed, or datasets that need each other.
    """
    folders = StudyFolders(root)
    return [
        *_data_jobs(study, file, folders),
        *_train_jobs(study, file, folders),
        *_eval_jobs(study, file, folders, exclusions),
    ]


def checkpoint_names(study: Study, policy: str) -> list[str]:
    """Return the names of the checkpoints of a policy that are evaluated; empty: the only or the best one."""
    is_trained = study.policies[policy].policy is None
    return last_checkpoints(study.checkpoints) if study.checkpoints and is_trained else [""]


def _data_jobs(study: Study, file: Path, folders: StudyFolders) -> list[Job]:
    jobs: dict[str, Job] = {}
    paths = {name: str(folders.dataset(name)) for name in study.datasets}
    for name, dataset in study.datasets.items():
        where = f"study {file}: datasets.{name}"
        words, used = fill_command(dataset.command, {**paths, "out": paths[name]}, study.lists, where)
        require_parsable(words, where)
        needed = sorted(used - {"out", name})
        if missing := [each for each in needed if each not in jobs]:
            raise GenimaError(f"{where}: needs {missing[0]}, which stands below it; write it above")
        after = tuple(jobs[each].name for each in needed)
        jobs[name] = Job(f"{DATA}/{name}", (tuple(words),), dataset.hours * 3600, after)
    return list(jobs.values())


def _train_jobs(study: Study, file: Path, folders: StudyFolders) -> Iterator[Job]:
    paths = {name: str(folders.dataset(name)) for name in study.datasets}
    for name, policy in study.policies.items():
        if not policy.train:
            continue
        commands, needed = [], set[str]()
        for text in policy.train:
            where = f"study {file}: policies.{name}.train"
            words, used = fill_command(text, {**paths, "out": str(folders.training(name))}, study.lists, where)
            require_parsable(words, where)
            commands.append(tuple(words))
            needed |= used - {"out"}
        after = [f"{DATA}/{each}" for each in sorted(needed)]
        links = []
        for kind, lender in policy.halves.items():
            after.append(f"{TRAIN}/{lender}")
            links.append((folders.training(name) / FOLDERS[kind], Path("..") / lender / FOLDERS[kind]))
        yield Job(
            f"{TRAIN}/{name}", tuple(commands), policy.hours * 3600, tuple(after), policy.gpus, tuple(links),
            can_stop=True,
        )  # fmt: skip


def _eval_jobs(study: Study, file: Path, folders: StudyFolders, exclusions: Exclusions) -> Iterator[Job]:
    for condition, perturbations in study.conditions.items():
        for task in study.tasks:
            if (task, condition) in exclusions:
                continue
            for name, policy in study.policies.items():
                trained, seeds = policy.checkpoint_of or name, study.seeds(condition)
                further = shlex.split(policy.evaluate)
                gpus = 0.0 if _DEVICE in further else min(_EVALUATION_GPUS, study.policies[trained].gpus)
                for checkpoint in checkpoint_names(study, name):
                    words = [
                        "eval", "--task", task, "--cell", study.cell,
                        "--policy", policy.policy or str(folders.training(trained) / checkpoint),
                        "--episodes", str(len(seeds)), "--seed", str(seeds.start),
                        *(["--perturb", *perturbations] if perturbations else []),
                        *([_DEVICE, "cuda"] if gpus else []),
                        *further,
                        "--out", str(folders.result(name, checkpoint, task, condition)),
                    ]  # fmt: skip
                    if task == study.tasks[0]:
                        require_parsable(words, f"study {file}: policies.{name}.evaluate, {condition}")
                    job = f"{EVALUATE}/{name}/{task}/{condition}" + (f".{checkpoint}" if checkpoint else "")
                    after = () if policy.policy else (f"{TRAIN}/{trained}",)
                    yield Job(job, (tuple(words),), len(seeds) * policy.episode_seconds, after, gpus)


def require_parsable(words: Sequence[str], where: str) -> None:
    """Check a command of ./genima and its options, without running it.

    Raises:
        GenimaError: for an unknown command or option, and a value out of range.
    """
    command = shlex.join(words)
    with only_parse(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            GROUP.run(words)
        except ParsedOptions:
            return
        except GenimaError as error:
            raise GenimaError(f"{where}: {error} (./genima {command})") from None
        except SystemExit:
            raise GenimaError(f"{where}: ./genima {command} cannot be parsed; run it by hand for the reason") from None
    raise GenimaError(f"{where}: ./genima {command} is no command of a study")
