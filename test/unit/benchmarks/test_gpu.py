"""Tests of the GPU benchmark on a CPU with tiny networks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import generation
import gpu
import pytest
import torch
from accelerate.state import AcceleratorState

from genima.errors import GenimaError


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure in this process: a fresh one takes seconds to import PyTorch."""

    def run_isolated(function: Callable[..., Any], *given: Any) -> Any:
        AcceleratorState._reset_state(reset_partial_state=True)
        return function(*given)

    monkeypatch.setattr(generation, "run_isolated", run_isolated)
    monkeypatch.setattr(
        gpu, "GENERATE", (("fused-attention", 2), ("diffusers", 2), ("untiled", 2), ("controlnet-every-2", 2))
    )
    monkeypatch.setattr(gpu, "TRAIN", ("ours", "example"))


def run(monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: str) -> dict[str, Any]:
    tiny = ["--size", "tiny", "--draws", "5", "--batch", "2", "--train-steps", "1", "--workers", "0", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *tiny, *arguments])
    gpu.main()
    return dict(json.loads(out.read_text(encoding="utf-8")))


def test_all_variants_are_measured_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = run(monkeypatch, tmp_path / "gpu.json")
    rows = {(row["kind"], row["variant"]): row for row in report["rows"]}
    assert len(rows) == 6 and [row["problem"] for row in rows.values() if row["problem"]] == []
    for row in rows.values():
        assert 0 < row["p50"] <= row["p99"] and row["rate"] > 0 and row["ratio"] > 0
    assert rows["generate", "diffusers"]["ratio"] == rows["train", "example"]["ratio"] == 1
    assert rows["generate", "fused-attention"]["psnr"] > 20
    lines = (tmp_path / "gpu.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 10 and all(line.count("|") == 10 for line in lines[3:])
    with pytest.raises(GenimaError, match="already exists"):
        run(monkeypatch, tmp_path / "gpu.json")


def test_finished_measurements_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, measured = tmp_path / "gpu.json", []

    def generate(row: gpu.Row, options: gpu.Options) -> gpu.Row:
        if measured:  # the report of the first is there while the second runs
            assert len(json.loads(out.read_text(encoding="utf-8"))["rows"]) == len(measured)
        measured.append(row)
        if len(measured) == 2:
            raise RuntimeError("CUDA error\nof many lines")
        return gpu.Row(row.kind, row.variant, row.steps, 1.0, 2.0)

    monkeypatch.setattr(gpu, "generate", generate)
    monkeypatch.setattr(gpu, "TRAIN", ())
    rows = run(monkeypatch, out)["rows"]
    assert [row["problem"] for row in rows] == ["", "failed: CUDA error", "", ""]
    rows = run(monkeypatch, out, "--overwrite", "--minutes", "1e-9")["rows"]
    assert all(row["problem"].startswith("not begun within") for row in rows)
    assert all(line.count("|") == 10 for line in (tmp_path / "gpu.md").read_text().splitlines()[3:])


def test_full_size_requires_gpu_and_invalid_numbers_are_rejected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(GenimaError, match="must be positive"):
        run(monkeypatch, tmp_path / "gpu.json", "--draws", "0")
    if not torch.cuda.is_available():
        with pytest.raises(GenimaError, match="no GPU"):
            run(monkeypatch, tmp_path / "gpu.json", "--size", "sd-turbo")
