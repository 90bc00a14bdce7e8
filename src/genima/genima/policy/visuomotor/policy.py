"""Policies that predict chunks from the camera images themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from genima.errors import GenimaError
from genima.policy.observed_views import ObservedViews
from genima.policy.visuomotor.model import ChunkModel
from genima.types import ActionChunk, Observation


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
        actions = self.predict_actions(views, observation.instruction, observation.joints)
        return ActionChunk(observation.stamp, 1 / self.spec.action_rate, *actions)
