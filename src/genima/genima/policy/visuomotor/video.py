"""Action head of the policy ``video_policy``: denoises chunks conditioned on the features of a video model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers import CLIPTextModel

from genima.policy.visuomotor.diffusion import ChunkDenoiser, DenoiserConfig


@dataclass(frozen=True)
class VideoConfig(DenoiserConfig):
    """Sizes, and which features of the video model: see :func:`genima.policy.diffusion_agent.video.clip_features`."""

    frames: int = 4
    block: int = 2
    timestep: int = 999
    channels: int = 1280


class VideoNetwork(ChunkDenoiser):
    """Network that takes feature maps (B, frames * views, channels, h, w) in place of images."""

    config: VideoConfig

    def __init__(self, config: VideoConfig, text_encoder: CLIPTextModel) -> None:
        """See :class:`ChunkDenoiser`."""
        super().__init__(config, text_encoder, config.frames * config.views, config.channels)

    def extract_features(self, images: Tensor, text: Tensor) -> Tensor:
        """See :meth:`ChunkDenoiser.extract_features`: the maps themselves."""
        return images.flatten(0, 1)
