"""Draws what an agent draws, as fast as its device can."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from genima.errors import GenimaError
from genima.policy.diffusion_agent.diffusion_model import DiffusionModel
from genima.policy.diffusion_agent.execution_config import (
    Cause,
    ExecutionConfig,
    ExecutionFailed,
    execution_configs,
    remaining_configs,
)
from genima.policy.diffusion_agent.network_execution import DeviceNetworks, translate_device_errors
from genima.policy.diffusion_agent.sampling import sampling
from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima.policy.diffusion_agent.weight_layout import WeightLayout

_log = logging.getLogger(__name__)


class CompiledPipeline:
    """Draws by the first of its plans that works, and goes on to the next, saying so, when one does not.

    It makes one drawing at a time.
    """

    def __init__(
        self,
        agent: DiffusionModel,
        shortcuts: SamplingOptions | None = None,
        tried: Sequence[ExecutionConfig] | None = None,
    ) -> None:
        """Args:
        agent: its networks change type and layout in place with the first drawing.
        shortcuts: none if None.
        tried: plans in the order in which they are tried; those for the agent's device if None.

        Raises:
            GenimaError: for a scheduler or shortcuts that cannot be used.
        """
        self._agent, self._shortcuts = agent, shortcuts or SamplingOptions()
        self._plans = list(tried or execution_configs(agent.device))
        self.steps = self._shortcuts.steps or agent.steps
        self._fresh = sampling(agent.scheduler, self.steps)
        self._warm = sampling(agent.scheduler, self.steps, self._shortcuts.strength)
        self._weights = WeightLayout()
        self._prepared: DeviceNetworks | None = None

    @property
    def plan(self) -> ExecutionConfig:
        """The one in force."""
        return self._plans[0]

    def warm_up(self) -> None:
        """Prepare the networks and draw once: what takes long, compilers above all, happens here.

        Raises:
            GenimaError: as :meth:`draw`.
        """
        side = 2 * self._agent.spec.view_size
        blank = torch.zeros(1, side, side, 3, dtype=torch.uint8)
        for former in (None, blank):
            self.draw(blank, [""], torch.Generator(), former)

    def draw(
        self, tiles: Tensor, instructions: Sequence[str], generator: torch.Generator, former: Tensor | None = None
    ) -> Tensor:
        """As ``DiffusionModel.draw_pixels``, which it agrees with up to its plan's precision.

        Args:
            tiles: (B, H, W, 3) uint8 rgb.
            former: drawings of the same views and instructions a moment ago, in shape and type like ``tiles``; they
                only count with a strength below 1.

        Raises:
            GenimaError: when no plan works, and when the device is gone.
        """
        texts = self._agent.texts(instructions)
        if self._shortcuts.strength == 1:
            former = None
        steps = self._fresh if former is None else self._warm
        noise = steps.sample_noise(self._agent.latent_shape(tiles), generator)
        while True:
            try:
                self._prepared = self._prepared or DeviceNetworks(
                    self._agent, self._weights, self.plan, self._shortcuts
                )
                return self._prepared.draw(tiles, texts, noise, steps, former)
            except ExecutionFailed as error:
                cause, reason = error.cause, str(error)
            self._go_on(cause, reason)  # not above: the error holds what the failed plan has in memory

    def _go_on(self, cause: Cause, reason: str) -> None:
        """To the next plan that may work."""
        device, self._prepared = self._agent.device, None
        left = remaining_configs(self._plans, cause)
        if not left:
            raise GenimaError(f"cannot draw on {device}: {reason}")
        _log.warning("drawing with %s fails: %s; going on with %s", self.plan, reason, left[0])
        self._plans = left
        if device.type == "cuda":
            gc.collect()
            with (
                contextlib.suppress(ExecutionFailed),
                translate_device_errors(device),
            ):  # a failed capture may not let go yet
                torch.cuda.empty_cache()
