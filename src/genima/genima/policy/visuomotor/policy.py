"""Policies that predict chunks from the camera images themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.policy.observed_views import ObservedViews
from genima.policy.visuomotor.model import ChunkModel
from genima.types import ActionChunk, Image, Observation


class VisuomotorPolicy(ChunkModel):
    """Policy of one network: images, measured joints and instruction to an action chunk."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """See :class:`ChunkModel`."""
        super().__init__(*arguments, **options)
        self._observed_views = ObservedViews(self.robot)

    def reset(self, seed: int = 0) -> None:
        """See :class:`genima.policy.base.Policy`; the policy is deterministic."""

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """See :class:`genima.policy.base.Policy`."""
        if not observation.instruction.strip():
            raise GenimaError("instruction: empty; publish a task")
        views = np.stack(list(self._observed_views(observation, self.spec).values()))
        return ActionChunk(observation.stamp, 1 / self.spec.action_rate, *self._predict(views, observation))

    def _predict(self, views: Image, observation: Observation) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return positions (K, n) rad and gripper (K,) for the images (V, s, s, 3) of an observation."""
        return self.predict_actions(views, observation.instruction, observation.joints)
