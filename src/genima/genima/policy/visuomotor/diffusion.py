"""Diffusion policy (Chi et al., Diffusion Policy: Visuomotor Policy Learning via Action Diffusion, 2023).

The image encoder is shared by all views and modulated by the text, as in :mod:`genima.policy.visuomotor.act`; a spatial
softmax pools its features (Levine et al., End-to-End Training of Deep Visuomotor Policies, 2016). The gripper is
denoised with the joints.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn
from transformers import CLIPTextModel

from genima.errors import GenimaError
from genima.policy.precision import half_precision
from genima.policy.visuomotor.backbone import SMALL_BACKBONE, BackboneConfig, FilmResNet
from genima.policy.visuomotor.chunk_sampler import ChunkSampler, NoiseSource, find_objective
from genima.policy.visuomotor.network import ChunkConfig, ChunkNetwork, ChunkPrediction
from genima.policy.visuomotor.noise_unet import NoiseUNet
from genima.policy.visuomotor.objectives import Truncated
from genima.policy.visuomotor.real_time_chunking import Prefix


@dataclass(frozen=True)
class DenoiserConfig(ChunkConfig):
    """Sizes of a network that denoises chunks.

    The defaults are the paper's (table 5) and, where it names none, Diffusion Policy's.
    """

    horizon: int = 16
    objective: str = "ddpm"  # a name in OBJECTIVES
    unet_widths: tuple[int, ...] = (512, 1024, 2048)
    kernel: int = 5
    time_width: int = 128
    keypoints: int = 32  # of the spatial softmax, in each view
    anchors: int = 20  # of ``truncated``
    gripper_scale: float = 1.0  # value of an open gripper; RTI-DP's 0.1 lets a warm start change the last decision

    @classmethod
    def small(
        cls,
        horizon: int,
        joints: int = 7,
        views: int = 4,
        action_size: int | None = None,
        objective: str = "ddpm",
        **sizes: Any,
    ) -> Self:
        """Return sizes that train from scratch on a CPU."""
        small: dict[str, Any] = {
            "joints": joints,
            "action_size": action_size or joints,
            "horizon": horizon,
            "views": views,
            "objective": objective,
            "gripper_scale": 0.1 if "warm_start" in find_objective(objective).SAMPLERS else 1.0,
            "unet_widths": (64, 128, 256),
            "time_width": 64,
            "anchors": 8,
        }
        return cls(**(small | sizes))


@dataclass(frozen=True)
class DiffusionConfig(DenoiserConfig, BackboneConfig):
    """Sizes, with those of the image encoder."""

    @classmethod
    def small(cls, *arguments: Any, **sizes: Any) -> Self:
        """See :meth:`DenoiserConfig.small`."""
        return super().small(*arguments, **(SMALL_BACKBONE | sizes))


class SpatialSoftmax(nn.Module):
    """Mean image positions of learned features."""

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(channels, keypoints, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x and y in [-1, 1] (N, 2 * keypoints) of features (N, channels, h, w)."""
        x = self.features(x)
        h, w = x.shape[-2:]
        weights = x.flatten(2).softmax(-1).unflatten(-1, (h, w))
        columns, rows = (torch.linspace(-1, 1, n, device=x.device) for n in (w, h))
        return torch.cat([weights.sum(2) @ columns, weights.sum(3) @ rows], dim=1)


class ChunkDenoiser(ChunkNetwork):
    """Network that denoises chunks conditioned on feature maps, measured joints and text.

    ``sampler`` is used where no other is named: the one of the objective's source.
    """

    UNIT_RANGE = True
    config: DenoiserConfig
    anchors: Tensor

    def __init__(self, config: DenoiserConfig, text_encoder: CLIPTextModel, maps: int, channels: int) -> None:
        """Args:
        config: sizes.
        text_encoder: of the instruction.
        maps: number of feature maps of an observation.
        channels: of a map.

        Raises:
            GenimaError: for an unknown objective.
        """
        super().__init__()
        if config.kernel % 2 == 0:
            raise GenimaError(f"diffusion network: kernel {config.kernel}; take an odd one")
        self.config, text_width = config, text_encoder.config.hidden_size
        self.objective = find_objective(config.objective)()
        self.sampler = ChunkSampler.fitting(config.objective)
        self.text_encoder = text_encoder
        self.pool = SpatialSoftmax(channels, config.keypoints)
        width = config.action_size + 1
        self.unet = NoiseUNet(
            width,
            width + self.objective.SCORES,
            2 * config.keypoints * maps + config.joints + 1 + text_width,
            config.unet_widths,
            config.kernel,
            self.objective.TIMES,
            config.time_width,
            self.objective.TIME_SCALE,
        )
        if isinstance(self.objective, Truncated):
            self.register_buffer("anchors", torch.zeros(config.anchors, config.horizon, width))

    def fit(self, actions: Tensor) -> None:
        """Set the anchors of the objective ``truncated`` to the k-means of training chunks (N, K, joints + 1).

        Raises:
            GenimaError: for fewer chunks than anchors.
        """
        if not isinstance(self.objective, Truncated):
            return
        count = self.config.anchors
        if len(actions) < count:
            raise GenimaError(f"diffusion network: {len(actions)} chunks for {count} anchors; take fewer anchors")
        chunks = self._scale(actions).flatten(1).double().cpu().numpy()
        centres, _ = kmeans2(chunks, count, minit="++", seed=np.random.default_rng(0))
        self.anchors.copy_(torch.from_numpy(centres).unflatten(1, actions.shape[1:]))

    def losses(
        self, images: Tensor, proprioception: Tensor, text: Tensor, actions: Tensor, padding: Tensor
    ) -> dict[str, Tensor]:
        """See :meth:`ChunkNetwork.losses`.

        Raises:
            GenimaError: for the objective ``truncated`` without anchors.
        """
        condition = self.condition(self.extract_features(images, text), proprioception, text)
        anchors = self._anchors()
        if anchors is not None:
            condition = condition.repeat_interleave(len(anchors), 0)
        real = (~padding).to(actions.dtype)
        return self.objective.losses(
            lambda noisy, *times: self.unet(noisy, condition, *times), self._scale(actions), real, anchors
        )

    def sample(
        self,
        images: Tensor,
        proprioception: Tensor,
        text: Tensor,
        *,
        sampler: ChunkSampler | None = None,
        generator: torch.Generator | None = None,
        previous: Tensor | None = None,
        prefix: Prefix | None = None,
        samples: int = 1,
    ) -> ChunkPrediction:
        """Sample chunks (B * samples); see :meth:`ChunkNetwork.sample`.

        Args:
            images: (B, views, 3, H, W).
            proprioception: (B, joints + 1).
            text: (B, text_width).
            sampler: in place of ``self.sampler``.
            generator: on the CPU, of the noise.
            previous: (B, K, joints + 1) last chunks at the times of the new chunks' actions, for a warm start:
                normalised joints and gripper 0 .. 1.
            prefix: of real-time chunking.
            samples: number of chunks for each observation, one after the other.

        Raises:
            GenimaError: for a sampler that does not fit the network, or a prefix that does not fit the sampler.
        """
        sampler = sampler or self.sampler
        ChunkSampler.fitting(self.config.objective, sampler.name, sampler.steps)

        def repeat(x: Tensor) -> Tensor:
            return x.repeat_interleave(samples, 0)

        # Guidance needs gradients, which tensors of the inference mode never have.
        with torch.inference_mode(False), torch.no_grad():
            with half_precision(images.device):
                features = self.extract_features(images, text)
            condition = repeat(self.condition(features.float(), proprioception, text))
            shape = (len(condition), self.config.horizon, self.config.action_size + 1)
            anchors = self._anchors()
            if anchors is not None:
                condition = condition.repeat_interleave(len(anchors), 0)
            chunks = sampler.sample(
                self.objective,
                lambda noisy, *times: self.unet(noisy, condition, *times),
                NoiseSource(shape, images.device, generator),
                None if previous is None else repeat(self._scale(previous)),
                None if prefix is None else (repeat(self._scale(prefix.actions)), prefix.weights.clone()),
                anchors,
            )
        return ChunkPrediction(chunks[..., :-1], ((chunks[..., -1] / self.config.gripper_scale + 1) / 2).clamp(0, 1))

    @abstractmethod
    def extract_features(self, images: Tensor, text: Tensor) -> Tensor:
        """Return feature maps (B * maps, C, h, w) of the images; see :meth:`ChunkNetwork.losses`."""

    def condition(self, features: Tensor, proprioception: Tensor, text: Tensor) -> Tensor:
        """Return the global condition (B, width) of the UNet."""
        keypoints = self.pool(features).unflatten(0, (len(proprioception), -1)).flatten(1)
        return torch.cat([keypoints, proprioception, text], dim=1)

    def _anchors(self) -> Tensor | None:
        if not isinstance(self.objective, Truncated):
            return None
        if not self.anchors.any():
            raise GenimaError("diffusion network: no anchors; fit them to the training chunks before training")
        return self.anchors

    def _scale(self, actions: Tensor) -> Tensor:
        """Convert a gripper 0 .. 1 of actions (..., joints + 1) to the range in which it is denoised."""
        gripper = (2 * actions[..., -1:] - 1) * self.config.gripper_scale
        return torch.cat([actions[..., :-1], gripper], dim=-1)


class DiffusionNetwork(ChunkDenoiser):
    """Network that denoises chunks conditioned on images, measured joints and text."""

    config: DiffusionConfig

    def __init__(self, config: DiffusionConfig, text_encoder: CLIPTextModel) -> None:
        """See :class:`ChunkDenoiser`."""
        super().__init__(config, text_encoder, config.views, config.backbone_widths[-1])
        self.backbone = FilmResNet(config, text_encoder.config.hidden_size)

    def extract_features(self, images: Tensor, text: Tensor) -> Tensor:
        """See :meth:`ChunkDenoiser.extract_features`: the backbone's."""
        pixels = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.backbone(pixels, text.repeat_interleave(images.shape[1], dim=0))
        return features
