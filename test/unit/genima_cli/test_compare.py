"""`./genima compare`: equal episodes for both policies, early stopping, resuming, one error line for bad input."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from genima.errors import GenimaError
from genima.evaluation.comparison import Comparison, Pair
from genima.evaluation.paired import Verdict
from genima.policy.base import Policy
from genima.policy.trajectory_policy import TrajectoryPolicy
from genima_cli import compare
from genima_sim.environment import Environment

# B follows the expert, but has another name.
POLICY = """
from genima_sim.expert_policy import load
"""
Outcomes = Callable[[str, str, int], bool]  # of policy, task and seed
Episode = tuple[str, str, int]

pytestmark = pytest.mark.usefixtures("signal_handlers")


@pytest.fixture(autouse=True)
def policies(write_module: Callable[..., Path]) -> None:
    write_module("policies/policy_b.py", POLICY)


@pytest.fixture
def run(shared_environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Function that compares expert and policy_b, whose episodes have the given outcomes; appends them to ``made``."""

    def run_command(outcomes: Outcomes, made: list[Episode], *arguments: str, tasks: str = "push_button") -> int:
        def run_seed(environment: object, policy: Policy, robot: object, task: str, seed: int, _: object) -> bool:
            name = "B" if "UserPolicy" in type(policy).__name__ else "A"
            made.append((name, task, seed))
            return outcomes(name, task, seed)

        monkeypatch.setattr("genima.evaluation.episodes.run_seed", run_seed)
        return compare.main(
            ["expert", "policy_b", "--task", *tasks.split(), "--out", str(tmp_path / "c.json"), *arguments]
        )

    return run_command


def test_episodes_are_interleaved_and_stop_early(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Episode] = []
    assert run(lambda name, *_: name == "B", made, "--seed", "5", "--episodes", "40", tasks="push_button lamp_on") == 0
    assert made[:4] == [("A", "push_button", 5), ("B", "push_button", 5), ("A", "lamp_on", 5), ("B", "lamp_on", 5)]
    assert 2 * 6 < len(made) < 2 * 80
    result = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert result["verdict"] == "B is better" and list(result["groups"]) == ["push_button", "lamp_on"]
    assert result["all"]["only_b"] == len(result["pairs"]) == len(made) // 2 and result["all"]["difference"] == -1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["A: expert", "B: policy_b"] and [line.split()[0] for line in lines[3:6]] == [
        "push_button", "lamp_on", "all",
    ]  # fmt: skip
    assert lines[-1].startswith(f"B is better: sequential test at 5%, {len(made) // 2} of 80 planned pairs; ")


def test_all_runs_every_pair_and_uses_mcnemars_test(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Episode] = []
    assert run(lambda name, _, seed: name == "A" or seed > 5, made, "--episodes", "12", "--all") == 0
    assert len(made) == 24
    out = capsys.readouterr().out
    assert "12/12 (100%)" in out and "6/12 (50%)" in out and "0.031" in out
    assert out.splitlines()[-1] == "A is better: McNemar's exact test at 5%, 12 of 12 planned pairs"


def test_interrupted_comparison_resumes_without_repeating_pairs(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Episode] = []

    def outcomes(name: str, task: str, seed: int) -> bool:
        if (name, seed) == ("B", 2) and made.count(("B", task, 2)) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)  # the signal comes here
        return seed % 2 == 0

    assert run(outcomes, made, "--episodes", "4") == 130
    assert "interrupted: 2 of 4 pairs are in" in capsys.readouterr().out
    with pytest.raises(GenimaError, match="of another run .planned_pairs: 4, not 5"):
        run(outcomes, made, "--episodes", "5")
    with pytest.raises(GenimaError, match="of another run .stops_early: true, not false"):
        run(outcomes, made, "--episodes", "4", "--all")
    assert run(outcomes, made, "--episodes", "4") == 0
    assert made[6:] == [
        ("A", "push_button", 2),
        ("B", "push_button", 2),
        ("A", "push_button", 3),
        ("B", "push_button", 3),
    ]
    assert "no difference found" in capsys.readouterr().out
    assert run(outcomes, made, "--episodes", "4") == 0 and len(made) == 10  # complete: nothing is left to do
    assert [path.name for path in tmp_path.glob("*.json")] == ["c.json"]


def test_a_versus_a_has_equal_outcomes(
    shared_environment: Environment, checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(checkpoint_folder)
    short = ["--task", "push_button", "--episodes", "2", "--time-limit", "0.3"]
    assert compare.main([folder, folder, *short]) == 0
    assert "0/2 (0%)" in (out := capsys.readouterr().out) and "no difference found" in out


def test_both_policies_start_in_the_same_state(
    shared_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []
    reset = TrajectoryPolicy.reset

    def note(self: TrajectoryPolicy, seed: int) -> None:
        starts.append((seed, shared_environment.state().tolist()))
        reset(self, seed)

    monkeypatch.setattr(TrajectoryPolicy, "reset", note)
    short = ["--task", "push_button", "--perturb", "object_color", "--episodes", "2", "--time-limit", "0.1"]
    assert compare.main(["expert", "expert", *short]) == 0
    assert starts[0] == starts[1] != starts[2] == starts[3]


@pytest.mark.parametrize(("arguments", "named"), [
    (["expert", "expret"], "mean expert"),
    (["expert", "nowhere/at/all"], "nowhere/at/all"),
    (["expert", "genima", "--cell", "sim_fr3"], "was trained for joints"),
    (["expert", "expert", "--task", "push_buton"], "mean push_button"),
    (["expert", "expert", "--task", "push_button", "push_button"], "a task twice"),
    (["expert", "expert", "--perturb", "objcet_color"], "object_color"),
    (["expert", "expert", "--horizon", "21"], "K = 20"),
    (["expert", "expert", "--out", "result.txt"], ".json"),
    (["expert", "expert", "--episodes", "0"], "--episodes"),
])  # fmt: skip
def test_bad_input_is_rejected_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GenimaError) as caught:
        compare.main([*([] if "--task" in arguments else ["--task", "push_button"]), *arguments[2:], *arguments[:2]])
    assert named in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.json"))


def test_other_result_is_not_replaced(run: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"task": "push_button", "seeds": [0], "succeeded": []}')
    for extra in ([], ["--overwrite"]):
        with pytest.raises(GenimaError, match="pairs"):
            run(lambda *_: True, [], "--episodes", "1", *extra)


def test_verdict_of_several_groups_pools_all_pairs() -> None:
    comparison = Comparison(40, stops_early=False)
    for i in range(20):
        comparison.add(Pair("in_distribution", i, True, i > 3))
        comparison.add(Pair("out_of_distribution", i, True, i > 3))
    assert comparison.outcomes("in_distribution").verdict() == Verdict.NO_DIFFERENCE
    assert comparison.ended and comparison.verdict == Verdict.A_BETTER
    assert Comparison(1, stops_early=True).report("x", "y").endswith("no pairs")
