"""Output folder and picture of `./genima demo`, without the graph."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genima.errors import GenimaError
from genima.types import TaskOutcome
from genima_cli import demo, video
from genima_cli.demo import is_run, main
from genima_cli.demo_report import EpisodeResult, Report


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders of the started runs; the graph is not started."""
    begun: list[Path] = []
    monkeypatch.setattr(demo, "_run", lambda options, processes, views, out, report: begun.append(out))
    return begun


def test_overwrite_replaces_only_runs(tmp_path: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert main(["--out", str(out)]) == 0 and is_run(out)
    (out / "video.mp4").write_bytes(b"former")
    with pytest.raises(GenimaError, match="out: already exists; name another, or replace it with --overwrite"):
        main(["--out", str(out)])
    assert (out / "video.mp4").read_bytes() == b"former"
    assert main(["--out", str(out), "--overwrite"]) == 0 and not (out / "video.mp4").exists()
    assert len(runs) == 2

    (out / "notes.txt").write_text("mine")
    (tmp_path / "video.mp4").write_bytes(b"mine")
    (tmp_path / "report.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for folder in ("out", ".", "report.json"):
        with pytest.raises(GenimaError, match="already exists|name a new folder"):
            main(["--out", folder, "--overwrite"])
    assert (tmp_path / "video.mp4").read_bytes() == b"mine" and (out / "report.json").exists()
    assert (tmp_path / "report.json").read_text() == "{}" and len(runs) == 2


@pytest.fixture
def trained_on(checkpoint_folder: Path, copy_folder: Callable[[Path], Path]) -> Callable[..., str]:
    """Function that returns a checkpoint whose training had the given instructions."""

    def make_checkpoint(*instructions: str) -> str:
        checkpoint = copy_folder(checkpoint_folder)
        for half in ("diffusion_agent", "controller"):
            file = checkpoint / half / "genima.json"
            file.write_text(json.dumps({**json.loads(file.read_text()), "instructions": instructions}))
        return str(checkpoint)

    return make_checkpoint


@pytest.mark.parametrize(
    ("instructions", "task", "tasks"),
    [
        ([], [], ["push_button"]),
        (["open the top drawer", "close the top drawer", "turn on the light"], [], ["open_drawer@2", "lamp_on"]),
        (["open the top drawer", "turn on the light"], ["--task", "lamp_on"], ["lamp_on"]),
        (["close the top drawer"], [], ["push_button"]),
    ],
)
def test_policy_runs_the_tasks_that_it_was_trained_on(
    tmp_path: Path,
    runs: list[Path],
    trained_on: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    instructions: list[str],
    task: list[str],
    tasks: list[str],
) -> None:
    checkpoint = trained_on(*instructions)
    assert main(["--checkpoint", checkpoint, "--out", str(tmp_path / "out"), *task]) == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["tasks"] == tasks
    assert "was not trained on" not in capsys.readouterr().out


def test_task_that_the_policy_was_not_trained_on_is_named(
    tmp_path: Path,
    runs: list[Path],
    trained_on: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = trained_on("open the top drawer", "turn on the light")
    words = ["--checkpoint", checkpoint, "--out", str(tmp_path / "out"), "--task", "open_drawer"]
    assert main(words) == 0
    (note,) = [line for line in capsys.readouterr().out.splitlines() if "note" in line]
    assert f"the checkpoint {checkpoint} was not trained on open_drawer, but on open_drawer@2, lamp_on" in note
    assert len(runs) == 1
    with pytest.raises(GenimaError, match="task 'opn_drawer': unknown"):
        main([*words[:-1], "opn_drawer", "--overwrite"])


def test_report_counts_successes_by_task() -> None:
    report = Report(["lamp_on", "open_box"], 3)
    for i, outcome in enumerate((TaskOutcome.SUCCEEDED, TaskOutcome.TIMEOUT, TaskOutcome.SUCCEEDED)):
        report.results.append(EpisodeResult(report.tasks[i % 2], i, outcome, "", 1.0, 1))
    lines = report.text().splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines[:2]] == ["2 of 2 (lamp_on)", "0 of 1 (open_box)"]
    assert report.to_dict()["successes"] == 2


def test_labels_do_not_cover_images() -> None:
    pair = np.full((512, 1024, 3), 77, np.uint8)
    views = ["wrist", "front", "right_shoulder", "left_shoulder"]
    labelled = video.label(pair, views, "push down the maroon button")
    margin = labelled.shape[0] - len(pair)
    assert labelled.dtype == np.uint8 and labelled.shape[1:] == (1024, 3) and margin > 20
    other = video.label(pair, views, "take the lid off")
    changed = np.flatnonzero((labelled != other).any(axis=(1, 2)))
    assert len(changed) and changed.min() >= margin / 2 + len(pair)  # the instruction is written below the images
    swapped = video.label(pair, ["front", *views[1:]], "push down the maroon button")
    assert (swapped != labelled).any()
