"""Trainings of a few steps on a network that learns to add."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from genima.data.datasets.sample_index import SampleIndex
from genima.training import loop
from genima.training.options import LoopOptions

OPTIONS = LoopOptions(
    steps=10, batch_size=4, learning_rate=1e-2, warmup_steps=2, save_every=5, workers=0, ema=0.9, mixed_precision="no"
)


def one_step(*loops: str) -> list[str]:
    """Return the arguments of a command for one step of each of its loops."""
    options = ("steps=1", "batch-size=1", "workers=0", "save-every=1", "warmup-steps=0")
    return [part for loop in loops for option in options for part in f"--{loop}.{option}".split("=")]


class Sum(nn.Module):
    """Network that learns to add, with dropout, batch normalisation and noise, to test resumed trainings."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        wanted = batch[:, 2] + 0.1 * torch.randn(len(batch))
        return {"loss": (self.net(batch[:, :2])[:, 0] - wanted).square().mean()}


def train(
    folder: Path,
    options: LoopOptions = OPTIONS,
    stop_at: int | None = None,
    model: nn.Module | None = None,
    errors: Mapping[int, float] | None = None,
) -> nn.Module:
    """Train with checkpoints of the weights; interrupt the save of step ``stop_at``."""
    model = model or Sum()

    def save(checkpoint: Path) -> None:
        torch.save(model.state_dict(), checkpoint / "weights.pt")
        if stop_at is not None and checkpoint.name == f"step-{stop_at:06d}.part":
            raise KeyboardInterrupt

    def validate(step: int, checkpoint: Path) -> dict[str, float]:
        return {"error": errors[step] if errors else 1 / step}

    try:
        loop.run(model, Numbers(), torch.stack, options, folder, save, validate, "error")
    except KeyboardInterrupt:
        assert stop_at is not None
    return model


class Deterministic(nn.Module):
    """Network that learns to add without any noise, so that several processes may be compared with one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.net(batch[:, :2])[:, 0] - batch[:, 2]).square().mean()}


class Numbers(torch.utils.data.Dataset[Tensor]):
    """Pairs of numbers and their sum, with noise that is new on every visit."""

    def __len__(self) -> int:
        return 50

    def __getitem__(self, visit: SampleIndex) -> Tensor:
        x = np.random.default_rng(visit.moment).normal(size=2)
        noise = np.random.default_rng(visit).normal()
        return torch.tensor([*x, x.sum() + 0.01 * noise], dtype=torch.float32)
