"""Files, results and reports of studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from genima.errors import GenimaError
from genima.evaluation.study import NONE, Study, fill_command
from genima.evaluation.study_report import JobSummary, write_report
from genima.evaluation.study_results import StudyResults, adjust_for_number

PLAIN: dict[str, Any] = {
    "title": "A study",
    "tasks": ["push_button", "open_drawer"],
    "policies": {"genima": {"train": ["train tiny --out {out}"]}, "act": {"label": "ACT", "policy": "expert"}},
    "episodes": 20,
    "perturbations": {"episodes": 10, "conditions": {"light": ["light_color"]}},
}


def load(folder: Path, **changes: Any) -> Study:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**PLAIN, **changes}, sort_keys=False))
    return Study.load(file)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tasks": []}, "tasks: List should have at least 1 item"),
        ({"tasks": ["push_button", "push_button"]}, "tasks: must be different"),
        ({"policies": {"act": {}}}, "policies.act: needs one of train, checkpoint_of and policy"),
        ({"policies": {"act": {"policy": "expert", "train": ["x"]}}}, "needs one of train"),
        ({"policies": {"act/1": {"policy": "expert"}}}, "policies"),
        (
            {"policies": {"blank": {"checkpoint_of": "genima"}}},
            "policies.blank.checkpoint_of: no trained policy genima",
        ),
        ({"policies": {"a": {"train": ["x"], "agent_of": "a"}}}, "policies.a: no trained policy a above it"),
        ({"policies": {"a": {"policy": "expert", "agent_of": "b"}}}, "agent_of, controller_of: need train"),
        ({"policies": {"a": {"train": ["x"], "gpus": 1.5}}}, "policies.a.gpus: .*a part of one GPU"),
        ({"reference": "susie"}, "reference: no policy susie"),
        ({"first_seed": 100_000}, "first_seed"),
        ({"perturbations": {"conditions": {NONE: []}}}, "none is the unperturbed one"),
        ({"perturbations": {"episodes": 21, "conditions": {"light": ["light_color"]}}}, "unperturbed twin"),
        ({"spatial_map": "turn_tap"}, "spatial_map: no task turn_tap in tasks"),
        ({"axis": "Demos"}, "axis: no policy has x"),
        ({"budget": 3}, "budget: Extra inputs are not permitted"),
    ],
)
def test_file_with_a_fault_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(GenimaError, match=reason) as error:
        load(tmp_path, **changes)
    assert str(error.value).startswith(f"study {tmp_path / 'study.yaml'}: ") and "\n" not in str(error.value)


def test_perturbed_episodes_have_unperturbed_twins(tmp_path: Path) -> None:
    study = load(tmp_path, first_seed=7)
    assert list(study.seeds(NONE)) == list(range(7, 27))
    assert list(study.seeds("light")) == list(range(7, 17))
    assert list(study.conditions) == [NONE, "light"]


def test_commands_are_filled_in() -> None:
    folders, lists = {"demos": "/a b/demos", "out": "/out"}, {"tasks": ["t", "u"], "small": ["--size", "32"]}
    words, used = fill_command(
        "record --task {tasks} --out {out} --from {demos}/x {small} 'a b'", folders, lists, "study"
    )
    assert words == ["record", "--task", "t", "u", "--out", "/out", "--from", "/a b/demos/x", "--size", "32", "a b"]
    assert used == {"demos", "out"}
    with pytest.raises(GenimaError, match=r"study: unknown placeholder \{data\}; known are \{tasks\}, \{small\}, "):
        fill_command("render --out {data}", folders, lists, "study")
    for malformed in ("render '", "render {", "render {out"):
        with pytest.raises(GenimaError, match="study: malformed command"):
            fill_command(malformed, folders, lists, "study")


def test_adjusted_p_values_keep_the_order_and_are_never_smaller() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        values = {str(i): float(p) for i, p in enumerate(rng.uniform(size=rng.integers(1, 7)))}
        adjusted = adjust_for_number(values)
        ordered = sorted(values, key=values.__getitem__)
        assert all(values[k] <= adjusted[k] <= 1 for k in values)
        assert [adjusted[k] for k in ordered] == sorted(adjusted.values())
        assert adjusted[ordered[0]] == pytest.approx(min(1.0, len(values) * values[ordered[0]]))


def fill(study: Study, rates: dict[tuple[str, str], float]) -> StudyResults:
    """Return results in which each policy succeeds with the first seeds of a condition."""
    results = StudyResults(study)
    for condition in study.conditions:
        for task in study.tasks:
            for policy in study.policies:
                seeds = study.seeds(condition)
                limit = rates[policy, condition] * len(seeds)
                results.cells[policy, task, condition] = {("", seed): i < limit for i, seed in enumerate(seeds)}
    return results


RATES = {("genima", NONE): 0.9, ("act", NONE): 0.5, ("genima", "light"): 0.9, ("act", "light"): 0.2}


def test_episodes_are_paired_by_task_seed_and_checkpoint(tmp_path: Path) -> None:
    results = fill(load(tmp_path), RATES)
    pairs = results.compare("act", "genima")
    assert (pairs.n, pairs.only_a, pairs.only_b, pairs.both) == (40, 0, 16, 20)
    drop = results.drop("act", "light")
    assert (drop.n, drop.only_a, drop.only_b) == (20, 0, 16)  # all ten twins a task succeed, two perturbed ones do
    del results.cells["genima", "push_button", NONE]["", 3]
    assert results.compare("act", "genima").n == 39
    assert results.missing() == 1
    results.cells["act", "push_button", NONE] = {
        ("last-1", seed): True for _, seed in results.cell("act", "push_button")
    }
    assert results.compare("act", "genima").n == 20  # checkpoints of another age have no partner


def test_report_has_all_cells_and_says_what_is_missing(tmp_path: Path) -> None:
    study = load(tmp_path, spatial_map="push_button", policies={
        **PLAIN["policies"], "genima": {**PLAIN["policies"]["genima"], "x": 20.0}}, axis="Demos")  # fmt: skip
    results = fill(study, RATES)
    del results.cells["act", "open_drawer", "light"]
    results.exclusions["push_button", "light"] = "its colour matters"
    jobs = [
        JobSummary("train/genima", ["train tiny"], 1.5, "here", "stopped at step 3 of 10"),
        JobSummary("eval/act/x", ["eval"], None),
    ]
    file = write_report(results, jobs, tmp_path, {seed: (0.4, 0.01 * seed) for seed in range(20)})
    text = file.read_text()
    assert "| push_button | 90% (70% to 97%) | 50% (30% to 70%) |\n" in text, text
    assert "| average | 90% (77% to 96%) | 50% (35% to 65%) |\n" in text
    assert "| ACT | 40 | 0 | 16 | -40% (" in text
    assert "Not complete: 10 episodes are missing" in text
    assert "push_button has no episodes with light: its colour matters" in text
    assert "Shortened by a time limit: train/genima (stopped at step 3 of 10)." in text
    assert "train/genima (1.50 h on here)" in text and "./genima train tiny" in text
    for plot in ("success.png", "perturbations.png", "axis.png", "map.png"):
        assert f"]({plot})" in text and (tmp_path / plot).stat().st_size > 1000
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["study"] == study.model_dump() and len(data["cells"]) == 7


def test_report_before_the_first_episode(tmp_path: Path) -> None:
    text = write_report(StudyResults(load(tmp_path)), [], tmp_path, {}).read_text()
    assert "Not complete: 120 episodes are missing" in text and "![" not in text
