"""`./genima tasks`: list, check and gallery."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from one_thread import OneThread

from genima.inspection.sheet import is_picture
from genima_cli import task_checks
from genima_cli.__main__ import main
from genima_sim.environment import Environment
from genima_sim.tasks import TASKS, get_task, variation_names


def test_list_has_every_variation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "list"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines == {name: get_task(name).instruction for name in variation_names()}
    assert len(TASKS) >= 25


def test_check_is_kept_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(task_checks, "WorkerPool", OneThread)
    out = tmp_path / "check.json"
    command = ["tasks", "check", "push_button@1", "--first", "3", "--idle", "1", "--guarded", "1", "--out", str(out)]
    assert main([*command, "--seeds", "1"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("push_button@1"))
    assert row.split()[1] == "1/1" and "none" in row
    stored = json.loads(out.read_text(encoding="utf-8"))
    assert set(stored["push_button@1"]["expert"]) == {"3"}
    stored["push_button@1"]["expert"]["3"]["success"] = False  # so that a second run of it would be seen
    stored["push_button@1"]["near misses"] = {"touched": True}
    out.write_text(json.dumps(stored), encoding="utf-8")
    assert main([*command, "--seeds", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("push_button@1"))
    assert row.split()[1] == "1/2"
    expected = "1 of 1 failed: push_button@1 (expert 1 of 2, at least 95% expected; near misses counted: touched)"
    assert expected in lines


@pytest.mark.parametrize(("arguments", "expected"), [
    (["check", "wave"], "task 'wave': unknown"),
    (["check", "push_button", "--out", "result.txt"], "the results are a .json file"),
    (["gallery", "gallery.jpg"], "the picture is a .png file"),
    (["gallery", "gallery.png", "--tasks", "push_buton"], "did you mean push_button"),
    (["gallery", "gallery.png", "--tasks", "push_button", "--view", "behind"], "view 'behind': not in the scene"),
])  # fmt: skip
def test_invalid_options_are_one_line(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    shared_environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tasks", *arguments]) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_gallery_shows_start_and_end(tmp_path: Path, shared_environment: Environment) -> None:
    picture = tmp_path / "gallery.png"
    assert main(["tasks", "gallery", str(picture), "--tasks", "push_button", "turn_tap"]) == 0
    assert is_picture(picture)
