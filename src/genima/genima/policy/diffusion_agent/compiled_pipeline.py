"""Fast generation of drawn targets on a device."""

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
    ExecutionError,
    execution_configs,
    remaining_configs,
)
from genima.policy.diffusion_agent.network_execution import DeviceNetworks, translate_device_errors
from genima.policy.diffusion_agent.sampling import sampling_schedule
from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima.policy.diffusion_agent.weight_layout import WeightLayout

_log = logging.getLogger(__name__)


class CompiledPipeline:
    """Generation with the first execution config that works; on a failure the next one is used.

    For one thread at a time.
    """

    def __init__(
        self,
        agent: DiffusionModel,
        options: SamplingOptions | None = None,
        configs: Sequence[ExecutionConfig] | None = None,
    ) -> None:
        """Args:
        agent: its networks change type and layout in place at the first target.
        options: of sampling; the checkpoint's if None.
        configs: execution configs in order of preference; those for the model's device if None.

        Raises:
            GenimaError: for an unsupported scheduler or options.
        """
        self._agent, self._options = agent, options or SamplingOptions()
        self._configs = list(configs or execution_configs(agent.device))
        self.steps = self._options.steps or agent.steps
        self._full_schedule = sampling_schedule(agent.scheduler, self.steps)
        self._partial_schedule = sampling_schedule(agent.scheduler, self.steps, self._options.strength)
        self._weights = WeightLayout()
        self._networks: DeviceNetworks | None = None

    @property
    def config(self) -> ExecutionConfig:
        """Config in use."""
        return self._configs[0]

    def warm_up(self) -> None:
        """Prepare the networks and generate once, which includes the compilation.

        Raises:
            GenimaError: as :meth:`generate_tiles`.
        """
        blank = torch.zeros(1, *self._agent.spec.tile_size, 3, dtype=torch.uint8)
        for previous in (None, blank):
            self.generate_tiles(blank, [""], torch.Generator(), previous)

    def generate_tiles(
        self, tiles: Tensor, instructions: Sequence[str], generator: torch.Generator, previous: Tensor | None = None
    ) -> Tensor:
        """Generate as ``DiffusionModel.generate_tiles`` does, up to the config's precision.

        Args:
            tiles: (B, H, W, 3) uint8 rgb.
            previous: recent drawn targets of the same views and instructions, in shape and type like ``tiles``; used
                with a strength below 1.

        Raises:
            GenimaError: when no config works, and when the device is lost.
        """
        texts = self._agent.texts(instructions)
        if self._options.strength == 1:
            previous = None
        steps = self._full_schedule if previous is None else self._partial_schedule
        noise = steps.sample_noise(self._agent.latent_shape(tiles), generator)
        while True:
            try:
                self._networks = self._networks or DeviceNetworks(
                    self._agent, self._weights, self.config, self._options
                )
                return self._networks.generate_tiles(tiles, texts, noise, steps, previous)
            except ExecutionError as error:
                cause, reason = error.cause, str(error)
            self._fall_back(cause, reason)  # after the except block: the error keeps the failed config's memory

    def _fall_back(self, cause: Cause, reason: str) -> None:
        """Change to the next usable config."""
        device, self._networks = self._agent.device, None
        remaining = remaining_configs(self._configs, cause)
        if not remaining:
            raise GenimaError(f"device {device}: no execution config works ({reason})")
        _log.warning("%s: failed (%s); continuing with %s", self.config, reason, remaining[0])
        self._configs = remaining
        if device.type == "cuda":
            gc.collect()
            # After a failed capture this may fail, too.
            with contextlib.suppress(ExecutionError), translate_device_errors(device):
                torch.cuda.empty_cache()
