"""Controller samples: spheres on random backgrounds, measured joints, and the action chunk.

The controller is trained without scene images: they are generated from joint positions alone, so every sample has a new
background and, with a perturbation, another start and target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from genima.cameras.camera import Camera
from genima.control.jerk_limited_motion import minimum_jerk
from genima.data.datasets.augmentation import Augmentation
from genima.data.datasets.backgrounds import Backgrounds
from genima.data.datasets.chunk_samples import ChunkSample, chunk_padding, chunk_sample
from genima.data.datasets.sample_index import SampleIndex, TargetSamples
from genima.policy.spec import PolicySpec
from genima.policy.visuomotor.action_space import ActionEncoding, JointStatistics
from genima.robot.model import RobotModel
from genima.targets import draw_targets
from genima.types import Image


@dataclass(frozen=True)
class Perturbation:
    """Standard deviations of the samples' distance from the demos, in rad."""

    start: float = 0.03  # rad, of the measured joints: the arm deviates from the demos' path
    target: float = 0.03  # rad, of the target joints: targets between and beyond the demos'
    far: float = 0.25  # of start and target in a share of the samples: anywhere (GENIMA paper, appendix J)
    far_share: float = 0.15
    view: float = 0.015  # rad, of each view separately: generated views never agree exactly


class ControllerDataset(torch.utils.data.Dataset[ChunkSample]):
    """Controller samples indexed by :class:`SampleIndex`; their randomness follows from (seed, SampleIndex.sample)."""

    def __init__(
        self,
        moments: TargetSamples,
        robot: RobotModel,
        cameras: Mapping[str, Camera],
        spec: PolicySpec,
        statistics: JointStatistics,
        backgrounds: Backgrounds,
        perturbation: Perturbation | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        encoding: ActionEncoding | None = None,
        scenes: Callable[[int], Mapping[str, Image]] | None = None,
    ) -> None:
        """Args:
        moments: samples of demos.
        robot: of the samples.
        cameras: as calibrated, by view.
        spec: of the controller.
        statistics: normalise joints.
        backgrounds: of the spheres.
        perturbation: of starts and targets; None: joints are as recorded.
        augmentation: of the images; None: targets are clean and opaque.
        seed: of all randomness.
        encoding: of the actions; None: joint positions.
        scenes: camera images of a sample by view, (view_size, view_size, 3): draws the spheres on them in place of
            the backgrounds.
        """
        self._scenes = scenes
        self._moments, self._robot, self._spec, self._statistics = moments, robot, spec, statistics
        self._backgrounds, self._perturbation, self._augmentation = backgrounds, perturbation, augmentation
        self._seed, self._encoding = seed, encoding
        self._cameras = [cameras[view].crop_square(spec.view_size) for view in spec.views]
        self._padding = chunk_padding(moments)

    def __len__(self) -> int:
        return len(self._moments)

    def __getitem__(self, index: SampleIndex) -> ChunkSample:
        rng = np.random.default_rng([self._seed, index.sample])
        moments, i = self._moments, index.moment
        start, target, actions = moments.positions[i], moments.target[i], moments.actions[i]
        if self._perturbation:
            shift = self._displacements(rng, self._perturbation)
            lower, upper = self._robot.position_min, self._robot.position_max
            blend = minimum_jerk(np.arange(1, len(actions) + 1) / len(actions))[:, None]
            start, target = np.clip([start + shift[0], target + shift[1]], lower, upper)
            actions = np.clip(actions + (1 - blend) * shift[0] + blend * shift[1], lower, upper)
        gripper_open = bool(moments.target_open[i])
        scenes = self._scenes(i) if self._scenes else {}
        images = np.stack(
            [
                self._draw(rng, camera, target, gripper_open, start, scenes.get(view))
                for view, camera in zip(self._spec.views, self._cameras, strict=True)
            ]
        )
        return chunk_sample(moments, i, self._statistics, self._padding, images, start, actions, self._encoding)

    def _displacements(self, rng: np.random.Generator, p: Perturbation) -> NDArray[np.float64]:
        """Return the displacements (2, n) rad of start and target."""
        sigma = [p.far, p.far] if rng.random() < p.far_share else [p.start, p.target]
        n = len(self._robot.joint_names)
        return rng.normal(0, 1, (2, n)) * np.array(sigma)[:, None] * rng.uniform(0, 1, (2, 1))

    def _draw(
        self,
        rng: np.random.Generator,
        camera: Camera,
        target: NDArray[np.float64],
        gripper_open: bool,
        start: NDArray[np.float64],
        scene: Image | None,
    ) -> Image:
        if self._perturbation:
            target = target + rng.normal(0, self._perturbation.view, len(target))
        opacity = rng.uniform(*self._augmentation.opacity) if self._augmentation else 1.0
        background = self._backgrounds(rng, self._spec.view_size) if scene is None else scene
        image = draw_targets(
            background, camera, self._robot, self._spec.appearance, target, gripper_open, start, opacity
        )
        return self._augmentation(rng, image) if self._augmentation else image
