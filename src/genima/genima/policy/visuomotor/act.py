"""ACT (Zhao et al., Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware, 2023) with GENIMA's changes.

The changes (GENIMA paper, appendix E): the last decoder layer is used, the gripper is a probability, and text
conditions the images through FiLM (Perez et al., 2018), following MT-ACT (Bharadhwaj et al., RoboAgent, 2023). Each
view also has a learned embedding: without one, the transformer cannot distinguish the cameras' tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel

from genima.policy.precision import half_precision
from genima.policy.visuomotor.backbone import SMALL_BACKBONE, BackboneConfig, FilmResNet
from genima.policy.visuomotor.network import ChunkConfig, ChunkNetwork, ChunkPrediction


@dataclass(frozen=True)
class ActConfig(ChunkConfig, BackboneConfig):
    """Sizes; the defaults are the paper's (table 4)."""

    width: int = 256
    heads: int = 8
    feedforward: int = 2048
    encoder_layers: int = 4
    decoder_layers: int = 6
    dropout: float = 0.1
    latent: int = 32
    released_initialisation: bool = True  # queries and embeddings N(0, 1), Xavier; else N(0, 0.02) and PyTorch's

    @classmethod
    def small(cls, horizon: int, joints: int = 7, views: int = 4, action_size: int | None = None) -> ActConfig:
        """Return sizes that train from scratch on a CPU."""
        return cls(
            joints=joints,
            action_size=action_size or joints,
            horizon=horizon,
            views=views,
            width=128,
            heads=4,
            feedforward=256,
            encoder_layers=2,
            decoder_layers=2,
            latent=8,
            dropout=0.0,
            released_initialisation=False,
            **SMALL_BACKBONE,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ActConfig:
        """Return the sizes of a checkpoint; older ones without ``film`` have it in every stage."""
        return super().from_dict({"film": "stage", **data})


@dataclass(frozen=True)
class ActOutput:
    """Batch of predicted chunks, with the style variable's distribution in training."""

    actions: Tensor  # (B, K, joints), normalised
    gripper: Tensor  # (B, K) logit of open
    mean: Tensor | None = None  # (B, latent)
    log_variance: Tensor | None = None  # (B, latent)


class EncoderLayer(nn.Module):
    """Post-norm encoder layer of DETR: positions are added to queries and keys only."""

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(config.width, config.heads, config.dropout, batch_first=True)
        self.feedforward = _feedforward(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(2))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, position: Tensor, padding: Tensor | None = None) -> Tensor:
        """Encode tokens (B, N, width); ``padding`` (B, N) is true for tokens to ignore."""
        q = x + position
        x = self.norms[0](x + self.dropout(self.attention(q, q, x, key_padding_mask=padding, need_weights=False)[0]))
        return self.norms[1](x + self.dropout(self.feedforward(x)))


class DecoderLayer(nn.Module):
    """Post-norm decoder layer of DETR."""

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(config.width, config.heads, config.dropout, batch_first=True)
        self.attention = nn.MultiheadAttention(config.width, config.heads, config.dropout, batch_first=True)
        self.feedforward = _feedforward(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, query: Tensor, memory: Tensor, position: Tensor) -> Tensor:
        """Decode actions (B, K, width): self-attention, then attention to the memory (B, N, width)."""
        q = x + query
        x = self.norms[0](x + self.dropout(self.self_attention(q, q, x, need_weights=False)[0]))
        attended = self.attention(x + query, memory + position, memory, need_weights=False)[0]
        x = self.norms[1](x + self.dropout(attended))
        return self.norms[2](x + self.dropout(self.feedforward(x)))


class Act(ChunkNetwork):
    """ACT network: images, measured joints and text to K joint positions and gripper logits."""

    config: ActConfig

    def __init__(self, config: ActConfig, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.config = config
        width, text_width = config.width, text_encoder.config.hidden_size
        proprioception = config.joints + 1
        self.text_encoder = text_encoder
        self.backbone = FilmResNet(config, text_width)
        self.image_token = nn.Conv2d(config.backbone_widths[-1], width, 1)
        self.view_embedding = nn.Parameter(torch.empty(config.views, width))
        self.proprioception_token = nn.Linear(proprioception, width)
        self.text_token = nn.Linear(text_width, width)
        self.latent_token = nn.Linear(config.latent, width)
        self.token_position = nn.Parameter(torch.empty(3, width))
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.query = nn.Parameter(torch.empty(config.horizon, width))
        self.norm = nn.LayerNorm(width)
        self.action_head = nn.Linear(width, config.action_size)
        self.gripper_head = nn.Linear(width, 1)
        # The style encoder encodes the true chunk, in training only.
        self.style_class = nn.Parameter(torch.empty(1, width))
        self.style_proprioception = nn.Linear(proprioception, width)
        self.style_action = nn.Linear(config.action_size + 1, width)
        self.style_encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.style_head = nn.Linear(width, 2 * config.latent)
        self._initialise()

    def _initialise(self) -> None:
        """Initialise queries and embeddings, and the transformer as the released ACT where configured.

        The released ACT uses nn.Embedding's N(0, 1) and DETR's Xavier weights; its style encoder keeps PyTorch's.
        """
        released = self.config.released_initialisation
        for embedding in (self.view_embedding, self.token_position, self.query, self.style_class):
            nn.init.normal_(embedding, std=1.0 if released else 0.02)
        if released:
            for weights in [*self.encoder.parameters(), *self.decoder.parameters()]:
                if weights.dim() > 1:
                    nn.init.xavier_uniform_(weights)

    def losses(
        self, images: Tensor, proprioception: Tensor, text: Tensor, actions: Tensor, padding: Tensor
    ) -> dict[str, Tensor]:
        """See :meth:`ChunkNetwork.losses`."""
        return act_loss(self(images, proprioception, text, actions, padding), actions, padding)

    def sample(self, images: Tensor, proprioception: Tensor, text: Tensor) -> ChunkPrediction:
        """See :meth:`ChunkNetwork.sample`."""
        with half_precision(images.device):  # changes joints by less than 0.001 rad
            features = self.extract_features(images, text)
        output = self.predict(features.float(), proprioception, text)
        return ChunkPrediction(output.actions, output.gripper.sigmoid())

    def forward(
        self,
        images: Tensor,
        proprioception: Tensor,
        text: Tensor,
        actions: Tensor | None = None,
        padding: Tensor | None = None,
    ) -> ActOutput:
        """Predict a batch of chunks.

        Args:
            images: (B, views, 3, H, W), normalised, in tile order.
            proprioception: (B, joints + 1), normalised joints and the gripper's open fraction.
            text: (B, text_width) from :meth:`embed_text`.
            actions: (B, K, joints + 1) true normalised chunk and gripper, in training; without them the style is zero.
            padding: (B, K) true for actions after the episode's end.
        """
        return self.predict(self.extract_features(images, text), proprioception, text, actions, padding)

    def extract_features(self, images: Tensor, text: Tensor) -> Tensor:
        """Extract the backbone's features (B * views, C, h, w): most of the computation, insensitive to precision."""
        pixels = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.backbone(pixels, text.repeat_interleave(images.shape[1], dim=0))
        return features

    def predict(
        self,
        features: Tensor,
        proprioception: Tensor,
        text: Tensor,
        actions: Tensor | None = None,
        padding: Tensor | None = None,
    ) -> ActOutput:
        """Predict chunks from the features of :meth:`extract_features`; see :meth:`forward`."""
        batch, views = len(proprioception), len(features) // len(proprioception)
        mean, log_variance, style = None, None, proprioception.new_zeros(batch, self.config.latent)
        if actions is not None:
            mean, log_variance = self._style(proprioception, actions, padding).chunk(2, dim=1)
            style = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        features = self.image_token(features)
        h, w = features.shape[-2:]
        image_tokens = features.flatten(2).transpose(1, 2).reshape(batch, views * h * w, -1)
        image_position = sine_position(h, w, self.config.width, features.device)[None] + self.view_embedding[:, None]
        tokens = torch.stack(
            [self.latent_token(style), self.proprioception_token(proprioception), self.text_token(text)], dim=1
        )
        memory = torch.cat([tokens, image_tokens], dim=1)
        position = torch.cat([self.token_position, image_position.flatten(0, 1)])[None]
        for layer in self.encoder:
            memory = layer(memory, position)
        x, query = memory.new_zeros(batch, self.config.horizon, self.config.width), self.query[None]
        for layer in self.decoder:
            x = layer(x, query, memory, position)
        x = self.norm(x)
        return ActOutput(self.action_head(x), self.gripper_head(x)[..., 0], mean, log_variance)

    def _style(self, proprioception: Tensor, actions: Tensor, padding: Tensor | None) -> Tensor:
        batch = len(actions)
        x = torch.cat(
            [
                self.style_class[None].expand(batch, -1, -1),
                self.style_proprioception(proprioception)[:, None],
                self.style_action(actions),
            ],
            dim=1,
        )
        if padding is not None:
            padding = torch.cat([padding.new_zeros(batch, 2), padding], dim=1)
        position = _sine(torch.arange(x.shape[1], device=x.device).float(), self.config.width)[None]
        for layer in self.style_encoder:
            x = layer(x, position, padding)
        return self.style_head(x[:, 0])


def act_loss(output: ActOutput, actions: Tensor, padding: Tensor, gripper_weight: float = 0.05) -> dict[str, Tensor]:
    """Compute ACT's losses: L1 of joints, cross entropy of the gripper, 10 times the style's KL divergence.

    As in the released ACT, padded actions do not contribute to the sums, and the means are over all K.

    Args:
        actions: (B, K, joints + 1) normalised joints and whether the gripper is open.
        padding: (B, K) true for actions after the episode's end, which do not count.
    """
    real = (~padding).float()
    joints = ((output.actions.float() - actions[..., :-1]).abs() * real[..., None]).mean()
    gripper = F.binary_cross_entropy_with_logits(output.gripper.float(), actions[..., -1], weight=real)
    losses = {"joints": joints, "gripper": gripper_weight * gripper}
    if output.mean is not None and output.log_variance is not None:
        mean, log_variance = output.mean.float(), output.log_variance.float()
        losses["kl"] = 10 * (-0.5 * (1 + log_variance - mean**2 - log_variance.exp())).sum(-1).mean()
    return losses


def sine_position(h: int, w: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return DETR's 2D sine position embedding (h * w, width): half the channels for y, half for x."""
    y = (torch.arange(h, device=device).float() + 1) / h * 2 * math.pi
    x = (torch.arange(w, device=device).float() + 1) / w * 2 * math.pi
    rows, columns = _sine(y, width // 2), _sine(x, width // 2)
    return torch.cat([rows[:, None].expand(-1, w, -1), columns[None].expand(h, -1, -1)], dim=-1).flatten(0, 1)


def _sine(position: Tensor, width: int) -> Tensor:
    frequency = 10000 ** (-torch.arange(0, width, 2, device=position.device).float() / width)
    angle = position[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def _feedforward(config: ActConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(config.width, config.feedforward),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.feedforward, config.width),
    )
