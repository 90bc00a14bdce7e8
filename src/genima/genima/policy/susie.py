"""SuSIE: a diffusion agent generates the image of a goal, and a controller acts from the current image to it.

Source: Black et al., Zero-Shot Robotic Manipulation with Pretrained Image-Editing Diffusion Models, 2023. As in the
GENIMA paper (section 3, tables 3 and 4) the goal is the tile of all views K steps ahead, and agent and controller have
GENIMA's networks: the two policies differ only in what is drawn.
"""

from __future__ import annotations

import numpy as np

from genima.cameras.tiling import untile
from genima.policy import spec as checkpoint
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.names import SUSIE
from genima.policy.observed_views import ObservedViews
from genima.policy.registry import PolicyOptions
from genima.policy.spec import DIFFUSION_AGENT, GOAL_CONTROLLER, PolicySpec, read_policy
from genima.policy.visuomotor.model import ChunkModel
from genima.types import ActionChunk, DrawnTarget, Observation


def load(options: PolicyOptions) -> SusiePolicy:
    """Load both halves of a checkpoint folder of ``./genima train susie``.

    Raises:
        GenimaError: when loading fails, the halves differ in their specification, or the device is not available.
    """
    from genima.policy.diffusion_agent.compiled_pipeline import CompiledPipeline

    folders = read_policy(SUSIE, options.checkpoint).folders
    agent = DiffusionAgent.from_pretrained(folders[DIFFUSION_AGENT], options.device)
    agent.pipeline = CompiledPipeline(agent, options.sampling)
    return SusiePolicy(agent, GoalController.from_pretrained(folders[GOAL_CONTROLLER], options.device))


class GoalController(ChunkModel):
    """Second half of SuSIE: predicts action chunks from the images of the goal and of now."""

    KIND = checkpoint.GOAL_CONTROLLER
    IMAGES = 2


class SusiePolicy:
    """Diffusion agent and goal controller in one process."""

    def __init__(self, diffusion_agent: DiffusionAgent, controller: GoalController) -> None:
        self._diffusion_agent, self._controller = diffusion_agent, controller
        self._observed_views = ObservedViews(diffusion_agent.robot)
        self._seed = 0
        self.goal: DrawnTarget | None = None

    @property
    def spec(self) -> PolicySpec:
        """Common specification of both halves."""
        return self._diffusion_agent.spec

    def reset(self, seed: int = 0) -> None:
        """See :class:`genima.policy.base.Policy`; goal i is generated with ``seed + i``."""
        self._seed, self.goal = seed, None

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """See :class:`genima.policy.base.Policy`; ``goal`` is the goal of the chunk."""
        spec = self.spec
        self.goal = self._diffusion_agent.generate(observation, self._seed, self.goal)
        self._seed += 1
        views = [*untile(self.goal.tile, spec.views).values(), *self._observed_views(observation, spec).values()]
        actions = self._controller.predict_actions(np.stack(views), observation.instruction, observation.joints)
        return ActionChunk(observation.stamp, 1 / spec.action_rate, *actions)
