"""Video policy: a video model predicts the next observations, and its hidden features condition a diffusion policy.

Source: Hu et al., Video Prediction Policy: A Generalist Robot Policy with Predictive Visual Representations, 2024. Here
the video model is a diffusion agent that draws the frames of all views in one picture, and the features are those of
one block, pooled as in the diffusion policy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from genima.errors import GenimaError
from genima.policy import spec as checkpoint
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.video import clip_features, feature_channels, require_features
from genima.policy.diffusion_policy import DiffusionPolicy
from genima.policy.names import VIDEO_POLICY
from genima.policy.precision import half_precision
from genima.policy.registry import PolicyOptions
from genima.policy.spec import VIDEO_MODEL, VIDEOS
from genima.policy.visuomotor.video import VideoNetwork


def load(options: PolicyOptions) -> VideoPolicy:
    """Load a checkpoint of ``./genima train video_policy``.

    Raises:
        GenimaError: when loading fails, the device is not available, or the sampler does not fit the checkpoint.
    """
    return VideoPolicy.from_options(options)


class VideoPolicy(DiffusionPolicy):
    """Diffusion policy on the features of a video model, which is to be set before use."""

    KIND = VIDEO_POLICY
    network: VideoNetwork
    _video_model: DiffusionAgent

    @property
    def video_model(self) -> DiffusionAgent:
        """Diffusion agent that draws videos; it is saved with the policy.

        Raises:
            GenimaError: when set to an agent that draws something else, or has other features or another
                specification.
        """
        return self._video_model

    @video_model.setter
    def video_model(self, agent: DiffusionAgent) -> None:
        config = self.network.config
        if agent.draws != VIDEOS:
            raise GenimaError(f"video model: draws {agent.draws}; take one that draws {VIDEOS}")
        self.spec.require_same(agent.spec, "the video policy", "its video model")
        require_features(agent, config.block, config.timestep)
        if feature_channels(agent, config.block) != config.channels:
            raise GenimaError(
                f"video model: features of {feature_channels(agent, config.block)} channels; the policy was trained "
                f"with {config.channels}"
            )
        self._video_model = agent

    def _load_parts(self, folder: Path, device: str) -> None:
        """See :class:`genima.policy.visuomotor.model.ChunkModel`."""
        self.video_model = DiffusionAgent.from_pretrained(folder / VIDEO_MODEL, device)

    def save_pretrained(self, folder: str | Path) -> None:
        """See :class:`genima.policy.visuomotor.model.ChunkModel`."""
        (Path(folder) / checkpoint.FILE).unlink(missing_ok=True)
        self.video_model.save_pretrained(Path(folder) / VIDEO_MODEL)
        super().save_pretrained(folder)

    def encode_images(self, images: Tensor, instructions: Sequence[str]) -> Tensor:
        """See :class:`genima.policy.visuomotor.model.ChunkModel`: features (B, FRAMES * views, C, h, w)."""
        config, device = self.network.config, self.video_model.device
        views = images.to(device).movedim(-1, -3).float() / 255
        # Training has a precision of its own.
        precision = half_precision(device) if torch.is_inference_mode_enabled() else contextlib.nullcontext()
        with precision:
            return clip_features(self.video_model, views, instructions, config.block, config.timestep)
