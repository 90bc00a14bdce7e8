"""GENIMA: a diffusion agent draws joint targets on the views, a controller follows what is drawn.

Source: Shridhar, Lo, James, Generative Image as Action Models, 2024.
"""

from __future__ import annotations

from typing import Protocol

from genima.policy.spec import PolicySpec
from genima.types import ActionChunk, DrawnTarget, Joints, Observation


class TargetGenerator(Protocol):
    """The first half; :class:`genima.policy.diffusion_agent.agent.DiffusionAgent` is one."""

    @property
    def spec(self) -> PolicySpec:
        """What it was trained for."""

    def generate(self, observation: Observation, seed: int, previous: DrawnTarget | None = None) -> DrawnTarget:
        """Draw where the joints should be K steps from now; ``previous`` is the last drawn target of the episode."""


class TargetFollower(Protocol):
    """The second half; :class:`genima.policy.controller.controller.Controller` is one."""

    def predict_chunk(self, drawn_target: DrawnTarget, joints: Joints) -> ActionChunk:
        """Predict the actions that lead from ``joints`` to the drawn target."""


class GenimaPolicy:
    """Both halves in one process."""

    def __init__(self, diffusion_agent: TargetGenerator, controller: TargetFollower) -> None:
        self._diffusion_agent, self._controller = diffusion_agent, controller
        self._seed = 0
        self.drawn_target: DrawnTarget | None = None

    @property
    def spec(self) -> PolicySpec:
        """What both halves were trained for."""
        return self._diffusion_agent.spec

    def reset(self, seed: int = 0) -> None:
        """See :class:`genima.policy.base.Policy`; target i is drawn with ``seed + i``."""
        self._seed, self.drawn_target = seed, None

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """See :class:`genima.policy.base.Policy`; ``drawn_target`` then is what the chunk leads to."""
        self.drawn_target = self._diffusion_agent.generate(observation, self._seed, self.drawn_target)
        self._seed += 1
        return self._controller.predict_chunk(self.drawn_target, observation.joints)
