"""Linear autoencoder for small models: principal components of 8x8 patches, fitted in seconds."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F


class _ExactLatents:
    """Deterministic latents with the interface of diffusers' DiagonalGaussianDistribution."""

    def __init__(self, latents: Tensor) -> None:
        self._latents = latents

    def mode(self) -> Tensor:
        return self._latents

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self._latents


class PatchCodec(ModelMixin, ConfigMixin):
    """Patch autoencoder: images (B, 3, H, W) in -1..1 to latents (B, channels, H/8, W/8), as AutoencoderKL."""

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 48,
        scaling_factor: float = 1.0,
        block_out_channels: tuple[int, ...] = (1, 1, 1, 1),  # pipelines derive the factor 8 from its length
        force_upcast: bool = False,
    ) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(3 * 64), requires_grad=False)
        self.to_latents = nn.Parameter(torch.zeros(latent_channels, 3 * 64), requires_grad=False)
        self.to_patches = nn.Parameter(torch.zeros(3 * 64, latent_channels), requires_grad=False)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Fit to images (B, 3, H, W) in -1..1."""
        patches = F.pixel_unshuffle(images, 8).permute(0, 2, 3, 1).reshape(-1, 3 * 64).double()
        self.mean.copy_(patches.mean(0))
        centred = patches - patches.mean(0)
        variances, components = torch.linalg.eigh(centred.T @ centred / len(patches))
        order = variances.argsort(descending=True)[: self.config.latent_channels]
        deviations, components = variances[order].clamp(min=1e-12).sqrt(), components.T[order]
        # One common scale keeps the errors of latents and pixels equal; the mean variance becomes 1.
        scale = deviations.square().mean().sqrt().expand_as(deviations)
        self.to_latents.copy_(components / scale[:, None])
        self.to_patches.copy_(components.T * scale[None, :])

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """Encode images in -1..1 to latents."""
        patches = F.pixel_unshuffle(x, 8) - self.mean.to(x.dtype)[:, None, None]
        with torch.autocast(x.device.type, enabled=False):  # targets of training are not rounded
            latents = _ExactLatents(F.conv2d(patches, self.to_latents.to(x.dtype)[:, :, None, None]))
        return AutoencoderKLOutput(latent_dist=latents) if return_dict else (latents,)

    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[Tensor]:
        """Decode latents to images, about -1..1."""
        patches = F.conv2d(z, self.to_patches.to(z.dtype)[:, :, None, None]) + self.mean.to(z.dtype)[:, None, None]
        images = F.pixel_shuffle(patches, 8)
        return DecoderOutput(sample=images) if return_dict else (images,)
