"""Tests of temporal ensembling against a direct computation and in the closed loop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genima.errors import GenimaError
from genima.policy import temporal_ensemble
from genima.policy.temporal_ensemble import TemporalEnsemble
from genima.types import ActionChunk
from genima_cli import evaluate
from genima_sim.environment import Environment

K, PERIOD = 20, 0.05


def random_chunks(every: int, count: int) -> list[ActionChunk]:
    rng = np.random.default_rng(0)
    return [ActionChunk(i * every * PERIOD, PERIOD, rng.normal(size=(K, 7)), rng.random(K)) for i in range(count)]


@pytest.mark.parametrize("every", [1, 4, 7])
@pytest.mark.parametrize("m", [0.0, 0.01, 0.5, -0.3])
def test_actions_are_weighted_means_of_overlapping_chunks(every: int, m: float) -> None:
    """Reference of ACT: a table of predictions per step, weighted from the oldest on."""
    chunks = random_chunks(every, 12)
    ensemble = TemporalEnsemble(m)
    table = np.full((len(chunks), len(chunks) * every + K, 8), np.nan)
    for i, chunk in enumerate(chunks):
        table[i, i * every : i * every + K] = np.column_stack([chunk.positions, chunk.gripper])
        found = ensemble.average(chunk)
        assert (found.stamp, found.period) == (chunk.stamp, chunk.period)
        for k in range(K):
            actions = table[: i + 1, i * every + k]
            actions = actions[~np.isnan(actions[:, 0])]
            weights = np.exp(-m * np.arange(len(actions)))
            expected = (actions * weights[:, None] / weights.sum()).sum(axis=0)
            np.testing.assert_allclose(found.positions[k], expected[:7], atol=1e-9)
            assert found.gripper[k] == pytest.approx(expected[7])


def test_chunks_are_interpolated_between_actions() -> None:
    line = np.arange(1, K + 1)[:, None] * np.ones(7)
    chunks = [ActionChunk(0.0, PERIOD, line, np.ones(K)), ActionChunk(0.3 * PERIOD, PERIOD, line + 10, np.zeros(K))]
    ensemble = TemporalEnsemble(0.0)
    ensemble.average(chunks[0])
    found = ensemble.average(chunks[1])
    np.testing.assert_allclose(found.positions[:-1], (line + 0.3 + line + 10)[:-1] / 2)
    np.testing.assert_allclose(found.positions[-1], line[-1] + 10)  # the first chunk no longer contributes
    np.testing.assert_allclose(found.gripper, [0.5] * (K - 1) + [0.0])


def test_chunks_without_overlap_are_unchanged() -> None:
    chunks = random_chunks(K, 3)
    ensemble = TemporalEnsemble(0.1)
    for chunk in chunks:
        found = ensemble.average(chunk)
        np.testing.assert_allclose(found.positions, chunk.positions)
        np.testing.assert_allclose(found.gripper, chunk.gripper)


# ./genima eval --ensemble


def test_evaluation_with_temporal_ensemble(
    checkpoint_folder: Path, tmp_path: Path, shared_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[float, int]] = []

    class EnsembleSpy(TemporalEnsemble):
        def average(self, chunk: ActionChunk) -> ActionChunk:
            averaged = super().average(chunk)
            made.append((self._m, len(self._chunks)))
            return averaged

    monkeypatch.setattr(temporal_ensemble, "TemporalEnsemble", EnsembleSpy)
    out = tmp_path / "result.json"
    options = [
        "--task", "push_button", "--checkpoint", str(checkpoint_folder), "--episodes", "2", "--time-limit", "0.4",
        "--horizon", "4", "--out", str(out),
    ]  # fmt: skip
    assert evaluate.main(options) == 0
    assert not made and json.loads(out.read_text())["ensemble"] is None
    assert evaluate.main([*options, "--ensemble", "0.01", "--overwrite"]) == 0
    assert made == [(0.01, 1), (0.01, 2)] * 2 and json.loads(out.read_text())["ensemble"] == 0.01


@pytest.mark.parametrize(("arguments", "named"), [
    (["--ensemble", "nan", "--horizon", "4"], "finite number"),
    (["--ensemble", "0.01"], "--horizon below"),
])  # fmt: skip
def test_ensemble_without_overlap_is_rejected(checkpoint_folder: Path, arguments: list[str], named: str) -> None:
    with pytest.raises(GenimaError, match=named):
        evaluate.main(["--task", "push_button", "--checkpoint", str(checkpoint_folder), *arguments])
