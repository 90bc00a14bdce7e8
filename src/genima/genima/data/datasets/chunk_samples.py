"""Samples for networks that predict action chunks: images, measured joints, the chunk and the instruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genima.data.datasets import diffusion_samples
from genima.data.datasets.augmentation import Augmentation
from genima.data.datasets.diffusion_samples import DiffusionSample, clip_sample
from genima.data.datasets.sample_index import SampleIndex, TargetSamples
from genima.data.datasets.target_dataset import TargetDataset
from genima.policy.visuomotor.action_space import ACTION_SPACES, JOINTS, ActionEncoding, JointStatistics
from genima.robot.model import RobotModel
from genima.types import Image

_ENCODED_SAMPLES = 2000  # whose actions give the statistics of an action space
_SMALLEST_DEVIATION = 2e-3  # m, rad, or of a rotation's numbers: a column that hardly changes is not magnified


class ChunkSample(NamedTuple):
    """Sample of one moment."""

    images: Tensor  # (views, H, W, 3) uint8, in tile order
    proprioception: Tensor  # (n + 1,) normalised joints, gripper's open fraction
    actions: Tensor  # (K, size + 1) normalised, 1 where the gripper is open
    padding: Tensor  # (K,) true past the episode's end
    instruction: str
    clip: DiffusionSample | None = None  # that a video model trains on


class ChunkBatch(NamedTuple):
    """Samples stacked along a first axis."""

    images: Tensor
    proprioception: Tensor
    actions: Tensor
    padding: Tensor
    instructions: list[str]
    clips: DiffusionSample | None = None


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
        encoding: ActionEncoding | None = None,
        clips: bool = False,
    ) -> None:
        """Args:
        targets: rendered dataset.
        chosen: (N,) rows of the dataset.
        statistics: normalise joints.
        augmentation: of each image; its randomness follows from (seed, SampleIndex.sample).
        seed: of the augmentation.
        goals: put the images K steps later before those of now, for a goal controller.
        encoding: of the actions; None: joint positions.
        clips: add the clips that follow, to train a video model.
        """
        self._goals, self._encoding, self._clips = goals, encoding, clips
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
        moments, i, encoding = self._moments, index.moment, self._encoding
        sample = chunk_sample(moments, i, self._statistics, self._padding, np.stack(images), encoding=encoding)
        return sample._replace(clip=clip_sample(self._targets, row)) if self._clips else sample


def chunk_sample(
    moments: TargetSamples,
    i: int,
    statistics: JointStatistics,
    padding: NDArray[np.bool_],
    images: Image,
    positions: NDArray[np.float64] | None = None,
    actions: NDArray[np.float64] | None = None,
    encoding: ActionEncoding | None = None,
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
        encoding: of the actions; None: joint positions, normalised by ``statistics``.
    """
    positions = moments.positions[i] if positions is None else positions
    actions = moments.actions[i] if actions is None else actions
    encoded = encoding.encode(actions, positions) if encoding else statistics.normalise(actions)
    return ChunkSample(
        torch.from_numpy(images),
        torch.from_numpy(np.append(statistics.normalise(positions), moments.gripper[i])).float(),
        torch.from_numpy(np.column_stack([encoded, moments.action_gripper[i] > 0.5])).float(),
        torch.from_numpy(padding[i]),
        str(moments.instruction[i]),
    )


def collate(samples: Sequence[ChunkSample]) -> ChunkBatch:
    """Stack samples."""
    images, proprioception, actions, padding, instructions, clips = zip(*samples, strict=True)
    stacked = (torch.stack(images), torch.stack(proprioception), torch.stack(actions), torch.stack(padding))
    return ChunkBatch(*stacked, list(instructions), None if None in clips else diffusion_samples.collate(clips))


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


def action_encoding(
    name: str, robot: RobotModel, moments: TargetSamples, statistics: JointStatistics, unit_range: bool = False
) -> ActionEncoding:
    """Return an action space with the normalisation of its columns over the samples' chunks.

    Args:
        name: in ACTION_SPACES; joint positions have the ``statistics`` of the measured joints.
        robot: of the samples.
        moments: samples of demos.
        statistics: of measured joints.
        unit_range: normalise to [-1, 1]; else to zero mean and unit variance.
    """
    space = ACTION_SPACES[name](robot)
    if name == JOINTS:
        return ActionEncoding(space, statistics)
    rows = np.linspace(0, len(moments) - 1, min(len(moments), _ENCODED_SAMPLES)).astype(int)
    columns = np.concatenate([space.encode(moments.actions[i], moments.positions[i]) for i in rows])
    low, high = columns.min(0), columns.max(0)
    centre, spread = ((low + high) / 2, (high - low) / 2) if unit_range else (columns.mean(0), columns.std(0))
    return ActionEncoding(space, JointStatistics(centre, np.maximum(spread, _SMALLEST_DEVIATION)))


def chunk_padding(moments: TargetSamples) -> NDArray[np.bool_]:
    """Return the padding (N, K) of chunks; the last action of demos that end at rest continues, and is not padding."""
    _, number, count = np.unique(moments.episode, return_inverse=True, return_counts=True)
    rests = np.empty(len(moments), bool)
    for rows in np.split(np.argsort(number, kind="stable"), np.cumsum(count)[:-1]):
        last_commands = moments.actions[rows[-3:], 0]
        rests[rows] = np.ptp(last_commands, axis=0).max() < 1e-3
    return moments.padding & ~rests[:, None]
