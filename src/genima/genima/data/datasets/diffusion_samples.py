"""Samples for the diffusion agent: a tile, the same tile with target spheres, and the instruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genima.data.datasets.sample_index import SampleIndex
from genima.data.datasets.target_dataset import TargetDataset


class DiffusionSample(NamedTuple):
    """Sample, or batch with a leading axis and a list of instructions."""

    condition: Tensor  # (H, W, 3) uint8, the observation
    target: Tensor  # (H, W, 3) uint8, with spheres
    instruction: str | list[str]


class DiffusionDataset(torch.utils.data.Dataset[DiffusionSample]):
    """Samples of a rendered dataset, indexed by :class:`SampleIndex`."""

    def __init__(self, targets: TargetDataset, moments: NDArray[np.integer]) -> None:
        self._targets, self._moments = targets, moments

    def __len__(self) -> int:
        return len(self._moments)

    def moment(self, index: SampleIndex) -> int:
        """Return the row of a sample in the rendered dataset."""
        return int(self._moments[index.moment])

    def __getitem__(self, index: SampleIndex) -> DiffusionSample:
        i = self.moment(index)
        condition, target = self._targets.images(i)
        instruction = str(self._targets.moments.instruction[i])
        return DiffusionSample(torch.from_numpy(condition), torch.from_numpy(target), instruction)


def collate(samples: Sequence[DiffusionSample]) -> DiffusionSample:
    """Stack samples to a batch."""
    return DiffusionSample(
        torch.stack([s.condition for s in samples]),
        torch.stack([s.target for s in samples]),
        [str(s.instruction) for s in samples],
    )
