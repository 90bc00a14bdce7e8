"""Evaluation: intervals, blank targets, repeatable runs, and one error line for bad input."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cells import write_cell
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm
from untrained import save_checkpoints

from genima.errors import GenimaError
from genima.evaluation import BlankTargets, Success
from genima.io import paths
from genima.io.files import atomic_write
from genima.policy.genima import load_pair
from genima.types import Joints, Observation
from genima_cli import evaluate
from genima_sim.environment import Environment
from genima_sim.tasks import TASKS


@pytest.mark.parametrize("views", [("front",), ("wrist", "front", "right_shoulder", "left_shoulder", "high", "low")])
def test_loop_runs_with_one_and_six_views(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], views: tuple[str, ...]
) -> None:
    calibration = Path(shutil.copytree(paths.shared("calibration", "sim"), tmp_path / "views"))
    front = (calibration / "front.yaml").read_text(encoding="utf-8")
    for name, translation in {"high": "[1.32, 0.0, 0.76]", "low": "[1.32, 0.0, 0.56]"}.items():  # m
        moved = front.replace("[1.32, 0.0, 0.66]", translation)
        assert moved != front
        (calibration / f"{name}.yaml").write_text(moved, encoding="utf-8")
    cell = write_cell(tmp_path, "sim_panda", calibration=str(calibration), views=list(views))
    options = ["--task", "push_button", "--cell", cell, "--episodes", "1"]
    assert evaluate.main([*options, "--policy", "expert"]) == 0 and "1 of 1" in capsys.readouterr().out
    checkpoint = save_checkpoints(tmp_path / "untrained", views=views)
    assert load_pair(checkpoint)[0].spec.tile_size == ((64, 64) if len(views) == 1 else (128, 192))
    assert evaluate.main([*options, "--checkpoint", str(checkpoint), "--time-limit", "0.5"]) == 0
    assert "0 of 1" in capsys.readouterr().out


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_matches_score_test(counts: tuple[int, int]) -> None:
    k, n = counts
    low, high = Success(k, n).interval()
    assert 0 <= low <= k / n <= high <= 1 and low < high
    z = norm.ppf(0.975)  # Wilson, 1927: |k / n - p| = z sqrt(p (1 - p) / n) at both ends
    for end in (low, high):
        assert abs(k / n - end) == pytest.approx(z * np.sqrt(end * (1 - end) / n), abs=1e-6)


def test_intervals_at_zero_and_one_are_valid() -> None:
    for n in (1, 10, 50):
        none, all_of_them = Success(0, n).interval(), Success(n, n).interval()
        assert none[0] == pytest.approx(0, abs=1e-12) and 0 < none[1] < 1
        assert all_of_them[1] == pytest.approx(1, abs=1e-12) and 0 < all_of_them[0] < 1
        assert all_of_them[0] == pytest.approx(1 - none[1])


def test_interval_coverage_matches_confidence() -> None:
    n = 50
    intervals = [Success(k, n).interval() for k in range(n + 1)]
    for p in np.linspace(0.05, 0.95, 19):
        covered = sum(binom.pmf(k, n, p) for k, (low, high) in enumerate(intervals) if low <= p <= high)
        assert 0.91 < covered < 0.99


def test_rate_is_printed_with_interval() -> None:
    assert Success(40, 50).rate == 0.8
    assert str(Success(40, 50)) == "40 of 50 (80%, 95% interval 67% to 89%)"


def test_blank_targets_are_grey_drawn_targets(checkpoint_folder: Path) -> None:
    agent, controller = load_pair(checkpoint_folder, "cpu")
    width, height = agent.camera_size
    images = {view: np.full((height, width, 3), 90, np.uint8) for view in agent.views}
    joints = Joints(1.5, agent.robot.home, 1.0)
    observation = Observation(1.5, images, joints, "go")
    drawn, blank = agent.generate(observation, 9), BlankTargets(agent.spec).generate(observation, 9)
    assert blank.tile.shape == drawn.tile.shape and blank.tile.dtype == drawn.tile.dtype
    assert len(np.unique(blank.tile)) == 1 and len(np.unique(drawn.tile)) > 1
    for name in ("stamp", "instruction", "views", "seed"):
        assert getattr(blank, name) == getattr(drawn, name)
    assert controller.predict_chunk(blank, joints).stamp == 1.5


# The command


Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture
def run_evaluation(checkpoint_folder: Path, tmp_path: Path, shared_environment: Environment) -> Evaluate:
    def run(*arguments: str, task: str = "push_button") -> dict[str, Any]:
        out = tmp_path / "results" / "result.json"
        options = ["--task", task, "--checkpoint", str(checkpoint_folder), "--out", str(out), "--overwrite", *arguments]
        assert evaluate.main(options) == 0
        return dict(json.loads(out.read_text(encoding="utf-8")))

    return run


def record_set_points(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Return all set-points of the arm."""
    commands: list[np.ndarray] = []
    apply = Environment.apply

    def note(self: Environment, command: Any, seconds: float) -> None:
        if command is not None:
            commands.append(np.append(command.positions, command.gripper))
        apply(self, command, seconds)

    monkeypatch.setattr(Environment, "apply", note)
    return commands


def test_result_holds_settings_and_successes(run_evaluation: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_evaluation(
        "--episodes", "2", "--seed", "30", "--time-limit", "0.2", "--horizon", "7", task="take_lid_off_saucepan"
    )
    assert result["task"] == "take_lid_off_saucepan" and result["seeds"] == [30, 31] and result["episodes"] == 2
    assert result["successes"] == len(result["succeeded"]) == 0  # too short to lift a lid
    assert result["interval_95"] == pytest.approx(Success(0, 2).interval())
    assert result["blank_targets"] is False and result["time_limit"] == 0.2 and result["horizon"] == 7
    assert "take_lid_off_saucepan: 0 of 2 (0%, 95% interval 0% to 66%)" in capsys.readouterr().out


def test_equal_runs_are_equal_and_targets_and_seeds_matter(
    run_evaluation: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--episodes", "1", "--time-limit", "0.5")
    commands = record_set_points(monkeypatch)
    paths, results = [], []
    for extra in ((), (), ("--blank-targets",), ("--seed", "1")):
        commands.clear()
        results.append(run_evaluation(*options, *extra))
        paths.append(np.array(commands))
    assert len(paths[0]) > 15
    np.testing.assert_array_equal(paths[0], paths[1])
    assert results[0] == results[1] and results[2]["blank_targets"]
    for other in paths[2:]:
        assert other.shape != paths[0].shape or (other != paths[0]).any()


def test_success_is_counted_with_its_seed(
    run_evaluation: Evaluate, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def succeed_in_odd_seeds(task: str, seed: int) -> None:
        Environment.reset(environment, task, seed)
        environment.simulation.success = seed % 2 == 1

    monkeypatch.setattr(environment, "reset", succeed_in_odd_seeds)
    result = run_evaluation("--episodes", "5", "--time-limit", "0.02")
    assert result["succeeded"] == [1, 3] and result["successes"] == 2 and result["episodes"] == 5


@pytest.mark.parametrize(("arguments", "named"), [
    (["--task", "push_buton"], "mean push_button"),
    (["--checkpoint", "nowhere/at/all"], "nowhere/at/all"),
    (["--device", "abacus"], "abacus"),
    (["--device", "cuda:77"], "cuda:77"),
    (["--horizon", "0"], "--horizon"),
    (["--seed", "100000000000000000000"], "--seed"),
    (["--latency", "inf"], "--latency"),
    (["--sampling.strength", "nan"], "sampling.strength"),
    (["--horizon", "21"], "K = 20"),
    (["--episodes", "0"], "--episodes"),
    (["--episodes", "-3"], "--episodes"),
    (["--time-limit", "0"], "--time-limit"),
    (["--time-limit", "nan"], "--time-limit"),
    (["--seed", "-1"], "-1"),
])  # fmt: skip
def test_bad_input_is_rejected_in_one_line_without_file(
    checkpoint_folder: Path, tmp_path: Path, shared_environment: Environment, arguments: list[str], named: str
) -> None:
    good = ["--task", "push_button", "--checkpoint", str(checkpoint_folder), "--out", str(tmp_path / "result.json")]
    with pytest.raises(GenimaError) as caught:
        evaluate.main([*good, *arguments])
    assert named in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["--task"], ["--task", "push_button", "--episodes", "many"], ["--wrong"]])
def test_invalid_arguments_have_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        evaluate.main(arguments)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_full_disk_is_reported_and_old_result_is_kept(
    run_evaluation: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("--episodes", "1", "--time-limit", "0.02")
    run_evaluation(*short)
    file = tmp_path / "results" / "result.json"
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("genima.io.files.os.fsync", full)
    with pytest.raises(GenimaError, match="No space left") as caught:
        run_evaluation(*short, "--seed", "1")
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


def test_unwritable_paths_are_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "out.json", tmp_path / "folder", Path("/"), Path("."), Path("/dev/null/a/b")):
        with pytest.raises(GenimaError, match="cannot write"):
            atomic_write(path, b"{}")
    assert (tmp_path / "file").read_text() == "here"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]


def test_results_replace_old_ones_and_create_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "out.json"
    for data in (b"first", b"second", b""):
        atomic_write(path, data)
        assert path.read_bytes() == data
        assert list(path.parent.iterdir()) == [path]


def test_instructions_of_tasks_are_distinct() -> None:
    assert len({task.instruction for task in TASKS.values()}) == len(TASKS) >= 2


@pytest.mark.usefixtures("signal_handlers")
def test_interrupted_evaluation_is_resumed(
    checkpoint_folder: Path, tmp_path: Path, shared_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    interrupt_at = 2

    def reset(task: str, seed: int) -> None:
        if seed == interrupt_at:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)  # the signal comes here
        seeds.append(seed)
        Environment.reset(shared_environment, task, seed)

    monkeypatch.setattr(shared_environment, "reset", reset)
    out = tmp_path / "result.json"
    options = ["--task", "push_button", "--checkpoint", str(checkpoint_folder), "--time-limit", "0.02"]
    options += ["--out", str(out)]
    assert evaluate.main([*options, "--episodes", "4"]) == 130
    assert json.loads(out.read_text(encoding="utf-8"))["seeds"] == [0, 1]
    interrupt_at = -1
    with pytest.raises(GenimaError, match="of another run .horizon: 20, not 7"):
        evaluate.main([*options, "--episodes", "4", "--horizon", "7"])
    assert evaluate.main([*options, "--episodes", "4"]) == 0
    assert seeds == [0, 1, 2, 3] == json.loads(out.read_text(encoding="utf-8"))["seeds"]
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_other_file_is_neither_resumed_nor_replaced(
    checkpoint_folder: Path, tmp_path: Path, shared_environment: Environment, overwrite: list[str]
) -> None:
    out = tmp_path / "notes.json"
    out.write_text('{"mine": 1}')
    options = ["--task", "push_button", "--checkpoint", str(checkpoint_folder), "--time-limit", "0.02"]
    with pytest.raises(GenimaError, match="notes.json"):
        evaluate.main([*options, "--episodes", "1", "--out", str(out), *overwrite])
    assert out.read_text(encoding="utf-8") == '{"mine": 1}'
