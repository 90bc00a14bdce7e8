"""Samples for the controller: spheres on random backgrounds, measured joints, and the chunk that leads to them.

The controller never sees a scene. Its images are made here from joint positions alone, so their number has no end:
every time a moment of a demo is drawn, start and target are displaced anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genima.checkpoint import DrawingSpec
from genima.controller.controller import JointStatistics
from genima.datasets.backgrounds import random_background
from genima.datasets.demos import Demo
from genima.motion import minimum_jerk
from genima.observation import Image
from genima.robot.model import RobotModel
from genima.targets import draw_targets
from genima.views.camera import Camera


@dataclass(frozen=True)
class Perturbation:
    """How far samples stray from the demos; standard deviations in rad."""

    start: float = 0.03  # of the measured joints: the arm is never quite on the demos' path
    target: float = 0.03  # of the drawn joints: targets between and beyond the demos'
    far: float = 0.25  # of start and target in a share of the samples: anywhere (GENIMA paper, appendix J)
    far_share: float = 0.15
    drawing: float = 0.015  # of each view's drawing on its own: views never agree exactly
    opacity: tuple[float, float] = (0.7, 1.0)  # of the spheres


class ChunkSample(NamedTuple):
    """One sample."""

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


class ChunkDataset(torch.utils.data.Dataset[ChunkSample]):
    """Every moment of every demo, stride 1, with padding past the end; randomness follows (seed, visit, index)."""

    def __init__(
        self,
        demos: Sequence[Demo],
        robot: RobotModel,
        cameras: Mapping[str, Camera],
        spec: DrawingSpec,
        statistics: JointStatistics,
        perturbation: Perturbation | None,
        seed: int = 0,
    ) -> None:
        """``perturbation`` None leaves joints as recorded and backgrounds random, for validation."""
        self._demos, self._robot, self._spec, self._statistics = demos, robot, spec, statistics
        self._perturbation, self._seed, self._visits = perturbation, seed, 0
        self._cameras = [cameras[view].scaled(spec.view_size, spec.view_size) for view in spec.views]
        self._index = [(d, t) for d, demo in enumerate(demos) for t in range(len(demo))]

    def __len__(self) -> int:
        return len(self._index)

    def skip(self, visits: int) -> None:
        """Go on with the randomness as if ``visits`` samples had been taken: a resumed training sees new ones."""
        self._visits = visits

    def __getitem__(self, i: int) -> ChunkSample:
        self._visits += 1
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self._seed, i, self._visits, worker.id + 1 if worker else 0])
        d, t = self._index[i]
        demo, K = self._demos[d], self._spec.horizon
        steps = np.minimum(np.arange(t, t + K), len(demo) - 1)  # the action given right after moment t is a_{t+1}
        start, actions, gripper = demo.positions[t], demo.command_positions[steps], demo.command_gripper[steps]
        target, gripper_open = demo.target(t, K)
        if self._perturbation:
            shift = self._displacements(rng, len(start))
            lower, upper = self._robot.position_min, self._robot.position_max
            blend = minimum_jerk(np.arange(1, K + 1) / K)[:, None]
            start, target = np.clip([start + shift[0], target + shift[1]], lower, upper)
            actions = np.clip(actions + (1 - blend) * shift[0] + blend * shift[1], lower, upper)
        images = np.stack([self._draw(rng, camera, target, gripper_open, start) for camera in self._cameras])
        normalise = self._statistics.normalise
        return ChunkSample(
            torch.from_numpy(images),
            torch.from_numpy(np.append(normalise(start), demo.gripper[t])).float(),
            torch.from_numpy(np.column_stack([normalise(actions), gripper > 0.5])).float(),
            torch.from_numpy((np.arange(t, t + K) >= len(demo)) & (not _ends_at_rest(demo))),
            demo.instruction,
        )

    def _displacements(self, rng: np.random.Generator, joints: int) -> NDArray[np.float64]:
        p = self._perturbation
        assert p is not None
        sigma = [p.far, p.far] if rng.random() < p.far_share else [p.start, p.target]
        return rng.normal(0, 1, (2, joints)) * np.array(sigma)[:, None] * rng.uniform(0, 1, (2, 1))

    def _draw(
        self,
        rng: np.random.Generator,
        camera: Camera,
        target: NDArray[np.float64],
        gripper_open: bool,
        start: NDArray[np.float64],
    ) -> Image:
        background = random_background(rng, self._spec.view_size)
        p = self._perturbation or Perturbation(drawing=0.0, opacity=(1.0, 1.0))
        seen = target + rng.normal(0, p.drawing, len(target))
        drawn = draw_targets(
            background, camera, self._robot, self._spec.appearance, seen, gripper_open, start, rng.uniform(*p.opacity)
        )
        return augment(rng, drawn) if self._perturbation else drawn


def augment(rng: np.random.Generator, image: Image) -> Image:
    """What drawings suffer: frayed edges, blur, colour shifts and noise, each half of the time.

    Source: GENIMA paper, appendix E, with stronger blur: a diffusion model is sure of a sphere's place before it is
    sure of its stripes.
    """
    pixels: NDArray[Any] = image.astype(np.float32)
    size = image.shape[0]
    if rng.random() < 0.5:
        cells = int(rng.integers(8, 33))
        shift = cv2.resize(rng.normal(0, rng.uniform(0.3, 1.5), (cells, cells, 2)).astype(np.float32), (size, size))
        x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
        pixels = cv2.remap(
            pixels, x + shift[..., 0], y + shift[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
    if rng.random() < 0.5:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.3, 2.5))
    if rng.random() < 0.5:
        gain, offset = rng.uniform(0.75, 1.25, 3), rng.uniform(-20, 20, 3)
        pixels = pixels * gain.astype(np.float32) + offset.astype(np.float32)
    if rng.random() < 0.5:
        grain = int(rng.integers(1, 4))  # px: decoders leave blotches rather than single pixels
        noise = rng.normal(0, rng.uniform(3, 25), (size // grain + 1, size // grain + 1, 3)).astype(np.float32)
        pixels = pixels + cv2.resize(noise, (size, size))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def collate(samples: Sequence[ChunkSample]) -> ChunkBatch:
    """Stack samples."""
    images, proprioception, actions, padding, instructions = zip(*samples, strict=True)
    stacked = (torch.stack(images), torch.stack(proprioception), torch.stack(actions), torch.stack(padding))
    return ChunkBatch(*stacked, list(instructions))


def joint_statistics(demos: Sequence[Demo], floor: float = 0.05) -> JointStatistics:
    """Of all commanded positions; a joint that hardly moves is not blown up beyond ``floor`` rad."""
    positions = np.concatenate([demo.command_positions for demo in demos])
    return JointStatistics(positions.mean(0), np.maximum(positions.std(0), floor))


def _ends_at_rest(demo: Demo) -> bool:
    """A demo that ends at rest goes on resting: its held last action is no padding but what to do."""
    return bool(np.ptp(demo.command_positions[-3:], axis=0).max() < 1e-3)
