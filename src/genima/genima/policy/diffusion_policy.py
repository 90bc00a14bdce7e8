"""Diffusion policy on camera images: the baseline that denoises joint positions.

Sources: Chi et al., Diffusion Policy: Visuomotor Policy Learning via Action Diffusion, 2023; the GENIMA paper, table 5.
Objectives and samplers: :class:`genima.policy.visuomotor.chunk_sampler.ChunkSampler`.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.policy.chunk_sampling_options import ChunkSamplingOptions
from genima.policy.chunk_spread import chunk_spread
from genima.policy.names import DIFFUSION_POLICY
from genima.policy.registry import PolicyOptions
from genima.policy.spec import read_policy
from genima.policy.visuomotor.chunk_sampler import ChunkSampler
from genima.policy.visuomotor.diffusion import ChunkDenoiser
from genima.policy.visuomotor.policy import VisuomotorPolicy
from genima.policy.visuomotor.real_time_chunking import Prefix, prefix_weights
from genima.types import ActionChunk, Image, Observation

_INSTANT = 1e-6  # s: times that differ by less are the same


def load(options: PolicyOptions) -> DiffusionPolicy:
    """Load a checkpoint of ``./genima train diffusion_policy``.

    Raises:
        GenimaError: when loading fails, the device is not available, or the sampler does not fit the checkpoint.
    """
    return DiffusionPolicy.from_options(options)


class DiffusionPolicy(VisuomotorPolicy):
    """Diffusion network on camera images.

    ``spread`` is that of the last chunk's samples in mm (:func:`chunk_spread`); None with one sample.
    """

    KIND = DIFFUSION_POLICY
    network: ChunkDenoiser

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """See :class:`genima.policy.visuomotor.model.ChunkModel`."""
        super().__init__(*arguments, **options)
        self.spread: float | None = None
        self._generator = torch.Generator().manual_seed(0)
        self._last: ActionChunk | None = None
        self._instruction = ""
        self.sampling = ChunkSamplingOptions()

    @classmethod
    def from_options(cls, options: PolicyOptions) -> Self:
        """Load the checkpoint of the options; see :func:`load`."""
        policy = cls.from_pretrained(read_policy(cls.KIND, options.checkpoint).folders[cls.KIND], options.device)
        policy.sampling = options.chunk_sampling
        return policy

    @property
    def sampling(self) -> ChunkSamplingOptions:
        """Sampling options.

        Raises:
            GenimaError: when set to a sampler, a number of steps or real-time chunking that does not fit the network.
        """
        return self._sampling

    @sampling.setter
    def sampling(self, options: ChunkSamplingOptions) -> None:
        objective, name = self.network.config.objective, options.sampler.replace("usual", "")
        self._sampler = ChunkSampler.fitting(objective, name, options.sampler_steps)
        if options.real_time_chunking and not self.network.objective.PREFIX:
            raise GenimaError(f"real-time chunking: does not fit a network trained with {objective}; leave it out")
        self._sampling = options

    def reset(self, seed: int = 0) -> None:
        """See :class:`genima.policy.base.Policy`."""
        self._generator.manual_seed(seed)
        self._last, self.spread = None, None

    def _predict(self, views: Image, observation: Observation) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """See :class:`VisuomotorPolicy`; the last chunk of the task is where a warm start and a prefix come from.

        Raises:
            GenimaError: for samples that differ too much.
        """
        previous, prefix = self._previous(observation)
        sample = functools.partial(
            self.network.sample,
            sampler=self._sampler,
            generator=self._generator,
            previous=previous,
            prefix=prefix if self._sampling.real_time_chunking else None,
            samples=self._sampling.samples,
        )
        positions, gripper = self.predict_samples(views, observation.instruction, observation.joints, sample)
        self.spread = chunk_spread(self.robot, positions) if len(positions) > 1 else None
        limit = self._sampling.max_spread
        if limit and self.spread is not None and self.spread > limit:
            count = len(positions)
            raise GenimaError(
                f"diffusion policy: {count} samples differ by {self.spread:.0f} mm (limit {limit:g} mm); holding"
            )
        self._last = ActionChunk(observation.stamp, 1 / self.spec.action_rate, positions[0], gripper[0])
        self._instruction = observation.instruction
        return positions[0], gripper[0]

    def _previous(self, observation: Observation) -> tuple[torch.Tensor | None, Prefix | None]:
        """Return the last chunk (1, K, n + 1) at the times of the next one's actions, and the prefix that it gives.

        After its end the last action continues. None where there is no last chunk, it is over, or of another task.
        """
        last, horizon, period = self._last, self.spec.horizon, 1 / self.spec.action_rate
        if last is None or observation.instruction != self._instruction:
            return None, None
        elapsed = observation.stamp - last.stamp
        overlap = horizon - math.ceil((elapsed - _INSTANT) / period)
        if elapsed < 0 or overlap <= 0:
            return None, None
        due = observation.stamp + period * np.arange(1, horizon + 1)
        positions = np.column_stack([np.interp(due, last.due, column) for column in last.positions.T])
        encoded = self.encoding.encode(positions, observation.joints.positions)
        actions = np.column_stack([encoded, np.interp(due, last.due, last.gripper)])
        resampled = torch.from_numpy(actions).float()[None].to(self.device)
        delay = min(math.ceil((observation.latency - _INSTANT) / period), overlap)
        return resampled, Prefix(resampled, prefix_weights(horizon, max(delay, 0), overlap).to(self.device))
