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

import pytest
import yaml

from genima.errors import GenimaError
from genima.evaluation.study import NONE, Study
from genima.io import paths
from genima_cli import run_study
from genima_cli import study as command
from genima_cli.job_runner import Job, JobFolder, JobResult, _run, run_jobs
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
        assert not _run(replace(job, commands=(("--version",),)), folder, tmp_path).problem
        link = tmp_path / "runs/other/diffusion_agent"
        assert link.is_symlink() and link.resolve() == tmp_path / "runs/genima/diffusion_agent"


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
    assert _run(good, folder, tmp_path) == JobResult("eval/good")
    assert folder.is_done(good) and "genima" in folder.log(good.name).read_text()
    failed = _run(bad, folder, tmp_path)
    assert failed.problem.startswith("failed: completion: unknown shell (fish)") and not folder.is_done(bad)
    assert "left out: needs eval/bad" in _run(job("eval/next", "--version"), folder, tmp_path, failed).problem
    assert not folder.log("eval/next").exists()


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
    with pytest.raises(GenimaError, match="train/e: needs 1 GPUs"):
        run_jobs([Job("train/e", (("--version",),), 1.0, gpus=1)], folder, 1, None, on_success)


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
