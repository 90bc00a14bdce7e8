"""Tests of the control benchmarks: evaluation of recordings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import controller_inference
import demo_timing
import numpy as np
import policies
import pytest
import smoothness
import torch

from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import ActionChunk, Joints

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"

PANDA = RobotModel.load("panda")
OPTIONS = smoothness.Options()


def wandering(count: int = 6) -> list[ActionChunk]:
    """Chunks towards successive goals, each starting at the previous chunk's position at the next observation."""
    rng = np.random.default_rng(0)
    stamps = np.arange(count) * 0.5
    chunks, start = [], PANDA.home
    for stamp in stamps:
        goal = PANDA.home + rng.normal(0, 0.2, 7)
        share = np.arange(1, 21)[:, None] / 20
        positions = start + share * (goal - start) + rng.normal(0, 0.04, 7)  # chunks never agree exactly
        chunks.append(ActionChunk(float(stamp), 0.05, positions, np.ones(20)))
        start = positions[9]
    return chunks


def test_stream_has_less_jerk_than_serial_execution() -> None:
    chunks, start = wandering(), Joints(0.0, PANDA.home, 1.0)
    executed = [chunk.stamp for chunk in chunks[1:]] + [chunks[-1].due[-1]]
    plain = smoothness.as_it_is(chunks, executed, start, OPTIONS)
    spliced = smoothness.overlapped(PANDA, chunks, start, OPTIONS)
    serial = smoothness.serial(PANDA, chunks, start, OPTIONS)
    for trajectory in (plain, serial, spliced):
        assert np.abs(trajectory[-1] - chunks[-1].positions[-1]).max() < 0.2 and np.all(np.isfinite(trajectory))
    jerks = {name: [smoothness.jerk(trajectory, 50.0)] for name, trajectory in (("plain", plain), ("ours", spliced))}
    results = smoothness.summary(jerks)
    assert results["plain"].ratio == 1.0 and results["ours"].ratio < 1 / 3


def test_serial_chunk_passes_through_its_actions() -> None:
    (only,) = wandering(1)
    positions = smoothness.as_it_is([only], [only.due[-1]], Joints(0.0, PANDA.home, 1.0), OPTIONS)
    wait = round(OPTIONS.latency * OPTIONS.rate)
    np.testing.assert_array_equal(positions[:wait], np.tile(PANDA.home, (wait, 1)))
    np.testing.assert_allclose(positions[wait + 4 :: 5], only.positions[1::2], atol=1e-9)


def test_memory_growth_is_measured_after_start() -> None:
    samples = [(t, 100.0 if t < 30 else 300 + 2 * t / 60) for t in np.arange(0.0, 300.0)]
    first, last, slope = demo_timing.growth(samples)
    assert (first, last) == pytest.approx((301, 300 + 2 * 299 / 60)) and slope == pytest.approx(2)
    assert demo_timing.growth(samples[:2]) == (100.0, 100.0, 0.0)


def test_controller_inference_benchmark_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, threads = tmp_path / "reading.json", torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["controller_inference.py", "--readings", "2", "--out", str(out)])
    try:
        controller_inference.main()
    finally:
        torch.set_num_threads(threads)
    variants = json.loads(out.read_text())["variants"]
    assert variants["bundled"]["ratio"] == 1.0
    assert variants["paper's size"]["operations"] > 10 * variants["bundled"]["operations"]
    assert all(v["limit"] > 0 and v["p50"] > 0 for v in variants.values())  # how they compare is the machine's affair


def test_policies_benchmark_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, threads = tmp_path / "policies.json", torch.get_num_threads()
    arguments = ["--chunks", "1", "--view-size", "32", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["policies.py", *arguments])
    try:
        policies.main()
    finally:
        torch.set_num_threads(threads)
    results = json.loads(out.read_text())
    assert {"act", "genima", "susie", "video_policy", "diffuser_actor, a keypose"} <= set(results) and results["act"][
        "ratio"
    ] == 1
    assert all(
        result["parameters"] > 1e5 and result["p50"] > 0 for name, result in results.items() if name != "benchmark"
    )


@pytest.mark.parametrize(
    "benchmark, arguments, expected",
    [
        (controller_inference, ["--readings", "0"], "must be positive"),
        (smoothness, ["--latency", "2"], "--latency between 0 and 1 s"),
        (demo_timing, ["--minutes", "0"], "--minutes must be positive"),
        (smoothness, ["--out", "/dev/null/file.json"], "/dev/null"),
    ],
)
def test_invalid_options_are_rejected(
    benchmark: ModuleType, arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{benchmark.__name__}.py", *arguments])
    with pytest.raises(GenimaError, match=expected):
        benchmark.main()


def test_benchmark_error_is_one_line() -> None:
    command = [sys.executable, str(BENCHMARKS / "demo_timing.py"), "--minutes", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "--minutes must be positive" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
