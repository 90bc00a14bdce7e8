"""``./genima study``: plan, jobs and report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import yaml

from genima.errors import GenimaError
from genima.evaluation.study import NONE, Study
from genima.io import paths
from genima_cli import job_runner, run_study
from genima_cli import study as command
from genima_cli.job_runner import (
    Job,
    JobFolder,
    JobResult,
    _run,
    _stop_before_the_rest,
    _time_shares,
    run_jobs,
    schedule,
)
from genima_cli.study_jobs import plan_jobs

ROOT = Path(__file__).parents[3]
PLAIN: dict[str, Any] = {
    "title": "A study",
    "tasks": ["push_button"],
    "datasets": {
        "demos": {"command": "record --lockstep --task {tasks} --episodes 1 --out {out}", "hours": 1},
        "targets": {"command": "render --demos {demos} --out {out}", "hours": 2},
    },
    "policies": {
        "act": {"train": ["train act --data {targets} --out {out}"], "hours": 3},
        "expert": {"policy": "expert"},
    },
    "episodes": 2,
}


def write(folder: Path, **changes: Any) -> Path:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**PLAIN, **changes}, sort_keys=False))
    return file


def plan(file: Path, root: Path) -> dict[str, Job]:
    study = Study.load(file)
    return {job.name: job for job in plan_jobs(study, file, root, run_study.find_exclusions(study, file))}


def test_jobs_stand_behind_those_that_they_need(tmp_path: Path) -> None:
    jobs = plan(write(tmp_path, perturbations={"episodes": 1, "conditions": {"light": ["light_color"]}}), tmp_path)
    assert list(jobs) == [
        "data/demos", "data/targets", "train/act", "eval/act/push_button/none", "eval/expert/push_button/none",
        "eval/act/push_button/light", "eval/expert/push_button/light",
    ]  # fmt: skip
    assert jobs["train/act"].after == ("data/targets",) and jobs["data/targets"].after == ("data/demos",)
    assert jobs["eval/act/push_button/light"].after == ("train/act",)
    words = jobs["eval/act/push_button/light"].commands[0]
    assert "--perturb" in words and words[-1] == str(tmp_path / "results/act/push_button/light.json")
    assert not jobs["eval/expert/push_button/none"].after


def test_half_of_another_policy_is_linked_before_the_training(tmp_path: Path) -> None:
    policies = {
        "genima": {"train": ["train tiny --out {out}"]},
        "other": {"train": ["train controller --out {out}"], "agent_of": "genima"},
    }
    job = plan(write(tmp_path, policies=policies), tmp_path)["train/other"]
    assert job.after == ("train/genima",)
    (tmp_path / "runs/genima/diffusion_agent").mkdir(parents=True)
    folder = JobFolder(tmp_path / "jobs")
    for _ in range(2):  # again, after an interruption
        assert not _run(replace(job, commands=(("--version",),)), folder, tmp_path, None).problem
        link = tmp_path / "runs/other/diffusion_agent"
        assert link.is_symlink() and link.resolve() == tmp_path / "runs/genima/diffusion_agent"


@pytest.mark.parametrize(
    ("gpus", "evaluate", "share"), [(1, "", 0.25), (0.1, "", 0.1), (1, "--device cpu", 0), (0, "", 0)]
)
def test_evaluations_share_a_gpu_unless_they_name_a_device(
    tmp_path: Path, gpus: float, evaluate: str, share: float
) -> None:
    policies = {"act": {**PLAIN["policies"]["act"], "gpus": gpus, "evaluate": evaluate}}
    jobs = plan(write(tmp_path, policies=policies), tmp_path)
    words = jobs["eval/act/push_button/none"].commands[0]
    assert jobs["train/act"].gpus == gpus and jobs["eval/act/push_button/none"].gpus == share
    assert ("cuda" in words) == bool(share) and words.count("--device") == bool(share or evaluate)


def test_last_checkpoints_are_evaluated_each(tmp_path: Path) -> None:
    jobs = plan(write(tmp_path, checkpoints=2), tmp_path)
    names = [name for name in jobs if name.startswith("eval/")]
    assert names == [
        "eval/act/push_button/none.last", "eval/act/push_button/none.last-1", "eval/expert/push_button/none",
    ]  # fmt: skip
    assert str(tmp_path / "runs/act/last-1") in jobs[names[1]].commands[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tasks": ["push_buton"]}, "push_buton"),
        ({"cell": "fr3_crisp"}, "a real robot"),
        ({"policies": {"x": {"policy": "nothing"}}}, "nothing"),
        ({"perturbations": {"episodes": 1, "conditions": {"a": ["lightning"]}}}, "lightning"),
        ({"policies": {"act": {"train": ["train act --no-such-option"]}}}, r"policies.act.train: ./genima train act"),
        ({"policies": {"act": {"train": ["train act --out {out} --batch-size 0"]}}}, "batch-size 0"),
        ({"policies": {"act": {"train": ["tran act"]}}}, "tran: unknown command"),
        ({"policies": {"x": {"policy": "expert", "evaluate": "--horizon 0"}}}, "x.evaluate, none: --horizon 0"),
        ({"datasets": {"a": {"command": "render --demos {b} --out {out}"},
                       "b": {"command": "render --demos x --out {out}"}}}, "datasets.a: needs b"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_before_anything_starts(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(GenimaError, match=reason) as error:
        plan(write(tmp_path, **changes), tmp_path)
    assert "study.yaml" in str(error.value) and "\n" not in str(error.value)


def test_perturbation_that_does_not_go_with_a_task_is_left_out(tmp_path: Path) -> None:
    conditions = {"receiver": ["receiver_color"], "light": ["light_color"]}
    file = write(tmp_path, perturbations={"episodes": 1, "conditions": conditions})
    jobs = plan(file, tmp_path)
    assert "eval/expert/push_button/light" in jobs and "eval/expert/push_button/receiver" not in jobs


def test_studies_of_the_project_can_be_planned(tmp_path: Path) -> None:
    for file in sorted(paths.shared("config", "studies").glob("*.yaml")):
        assert plan(file, tmp_path)


def test_plan_and_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = write(tmp_path), ["--out", str(tmp_path / "out"), "--workers", "2"]
    assert command.main([str(file), *out, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "./genima train act --data" in text and "5 of 5 jobs to do: 6.0 core hours" in text
    assert "expected with 2 workers: 6.0 h" in text  # the longest chain: 1 + 2 + 3 h
    with pytest.raises(GenimaError, match="takes about 6.0 h with 2 workers .budget: 5 h."):
        command.main([str(file), *out, "--budget", "5"])
    without = write(tmp_path, policies={"act": {"train": PLAIN["policies"]["act"]["train"]}})
    with pytest.raises(GenimaError, match="train/act: no hours, of which --time-limit takes shares"):
        command.main([str(without), *out, "--time-limit", "5"])
    assert not (tmp_path / "out").exists()


def job(name: str, *words: str, after: tuple[str, ...] = ()) -> Job:
    return Job(name, (words,), 1.0, after)


def test_data_of_another_command_is_not_taken(tmp_path: Path) -> None:
    file, root = write(tmp_path), tmp_path / "out"
    jobs = plan(file, root)
    JobFolder(root / "jobs").finish(job("data/demos", "record", "other"), 1.0)
    with pytest.raises(GenimaError, match="data/demos: made in .* by another command ../genima record other."):
        command.main([str(file), "--out", str(root)])
    JobFolder(root / "jobs").finish(jobs["data/demos"], 1.0)
    assert JobFolder(root / "jobs").is_done(jobs["data/demos"])


def test_job_is_recorded_only_when_it_succeeded(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    good, bad = job("eval/good", "--version"), job("eval/bad", "completion", "fish")
    assert _run(good, folder, tmp_path, None) == JobResult("eval/good")
    assert folder.is_done(good) and "genima" in folder.log(good.name).read_text()
    failed = _run(bad, folder, tmp_path, None)
    assert failed.problem.startswith("failed: completion: unknown shell (fish)") and not folder.is_done(bad)
    assert "left out: needs eval/bad" in _run(job("eval/next", "--version"), folder, tmp_path, None, failed).problem
    assert not folder.log("eval/next").exists()


@pytest.mark.parametrize("seed", range(8))
def test_schedule_keeps_order_and_machines(seed: int) -> None:
    rng = np.random.default_rng(seed)
    workers, gpus, jobs = int(rng.integers(1, 5)), 1.0, list[Job]()
    for i in range(40):
        after, behind = (tuple(str(k) for k in rng.choice(i, min(i, int(rng.integers(3))), False)) for _ in range(2))
        seconds, part = float(rng.integers(0, 9)), float(rng.choice([0, 0, 0.25, 0.5, 1]))
        jobs.append(Job(str(i), (("--version",),), seconds, after, part, behind=behind))
    times = schedule(jobs, workers, gpus)
    assert times.keys() == {job.name for job in jobs}
    for job in jobs:
        begin, end = times[job.name]
        assert end - begin == job.seconds
        assert begin >= max((times[name][1] for name in (*job.after, *job.behind)), default=0)
        others = [each for each in jobs if times[each.name][0] <= begin < times[each.name][1]]
        assert len(others) <= workers and sum(each.gpus for each in others) <= gpus
    no_gpus = schedule([replace(job, gpus=0) for job in jobs], workers)
    chain = max(end for _, end in schedule(jobs, len(jobs)).values())
    work, last = sum(job.seconds for job in jobs) / workers, max(end for _, end in no_gpus.values())
    assert max(work, chain) <= last <= work + chain  # Graham, Bounds on Multiprocessing Timing Anomalies, 1969
    assert list(schedule(jobs[:1], workers)) == ["0"]  # what is not among the jobs is done


PROGRAM = """#!{python}
import signal, sys
words = sys.argv[4:]
if "quick" in words:
    sys.exit()
signal.sigwait([signal.SIGINT])
print("" if "early" in words else "  3%| | 3/10 stopped at step 3 of 10; the same command resumes it")
sys.exit(1 if "damaged" in words else 130)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Program in place of ./genima that runs until it is interrupted."""
    file = tmp_path / "program"
    file.write_text(PROGRAM.format(python=sys.executable))
    file.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(file))
    # An interrupt that comes before the program waits for it must not be lost.
    monkeypatch.setattr(job_runner, "_prepare_command", lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [2]))


@pytest.mark.parametrize(
    ("commands", "stopped", "problem"),
    [
        (["train a", "train b"], "train a stopped at step 3 of 10, train b stopped at step 3 of 10", ""),
        (["train quick", "train b"], "train b stopped at step 3 of 10", ""),
        (["train early"], None, "failed: no time for its first step; raise --time-limit"),
        (["train damaged"], None, "failed: 3%| | 3/10 stopped"),
    ],
)
def test_training_is_stopped_when_its_time_is_over(
    tmp_path: Path, program: None, commands: list[str], stopped: str | None, problem: str
) -> None:
    training = Job("train/a", tuple(tuple(words.split()) for words in commands), 1.0, can_stop=True)
    folder = JobFolder(tmp_path / "jobs")
    result = _run(training, folder, tmp_path, (time.time() + 1, 0.5))
    assert result.problem.strip().startswith(problem) and bool(result.problem) == bool(problem)
    record = folder.record("train/a")
    assert (record.stopped if record else None) == stopped
    assert folder.is_done(training) == (stopped is not None)  # its evaluations belong to this checkpoint


def test_trainings_get_their_share_of_the_time_and_evaluations_wait_for_all() -> None:
    trainings = [replace(job(f"train/{name}"), seconds=30.0, can_stop=True) for name in "ab"]
    evaluations = [replace(job(f"eval/{name}", after=(f"train/{name}",)), seconds=10.0) for name in "ab"]
    expert, data = job("eval/expert"), replace(job("data/a"), seconds=5.0)
    trainings[0] = replace(trainings[0], after=("data/a",))
    jobs = _stop_before_the_rest([data, *trainings, *evaluations, expert])
    assert [each.behind for each in jobs] == [(), (), (), ("train/a", "train/b"), ("train/a", "train/b"), ()]
    shares = _time_shares(jobs, 2, 0.0)
    # One worker: data, the expert, then a from 6 s to 36 s; the other: b until 30 s. Both evaluations end at 46 s.
    assert shares["train/a"] == pytest.approx(30 / 40) and shares["train/b"] == pytest.approx(30 / 46)


def test_progress_is_that_of_the_commands_bar(tmp_path: Path) -> None:
    folder, begin = JobFolder(tmp_path), time.time() - 1
    assert folder.progress("a", begin) is None
    folder.log("a").write_text("\r  3%|   | 3/100\r 42%|████ | 42/100 [00:10")
    assert folder.progress("a", begin) == 0.42
    assert folder.progress("a", time.time() + 10) is None  # the log of an earlier run


def test_jobs_run_by_ray_and_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, seen = JobFolder(tmp_path), []
    jobs = [
        job("data/a", "--version"), job("train/b", "completion", "fish"), job("eval/c", "--version", after=("data/a",)),
        job("eval/d", "--version", after=("train/b",)),
    ]  # fmt: skip

    def on_success(done: Job) -> str:
        seen.append(done.name)
        return "done"

    failed = run_jobs(jobs, folder, 2, None, on_success)
    assert {result.name for result in failed} == {"train/b", "eval/d"}
    assert sorted(seen) == ["data/a", "eval/c"]
    assert "train/b: failed: completion: unknown shell" in capsys.readouterr().out
    assert run_jobs([jobs[0], jobs[2]], folder, 2, None, on_success) == []
    late = job("eval/late", "--version")
    assert run_jobs([late], folder, 2, None, on_success, end=time.time()) == [] and not folder.is_done(late)
    with pytest.raises(GenimaError, match="train/e: needs 1 GPUs"):
        run_jobs([Job("train/e", (("--version",),), 1.0, gpus=1)], folder, 1, None, on_success)


def test_ray_that_does_not_start_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(**_: Any) -> None:
        raise Exception("The current node timed out\nduring startup")  # as Ray does on a busy machine

    monkeypatch.setattr(ray, "init", start)
    with pytest.raises(GenimaError, match="Ray on this machine: not started .*timed out.*; start the") as error:
        run_jobs([job("data/a", "--version")], JobFolder(tmp_path), 1, None, lambda done: "done")
    assert "\n" not in str(error.value)


@pytest.mark.nightly
def test_interrupted_study_resumes(tmp_path: Path) -> None:
    file = write(
        tmp_path, datasets={}, policies={"expert": {"policy": "expert"}}, episodes=40, tasks=["push_button"]
    )  # fmt: skip
    words = [sys.executable, "-P", "-m", "genima_cli", "study", str(file), "--out", str(tmp_path / "out")]
    result = tmp_path / "out/results/expert/push_button/none.json"
    process = subprocess.Popen(words, cwd=ROOT, process_group=0)
    while not result.exists():
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait() == 130
    before = result.stat().st_mtime
    time.sleep(2)
    assert result.stat().st_mtime == before  # nothing was left running
    assert "Not complete" in (tmp_path / "out/report.md").read_text()
    assert subprocess.run(words, cwd=ROOT, check=False).returncode == 0
    assert "Not complete" not in (tmp_path / "out/report.md").read_text()
    assert Study.load(file).seeds(NONE) == range(40)
