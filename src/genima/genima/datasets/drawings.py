"""Samples for the diffusion agent: a tile, the same tile with the target spheres, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genima.checkpoint import DrawingSpec
from genima.datasets.demos import Demo
from genima.robot.model import RobotModel
from genima.targets import draw_targets
from genima.views.camera import Camera
from genima.views.tiling import tile, untile


class DrawingSample(NamedTuple):
    """One sample."""

    condition: Tensor  # (H, W, 3) uint8, the observation
    target: Tensor  # (H, W, 3) uint8, with spheres
    instruction: str


class DrawingDataset(torch.utils.data.Dataset[DrawingSample]):
    """Every moment of every demo."""

    def __init__(
        self, demos: Sequence[Demo], robot: RobotModel, cameras: Mapping[str, Camera], spec: DrawingSpec
    ) -> None:
        self._demos, self._robot, self._spec = demos, robot, spec
        self._cameras = {view: cameras[view].scaled(spec.view_size, spec.view_size) for view in spec.views}
        self._index = [(d, t) for d, demo in enumerate(demos) for t in range(len(demo))]

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> DrawingSample:
        d, t = self._index[i]
        demo = self._demos[d]
        condition = demo.tile(t)
        target, gripper_open = demo.target(t, self._spec.horizon)
        drawn = draw_tile(condition, self._cameras, self._robot, self._spec, target, gripper_open, demo.positions[t])
        return DrawingSample(torch.from_numpy(condition), torch.from_numpy(drawn), demo.instruction)


def draw_tile(
    observation: NDArray[np.uint8],
    cameras: Mapping[str, Camera],
    robot: RobotModel,
    spec: DrawingSpec,
    target: NDArray[np.floating],
    gripper_open: bool,
    current: NDArray[np.floating],
) -> NDArray[np.uint8]:
    """The true drawn target on a tile (H, W, 3); ``cameras`` are scaled to the tile's views."""
    drawn = {
        view: draw_targets(image, cameras[view], robot, spec.appearance, target, gripper_open, current)
        for view, image in untile(observation, spec.views).items()
    }
    return tile(drawn, spec.views)


def collate(samples: Sequence[DrawingSample]) -> tuple[Tensor, Tensor, list[str]]:
    """Stack samples to (B, H, W, 3) condition and target, and a list of instructions."""
    return (
        torch.stack([s.condition for s in samples]),
        torch.stack([s.target for s in samples]),
        [s.instruction for s in samples],
    )
