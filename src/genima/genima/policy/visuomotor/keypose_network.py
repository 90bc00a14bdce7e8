"""Network that diffuses the next keypose of the gripper from images and the points that they show.

Source: Ke et al., 3D Diffuser Actor: Policy Diffusion with 3D Scene Representations, 2024, and the GENIMA paper, table
6. Smaller here: images are encoded by the ResNet of the other policies instead of CLIP's, the text modulates it and
the layers instead of being attended to, and image tokens do not attend to each other. Tokens also carry their position:
few demos do not suffice to infer it from the relative ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers import DDPMScheduler
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel

from genima.errors import GenimaError
from genima.policy.visuomotor.backbone import SMALL_BACKBONE, BackboneConfig, FilmResNet
from genima.policy.visuomotor.relative_attention import RelativeAttention

HISTORY = 3  # poses of the gripper: now and at the keyframes before (table 6)
STRIDE = 8  # px of a token's side
POSITION_WEIGHT, ROTATION_WEIGHT = 30.0, 10.0  # of the losses (table 6)
POSE = 9  # numbers of a pose: position, and two columns of the rotation


@dataclass(frozen=True)
class KeyposeConfig(BackboneConfig):
    """Sizes; the defaults are the paper's (table 6)."""

    width: int = 120
    heads: int = 4
    layers: int = 4
    diffusion_steps: int = 100

    def __post_init__(self) -> None:
        if self.width % (6 * self.heads):
            raise GenimaError(f"width: {self.width}; take a multiple of 6 x heads ({6 * self.heads})")

    @classmethod
    def small(cls) -> KeyposeConfig:
        """Return sizes that train from scratch on a CPU."""
        return cls(layers=3, **SMALL_BACKBONE)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> KeyposeConfig:
        """Return the sizes of a checkpoint."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)


class KeyposeInput(NamedTuple):
    """Batch of observations. Poses are 9 numbers: position in m in the base frame, two columns of the rotation."""

    images: Tensor  # (B, V, 3, H, W), normalised
    points: Tensor  # (B, V, h, w, 3) m, what the centres of the tokens show, in the base frame
    valid: Tensor  # (B, V, h, w) whether that is known
    history: Tensor  # (B, HISTORY, 10) poses of the tip, now last, with the gripper's state, 1 open
    text: Tensor  # (B, text_width)


class Keyposes(NamedTuple):
    """Batch of keyposes."""

    pose: Tensor  # (B, 9)
    gripper: Tensor  # (B,) probability of open


class Scene(NamedTuple):
    """Encoded observation, shared by all its diffusion steps."""

    context: list[tuple[Tensor, Tensor]]  # keys and values of each layer
    mask: Tensor  # (B, M)
    condition: Tensor  # (B, width)


def position_scheduler(steps: int) -> DDPMScheduler:
    """Return the noise schedule of positions (table 6).

    Diffusers' betas are for 1000 steps. The released 3D Diffuser Actor keeps them for 100: its schedule ends at half
    the signal, while samples start from pure noise, and a small network sends some of those far away. Scaled by the
    number of steps, as Ho et al. (2020) continue them, the schedule ends at noise.
    """
    beta_start, beta_end = 0.1 / steps, min(20 / steps, 0.999)
    return DDPMScheduler(steps, beta_start, beta_end, beta_schedule="scaled_linear", prediction_type="epsilon")


def rotation_scheduler(steps: int) -> DDPMScheduler:
    """Return the noise schedule of rotations (table 6)."""
    return DDPMScheduler(steps, beta_schedule="squaredcos_cap_v2", prediction_type="epsilon")


class _Layer(nn.Module):
    """Pre-norm layer of attention to the scene and feed-forward, modulated as in DiT (Peebles and Xie, 2023)."""

    def __init__(self, config: KeyposeConfig) -> None:
        super().__init__()
        width = config.width
        self.attention = RelativeAttention(width, config.heads)
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.feedforward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 4 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x: Tensor, points: Tensor, context: tuple[Tensor, Tensor], mask: Tensor, condition: Tensor
    ) -> Tensor:
        """Update tokens (B, N, width) at points (B, N, 3) m."""
        shifts = self.modulation(F.silu(condition))[:, None].chunk(4, -1)
        x = x + self.attention(self.norms[0](x) * (1 + shifts[0]) + shifts[1], points, context, mask)
        updated: Tensor = x + self.feedforward(self.norms[1](x) * (1 + shifts[2]) + shifts[3])
        return updated


class KeyposeNetwork(nn.Module):
    """Denoiser of keyposes."""

    workspace: Tensor

    def __init__(self, config: KeyposeConfig, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.config, self.text_encoder = config, text_encoder
        width, text_width = config.width, text_encoder.config.hidden_size
        self.register_buffer("workspace", torch.tensor([[-1.0] * 3, [1.0] * 3]))  # (2, 3) m, least and largest position
        self.backbone = FilmResNet(config, text_width)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in config.backbone_widths[1:])
        self.point = nn.Linear(3, width)
        self.pose = nn.Linear(POSE, width)
        self.past_pose = nn.Linear(POSE + 1, width)
        self.past_order = nn.Parameter(0.02 * torch.randn(HISTORY, width))
        self.context_norm = nn.LayerNorm(width)
        self.text, self.past = nn.Linear(text_width, width), nn.Linear(HISTORY * (POSE + 1), width)
        self.frequencies = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(width, width)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.position_head, self.rotation_head, self.gripper_head = (
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, size)) for size in (3, POSE - 3, 1)
        )
        self.position_schedule = position_scheduler(config.diffusion_steps)
        self.rotation_schedule = rotation_scheduler(config.diffusion_steps)

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Return the pooled text embedding (B, text_width) of token ids (B, L)."""
        return self.text_encoder(tokens).pooler_output

    def losses(self, observed: KeyposeInput, target: Keyposes) -> dict[str, Tensor]:
        """Return the parts of the loss: L1 of the noise of position and rotation, cross entropy of the gripper."""
        pose = self._normalise(target.pose)
        noise = torch.randn_like(pose)
        times = torch.randint(self.config.diffusion_steps, (len(pose),), device=pose.device)
        noisy = torch.cat(
            [
                self.position_schedule.add_noise(pose[:, :3], noise[:, :3], times),
                self.rotation_schedule.add_noise(pose[:, 3:], noise[:, 3:], times),
            ],
            -1,
        )
        predicted, gripper = self.denoise(noisy, times, self.encode(observed))
        return {
            "position": POSITION_WEIGHT * F.l1_loss(predicted[:, :3].float(), noise[:, :3]),
            "rotation": ROTATION_WEIGHT * F.l1_loss(predicted[:, 3:].float(), noise[:, 3:]),
            "gripper": F.binary_cross_entropy_with_logits(gripper.float(), target.gripper),
        }

    def sample(self, observed: KeyposeInput, generator: torch.Generator | None = None) -> Keyposes:
        """Sample keyposes by DDPM with the steps of the training; without a generator, from PyTorch's default one."""
        scene, batch, device = self.encode(observed), len(observed.text), observed.text.device
        noisy = torch.randn((batch, POSE), generator=generator).to(device)
        schedules = self.position_schedule, self.rotation_schedule
        for schedule in schedules:
            schedule.set_timesteps(self.config.diffusion_steps)
        gripper = noisy.new_zeros(batch)
        for time in self.position_schedule.timesteps:
            noise, gripper = self.denoise(noisy, time.to(device).expand(batch), scene)
            parts = zip(schedules, noise.split([3, POSE - 3], -1), noisy.split([3, POSE - 3], -1), strict=True)
            noisy = torch.cat([s.step(n, time, x, generator=generator).prev_sample for s, n, x in parts], -1)
        return Keyposes(self._denormalise(noisy), gripper.sigmoid())

    def encode(self, observed: KeyposeInput) -> Scene:
        """Encode what does not change in diffusion."""
        batch, views = observed.images.shape[:2]
        levels = self.backbone.pyramid(
            observed.images.flatten(0, 1).contiguous(memory_format=torch.channels_last),
            observed.text.repeat_interleave(views, dim=0),
        )[1:]
        merged = self.lateral[-1](levels[-1])  # a feature pyramid (Lin et al., 2017)
        for lateral, level in zip(reversed(self.lateral[:-1]), reversed(levels[:-1]), strict=True):
            merged = lateral(level) + F.interpolate(merged, level.shape[-2:])
        features = merged.flatten(2).transpose(1, 2).reshape(batch, -1, self.config.width)
        past = observed.history
        normalised = torch.cat([self._normalise(past[..., :POSE]), past[..., POSE:]], -1)
        points = torch.cat([observed.points.flatten(1, 3), past[..., :3]], 1)
        mask = torch.cat([observed.valid.flatten(1), past.new_ones(past.shape[:2], dtype=torch.bool)], 1)
        points = torch.where(mask[..., None], points, 0.0)
        tokens = torch.cat([features, self.past_pose(normalised) + self.past_order], 1)
        tokens = self.context_norm(tokens + self.point(self._normalise_position(points)))
        return Scene(
            [layer.attention.project(tokens, points) for layer in self._layers()],
            mask,
            self.text(observed.text) + self.past(normalised.flatten(1)),
        )

    def denoise(self, noisy: Tensor, times: Tensor, scene: Scene) -> tuple[Tensor, Tensor]:
        """Predict the noise (B, 9) of normalised poses (B, 9) at times (B,), and the gripper (B,), logit of open."""
        condition = scene.condition + self.time(self.frequencies(times).to(noisy.dtype))
        points = self._denormalise(noisy)[:, None, :3]
        x = self.pose(noisy)[:, None]
        for layer, context in zip(self._layers(), scene.context, strict=True):
            x = layer(x, points, context, scene.mask, condition)
        x = self.norm(x[:, 0])
        return torch.cat([self.position_head(x), self.rotation_head(x)], -1), self.gripper_head(x)[:, 0]

    def _layers(self) -> Iterator[_Layer]:
        for layer in self.layers:
            assert isinstance(layer, _Layer)
            yield layer

    def _normalise_position(self, position: Tensor) -> Tensor:
        low, high = self.workspace
        return 2 * (position - low) / (high - low) - 1

    def _normalise(self, pose: Tensor) -> Tensor:
        return torch.cat([self._normalise_position(pose[..., :3]), pose[..., 3:]], -1)

    def _denormalise(self, pose: Tensor) -> Tensor:
        low, high = self.workspace
        return torch.cat([low + (pose[..., :3] + 1) / 2 * (high - low), pose[..., 3:]], -1)
