"""Image encoder of the visuomotor networks: a ResNet that text modulates.

Sources: He et al., Deep Residual Learning for Image Recognition, 2016; Perez et al., FiLM: Visual Reasoning with a
General Conditioning Layer, 2018; Bharadhwaj et al., RoboAgent, 2023 (FiLM in each block).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ResNetConfig, ResNetModel


@dataclass(frozen=True)
class BackboneConfig:
    """Sizes; the defaults are the paper's (tables 4 and 5)."""

    backbone_widths: tuple[int, ...] = (64, 128, 256, 512)  # ResNet-18's
    backbone_depths: tuple[int, ...] = (2, 2, 2, 2)
    frozen_batch_norm: bool = True  # keeps the statistics of pre-trained weights; without those it normalises nothing
    film: Literal["block", "stage"] = "block"  # modulate each block's residual or each stage's output


SMALL_BACKBONE: dict[str, Any] = {
    "backbone_widths": (32, 64, 128),
    "backbone_depths": (1, 2, 2),
    "frozen_batch_norm": False,
    "film": "stage",
}
"""Trains from scratch on a CPU; three stages keep 8 px a token at 128 px views."""


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with fixed statistics and affine parameters."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((width,), value))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise features (N, C, h, w)."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)  # of the replaced batch normalisation
        super()._load_from_state_dict(state_dict, prefix, *rest)


class FilmResNet(nn.Module):
    """ResNet whose later stages are modulated by a text embedding: (1 + gamma) x + beta.

    It modulates the residual of every block before the shortcut is added, or the output of every stage.
    """

    def __init__(self, config: BackboneConfig, text_width: int) -> None:
        super().__init__()
        self.config = config
        resnet = ResNetModel(
            ResNetConfig(
                embedding_size=config.backbone_widths[0],
                hidden_sizes=list(config.backbone_widths),
                depths=list(config.backbone_depths),
                layer_type="basic",
            )
        )
        if config.frozen_batch_norm:
            _freeze_batch_norms(resnet)
        self.embedder, self.stages = resnet.embedder, resnet.encoder.stages
        self.in_blocks = config.film == "block"
        depths = config.backbone_depths[1:] if self.in_blocks else (1,) * len(config.backbone_widths[1:])
        widths = [width for width, depth in zip(config.backbone_widths[1:], depths, strict=True) for _ in range(depth)]
        self.film = nn.ModuleList(_zero_linear(text_width, 2 * width) for width in widths)

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """Extract features (N, C, h, w) of images (N, 3, H, W), modulated by text embeddings (N, text_width)."""
        return self.pyramid(images, text)[-1]

    def pyramid(self, images: Tensor, text: Tensor) -> list[Tensor]:
        """Extract the features (N, C, h, w) of every stage, each half as wide as the one before."""
        features, films = [self.stages[0](self.embedder(images))], iter(self.film)
        for stage in self.stages[1:]:
            if not self.in_blocks:
                features.append(_modulate(stage(features[-1]), next(films)(text)))
                continue
            x = features[-1]
            for block in stage.layers:
                residual = _modulate(block.layer(x), next(films)(text))
                x = block.activation(residual + block.shortcut(x))
            features.append(x)
        return features


def _modulate(features: Tensor, film: Tensor) -> Tensor:
    """Compute (1 + gamma) x + beta for features (N, C, h, w), and gamma and beta (N, 2C)."""
    gamma, beta = film[:, :, None, None].chunk(2, dim=1)
    return (1 + gamma) * features + beta


def _freeze_batch_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm(child.num_features))
        else:
            _freeze_batch_norms(child)


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer of zeros: FiLM starts as the identity."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
