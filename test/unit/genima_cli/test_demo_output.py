"""Output folder and picture of `./genima demo`, without the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genima.errors import GenimaError
from genima_cli import demo, video
from genima_cli.demo import is_run, main


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
