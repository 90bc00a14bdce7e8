"""Targets on the images of another dataset: conditions in random appearance, drawn in canonical appearance."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from small_training import one_step

from genima.data.datasets.diffusion_samples import DiffusionDataset, DiffusionSample, collate
from genima.data.datasets.sample_index import SampleIndex
from genima.data.datasets.target_dataset import TargetDataset
from genima.errors import GenimaError
from genima.policy.spec import GOALS
from genima.training.build_agent import build_agent
from genima.training.diffusion import DiffusionLossModule
from genima.training.log import Progress
from genima.training.options import NO_JITTER, SMALL, DiffusionOptions
from genima_cli.train import main as train_command

ROWS = (5, 30)


def changed_copy(targets: TargetDataset, folder: Path, change: Callable[[str, Any], Any]) -> Path:
    """Copy a dataset, with ``change`` of each value by its column."""
    shutil.copytree(targets.folder, folder, ignore=shutil.ignore_patterns(".cache"))
    for file in folder.glob("*.parquet"):
        table = pq.read_table(file)
        rows = [{name: change(name, value) for name, value in row.items()} for row in table.to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    return folder


def inverted(column: str, value: Any) -> Any:
    if not column.startswith("observation."):
        return value
    image = 255 - cv2.imdecode(np.frombuffer(value["bytes"], np.uint8), cv2.IMREAD_COLOR)
    return {"bytes": cv2.imencode(".jpg", image)[1].tobytes(), "path": None}


@pytest.fixture(scope="module")
def random_folder(targets: TargetDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset of the same demos whose observations have inverted colours."""
    return changed_copy(targets, tmp_path_factory.mktemp("random") / "targets", inverted)


@pytest.fixture(scope="module")
def both(targets: TargetDataset, random_folder: Path) -> TargetDataset:
    return TargetDataset.load(random_folder, canonical=targets.folder)


def batch(targets: TargetDataset, draws: str = "targets") -> DiffusionSample:
    samples = DiffusionDataset(targets, np.array(ROWS), draws)
    return collate([samples[SampleIndex(i, i)] for i in range(len(ROWS))])


def test_observations_are_random_and_targets_canonical(
    targets: TargetDataset, random_folder: Path, both: TargetDataset
) -> None:
    plain, samples = TargetDataset.load(random_folder), batch(both)
    assert samples.canonical is not None
    for k, row in enumerate(ROWS):
        observation, target = both.images(row)
        np.testing.assert_array_equal(observation, plain.observation(row))
        np.testing.assert_array_equal(target, targets.images(row)[1])
        assert np.abs(observation.astype(int) - targets.observation(row)).mean() > 20
        np.testing.assert_array_equal(samples.condition[k], observation)
        np.testing.assert_array_equal(samples.target[k], target)
        np.testing.assert_array_equal(samples.canonical[k], targets.observation(row))
    goals = batch(both, GOALS)
    assert goals.canonical is None and batch(targets).canonical is None
    np.testing.assert_array_equal(goals.target[0], plain.observation(plain.goal_row(ROWS[0])))


@pytest.mark.parametrize("crop", [0, 4])
def test_loss_weights_spheres_and_shifts_all_images_alike(
    targets: TargetDataset, both: TargetDataset, crop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a condition, the loss is that of the canonical dataset."""
    agent = build_agent(SMALL, both)
    condition = agent.condition
    monkeypatch.setattr(agent, "condition", lambda frames: condition(torch.zeros_like(frames)))
    model = DiffusionLossModule(agent, DiffusionOptions(jitter=NO_JITTER, crop=crop, sphere_weight=6)).train()
    losses = []
    for dataset in (targets, both):
        torch.manual_seed(1)
        losses.append(model(batch(dataset))["loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("column", ["positions", "instruction"])
def test_dataset_of_other_demos_is_refused(targets: TargetDataset, tmp_path: Path, column: str) -> None:
    other = {"positions": lambda value: [value[0] + 1e-3, *value[1:]], "instruction": lambda value: f"{value} now"}
    folder = changed_copy(targets, tmp_path / "other", lambda name, x: other[name](x) if name == column else x)
    with pytest.raises(GenimaError, match="other demos or cameras than the canonical dataset .*; render") as error:
        TargetDataset.load(targets.folder, canonical=folder)
    assert "\n" not in str(error.value)


def test_command_trains_an_agent_that_draws_canonical_targets(
    targets: TargetDataset, random_folder: Path, tmp_path: Path
) -> None:
    loop = [option.replace("--loop.", "--") for option in one_step("loop")]
    words = ["diffusion", "--data", str(random_folder), "--base", SMALL, "--inference-steps", "1", *loop]
    words += ["--validation-targets", "1", "--out", str(tmp_path), "--canonical", str(targets.folder)]
    assert train_command(words) == 0
    progress = Progress.load(tmp_path / "diffusion_agent" / "last")
    assert progress.about["canonical"] == targets.fingerprint and np.isfinite(progress.errors["loss"] or np.nan)
