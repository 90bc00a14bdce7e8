"""GENIMA policy: a diffusion agent generates drawn targets, a controller predicts the action chunks to them.

Source: Shridhar, Lo, James, Generative Image as Action Models, 2024.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from genima.policy.registry import PolicyOptions
from genima.policy.spec import CONTROLLER, DIFFUSION_AGENT, PolicySpec, read_pair
from genima.types import ActionChunk, DrawnTarget, Joints, Observation

if TYPE_CHECKING:
    from genima.policy.controller import Controller
    from genima.policy.diffusion_agent.agent import DiffusionAgent


class TargetGenerator(Protocol):
    """Protocol of :class:`genima.policy.diffusion_agent.agent.DiffusionAgent`."""

    @property
    def spec(self) -> PolicySpec:
        """Specification of the checkpoint."""

    def generate(self, observation: Observation, seed: int, previous: DrawnTarget | None = None) -> DrawnTarget:
        """Generate the target K steps ahead; ``previous`` is the last drawn target of the task."""


class TargetFollower(Protocol):
    """Protocol of :class:`genima.policy.controller.Controller`."""

    def predict_chunk(self, drawn_target: DrawnTarget, joints: Joints) -> ActionChunk:
        """Predict the actions from ``joints`` to the drawn target."""


def load(options: PolicyOptions) -> GenimaPolicy:
    """Load both halves of a checkpoint folder.

    Raises:
        GenimaError: when loading fails, the halves differ in their specification, or the device is not available.
    """
    from genima.policy.diffusion_agent.compiled_pipeline import CompiledPipeline

    agent, controller = load_pair(options.checkpoint, options.device)
    agent.pipeline = CompiledPipeline(agent, options.sampling)
    return GenimaPolicy(agent, controller)


def load_pair(folder: str | Path | None, device: str = "cpu") -> tuple[DiffusionAgent, Controller]:
    """Load the diffusion agent and the controller of a checkpoint folder; None: the bundled ones.

    Raises:
        GenimaError: when loading fails, the halves differ in their specification, or the device is not available.
    """
    from genima.policy.controller import Controller  # here: PyTorch and diffusers take seconds
    from genima.policy.diffusion_agent.agent import DiffusionAgent

    _, folders = read_pair(folder)
    agent = DiffusionAgent.from_pretrained(folders[DIFFUSION_AGENT], device)
    return agent, Controller.from_pretrained(folders[CONTROLLER], device)


class GenimaPolicy:
    """Diffusion agent and controller in one process."""

    def __init__(self, diffusion_agent: TargetGenerator, controller: TargetFollower) -> None:
        self._diffusion_agent, self.controller = diffusion_agent, controller
        self._seed = 0
        self.drawn_target: DrawnTarget | None = None

    @property
    def spec(self) -> PolicySpec:
        """Common specification of both halves."""
        return self._diffusion_agent.spec

    def reset(self, seed: int = 0) -> None:
        """See :class:`genima.policy.base.Policy`; target i is generated with ``seed + i``."""
        self._seed, self.drawn_target = seed, None

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """See :class:`genima.policy.base.Policy`; ``drawn_target`` is the target of the chunk."""
        self.drawn_target = self._diffusion_agent.generate(observation, self._seed, self.drawn_target)
        self._seed += 1
        return self.controller.predict_chunk(self.drawn_target, observation.joints)
