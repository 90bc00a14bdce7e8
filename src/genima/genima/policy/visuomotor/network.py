"""Interface of networks that predict action chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor, nn
from transformers import CLIPTextModel


@dataclass(frozen=True)
class ChunkConfig:
    """Sizes of all networks."""

    joints: int = 7
    action_size: int = 7  # numbers of an action beside the gripper: joints, or those of another action space
    horizon: int = 20
    views: int = 4

    @classmethod
    def small(cls, horizon: int, joints: int = 7, views: int = 4, action_size: int | None = None) -> Self:
        """Return sizes that train from scratch on a CPU; actions are joints without ``action_size``."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the sizes of a checkpoint; in older ones actions are joints."""
        values: dict[str, Any] = {"action_size": data["joints"]} if "joints" in data else {}
        values |= {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)


class ChunkPrediction(NamedTuple):
    """Batch of predicted chunks."""

    actions: Tensor  # (B, K, joints), normalised
    gripper: Tensor  # (B, K) probability of open


class ChunkNetwork(nn.Module, ABC):
    """Network that predicts chunks from images (B, views, 3, H, W), joints (B, joints + 1) and text (B, text_width)."""

    UNIT_RANGE: ClassVar[bool] = False  # joints are normalised to [-1, 1]; else to zero mean and unit variance
    config: ChunkConfig
    text_encoder: CLIPTextModel

    def fit(self, actions: Tensor) -> None:
        """Set constants, where the network has some, from training chunks (N, K, joints + 1); see :meth:`losses`."""

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Return the pooled text embedding (B, text_width) of token ids (B, L)."""
        return self.text_encoder(tokens).pooler_output

    @abstractmethod
    def losses(
        self, images: Tensor, proprioception: Tensor, text: Tensor, actions: Tensor, padding: Tensor
    ) -> dict[str, Tensor]:
        """Return the parts of the training loss, whose sum is minimised.

        Args:
            images: (B, views, 3, H, W), normalised, in tile order.
            proprioception: (B, joints + 1), normalised joints and the gripper's open fraction.
            text: (B, text_width) from :meth:`embed_text`.
            actions: (B, K, joints + 1) true normalised joints and whether the gripper is open.
            padding: (B, K) true for actions after the episode's end, which do not count.
        """

    @abstractmethod
    def sample(self, images: Tensor, proprioception: Tensor, text: Tensor) -> ChunkPrediction:
        """Predict chunks; see :meth:`losses`."""
