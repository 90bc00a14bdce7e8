"""Samples for the diffusion agent: a tile, the tile to draw, and the instruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genima.data.datasets.sample_index import SampleIndex
from genima.data.datasets.target_dataset import TargetDataset
from genima.policy.diffusion_agent.video import FRAMES, clip_images, frame_steps
from genima.policy.spec import GOALS, TARGETS, VIDEOS


class DiffusionSample(NamedTuple):
    """Sample, or batch with a leading axis and a list of instructions."""

    condition: Tensor  # (H, W, 3) uint8, the observation, or a clip in which it stands still
    target: Tensor  # (H, W, 3) uint8, with spheres, or the observation K steps later, or a clip of later ones
    instruction: str | list[str]
    canonical: Tensor | None = None  # (H, W, 3) uint8, the target without spheres, where it is not the condition

    @property
    def scene(self) -> Tensor:
        """Return the target without spheres."""
        return self.condition if self.canonical is None else self.canonical


class DiffusionDataset(torch.utils.data.Dataset[DiffusionSample]):
    """Samples of a rendered dataset, indexed by :class:`SampleIndex`."""

    def __init__(self, targets: TargetDataset, moments: NDArray[np.integer], draws: str = TARGETS) -> None:
        """Args:
        targets: rendered dataset.
        moments: (N,) rows of the dataset.
        draws: ``targets``, ``goals`` or ``videos``, as in :class:`genima.policy.diffusion_agent.agent.DiffusionAgent`.
        """
        self._targets, self._moments, self._draws = targets, moments, draws

    def __len__(self) -> int:
        return len(self._moments)

    def moment(self, index: SampleIndex) -> int:
        """Return the row of a sample in the rendered dataset."""
        return int(self._moments[index.moment])

    def __getitem__(self, index: SampleIndex) -> DiffusionSample:
        i = self.moment(index)
        if self._draws == VIDEOS:
            return clip_sample(self._targets, i)
        if self._draws == GOALS:
            condition, target = self._targets.observation(i), self._targets.observation(self._targets.goal_row(i))
        else:
            condition, target = self._targets.images(i)
        canonical = self._targets.canonical if self._draws == TARGETS else None
        return DiffusionSample(
            torch.from_numpy(condition),
            torch.from_numpy(target),
            str(self._targets.moments.instruction[i]),
            torch.from_numpy(canonical.observation(i)) if canonical else None,
        )


def clip_sample(targets: TargetDataset, i: int) -> DiffusionSample:
    """Return the sample of a video model for row i of a dataset."""
    rows = [targets.later_row(i, steps) for steps in frame_steps(targets.spec.horizon)]
    now, *later = (torch.from_numpy(targets.observation(row)) for row in (i, *rows))
    still, clip = clip_images(torch.stack([torch.stack([now] * FRAMES), torch.stack(later)]))
    return DiffusionSample(still, clip, str(targets.moments.instruction[i]))


def collate(samples: Sequence[DiffusionSample]) -> DiffusionSample:
    """Stack samples to a batch."""
    return DiffusionSample(
        torch.stack([s.condition for s in samples]),
        torch.stack([s.target for s in samples]),
        [str(s.instruction) for s in samples],
        None if samples[0].canonical is None else torch.stack([s.scene for s in samples]),
    )
