"""Samples for networks that predict action chunks: images, measured joints, the chunk and the instruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genima.data.datasets.augmentation import Augmentation
from genima.data.datasets.sample_index import SampleIndex, TargetSamples
from genima.data.datasets.target_dataset import TargetDataset
from genima.policy.visuomotor.model import JointStatistics
from genima.types import Image


class ChunkSample(NamedTuple):
    """Sample of one moment."""

    images: Tensor  # (views, H, W, 3) uint8, in tile order
    proprioception: Tensor  # (n + 1,) normalised joints, gripper's open fraction
    actions: Tensor  # (K, n + 1) normalised joints, 1 where the gripper is open
    padding: Tensor  # (K,) true past the episode's end
    instruction: str


class ChunkBatch(NamedTuple):
    """Samples stacked along a first axis."""

    images: Tensor
    proprioception: Tensor
    actions: Tensor
    padding: Tensor
    instructions: list[str]


class ObservationDataset(torch.utils.data.Dataset[ChunkSample]):
    """Samples with the camera images of a rendered dataset, indexed by :class:`SampleIndex`."""

    def __init__(
        self,
        targets: TargetDataset,
        chosen: NDArray[np.integer],
        statistics: JointStatistics,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        goals: bool = False,
    ) -> None:
        """Args:
        targets: rendered dataset.
        chosen: (N,) rows of the dataset.
        statistics: normalise joints.
        augmentation: of each image; its randomness follows from (seed, SampleIndex.sample).
        seed: of the augmentation.
        goals: put the images K steps later before those of now, for a goal controller.
        """
        self._goals = goals
        self._targets, self._chosen, self._statistics = targets, chosen, statistics
        self._augmentation, self._seed = augmentation, seed
        self._moments = targets.moments[chosen]
        self._padding = chunk_padding(self._moments)

    def __len__(self) -> int:
        return len(self._moments)

    def __getitem__(self, index: SampleIndex) -> ChunkSample:
        row = int(self._chosen[index.moment])
        rows = [self._targets.goal_row(row), row] if self._goals else [row]
        images = [image for each in rows for image in self._targets.observed_views(each).values()]
        if self._augmentation:
            rng = np.random.default_rng([self._seed, index.sample])
            images = [self._augmentation(rng, image) for image in images]
        return chunk_sample(self._moments, index.moment, self._statistics, self._padding, np.stack(images))


def chunk_sample(
    moments: TargetSamples,
    i: int,
    statistics: JointStatistics,
    padding: NDArray[np.bool_],
    images: Image,
    positions: NDArray[np.float64] | None = None,
    actions: NDArray[np.float64] | None = None,
) -> ChunkSample:
    """Return sample i of ``moments``.

    Args:
        moments: N samples of demos.
        i: row.
        statistics: normalise joints.
        padding: (N, K) of :func:`chunk_padding`.
        images: (views, H, W, 3).
        positions: (n,) rad, in place of the measured ones.
        actions: (K, n) rad, in place of the commanded ones.
    """
    positions = moments.positions[i] if positions is None else positions
    actions = moments.actions[i] if actions is None else actions
    return ChunkSample(
        torch.from_numpy(images),
        torch.from_numpy(np.append(statistics.normalise(positions), moments.gripper[i])).float(),
        torch.from_numpy(np.column_stack([statistics.normalise(actions), moments.action_gripper[i] > 0.5])).float(),
        torch.from_numpy(padding[i]),
        str(moments.instruction[i]),
    )


def collate(samples: Sequence[ChunkSample]) -> ChunkBatch:
    """Stack samples."""
    images, proprioception, actions, padding, instructions = zip(*samples, strict=True)
    stacked = (torch.stack(images), torch.stack(proprioception), torch.stack(actions), torch.stack(padding))
    return ChunkBatch(*stacked, list(instructions))


def joint_statistics(moments: TargetSamples, floor: float = 0.05) -> JointStatistics:
    """Return mean and standard deviation of all commanded positions; deviations are at least ``floor`` rad."""
    commanded = moments.actions[:, 0]  # with all K, a demo's first commands would weigh less than the others
    return JointStatistics(commanded.mean(0), np.maximum(commanded.std(0), floor))


def joint_range(moments: TargetSamples, floor: float = 0.05) -> JointStatistics:
    """Return centre and half range of all commanded positions, which normalise to [-1, 1] (GENIMA paper, table 5).

    Half ranges are at least ``floor`` rad.
    """
    low, high = moments.actions.min((0, 1)), moments.actions.max((0, 1))
    return JointStatistics((low + high) / 2, np.maximum((high - low) / 2, floor))


def chunk_padding(moments: TargetSamples) -> NDArray[np.bool_]:
    """Return the padding (N, K) of chunks; the last action of demos that end at rest continues, and is not padding."""
    _, number, count = np.unique(moments.episode, return_inverse=True, return_counts=True)
    rests = np.empty(len(moments), bool)
    for rows in np.split(np.argsort(number, kind="stable"), np.cumsum(count)[:-1]):
        last_commands = moments.actions[rows[-3:], 0]
        rests[rows] = np.ptp(last_commands, axis=0).max() < 1e-3
    return moments.padding & ~rests[:, None]
