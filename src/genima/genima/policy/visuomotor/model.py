"""Model that predicts action chunks: a network with its text encoder, normalisation and specification."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from genima.errors import GenimaError
from genima.policy import spec as checkpoint
from genima.policy.spec import PolicySpec
from genima.policy.visuomotor.act import Act, ActConfig
from genima.policy.visuomotor.action_space import ACTION_SPACES, JOINTS, ActionEncoding, JointPositions, JointStatistics
from genima.policy.visuomotor.diffusion import DiffusionConfig, DiffusionNetwork
from genima.policy.visuomotor.network import ChunkConfig, ChunkNetwork, ChunkPrediction
from genima.policy.visuomotor.text_model import TextConditionedModel, load_network
from genima.policy.visuomotor.video import VideoConfig, VideoNetwork
from genima.robot.model import RobotModel
from genima.types import Joints

NETWORKS: dict[str, tuple[type[Any], type[ChunkConfig]]] = {
    "act": (Act, ActConfig),
    "diffusion": (DiffusionNetwork, DiffusionConfig),
    "video": (VideoNetwork, VideoConfig),
}
"""Networks and their sizes, by the name in ``genima.json`` and of the weights' file."""


class ChunkModel(TextConditionedModel):
    """Base of policies and controllers with a network that predicts chunks from images, joints and text."""

    network: ChunkNetwork
    IMAGES: ClassVar[int] = 1  # of each view

    def __init__(
        self,
        spec: PolicySpec,
        network: ChunkNetwork,
        tokenizer: PreTrainedTokenizerBase,
        statistics: JointStatistics,
        clip: str | None = None,
        encoding: ActionEncoding | None = None,
    ) -> None:
        """Args:
        spec: what it was trained for.
        network: predicts normalised actions.
        tokenizer: of the network's text encoder.
        statistics: normalise the measured joints.
        clip: see :class:`TextConditionedModel`.
        encoding: of the actions; None: joint positions, normalised as the measured ones.
        """
        super().__init__(spec, network, tokenizer, clip)
        self.statistics = statistics
        self.encoding = encoding or ActionEncoding(JointPositions(self.robot), statistics)
        self._texts: dict[str, Tensor] = {}

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu") -> Self:
        """Load a checkpoint folder (safetensors only), and the text encoder that it may name.

        Raises:
            GenimaError: for a missing or damaged checkpoint, another schema, robot or text encoder, and an
                unavailable device.
        """
        folder, spec, rest = checkpoint.open_checkpoint(folder, cls.KIND, device)
        with checkpoint.translate_load_errors(folder):
            name = next(name for name in NETWORKS if rest.get(name) is not None)
            network_class, config_class = NETWORKS[name]
            config, network, tokenizer = load_network(folder, name, network_class, config_class, rest)
            statistics = JointStatistics(np.array(rest["joint_mean"], float), np.array(rest["joint_deviation"], float))
        n = len(spec.joint_names)
        if config.horizon != spec.horizon or config.joints != n:
            raise GenimaError(
                f"checkpoint {folder}: the network makes {config.horizon} actions of {config.joints} joints, "
                f"{checkpoint.FILE} has {spec.horizon} of {n}"
            )
        if statistics.mean.shape != (n,) or statistics.deviation.shape != (n,) or not np.all(statistics.deviation > 0):
            raise GenimaError(f"checkpoint {folder}: normalisation statistics do not fit {n} joints")
        network.requires_grad_(False).eval().to(device)
        encoding = _read_encoding(spec, rest, config, folder)
        model = cls(spec, network, tokenizer, statistics, rest["text_encoder"], encoding)
        with checkpoint.translate_load_errors(folder):
            model._load_parts(folder, device)
            model._check()
        return model

    def _load_parts(self, folder: Path, device: str) -> None:
        """Load what a checkpoint holds beside the network."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint; ``genima.json`` is written last, and marks a complete folder."""
        self._save(
            Path(folder), self.network_name,
            joint_mean=self.statistics.mean.tolist(), joint_deviation=self.statistics.deviation.tolist(),
            action_space=self.encoding.name, action_mean=self.encoding.statistics.mean.tolist(),
            action_deviation=self.encoding.statistics.deviation.tolist(),
        )  # fmt: skip

    @property
    def network_name(self) -> str:
        """Name of the network in :data:`NETWORKS`."""
        return next(name for name, (network_class, _) in NETWORKS.items() if type(self.network) is network_class)

    def encode_images(self, images: Tensor, instructions: Sequence[str]) -> Tensor:
        """Return the network's input for images (B, views, H, W, 3) uint8."""
        return pixels(images.to(self.device))

    def embed_instructions(self, instructions: Sequence[str]) -> Tensor:
        """Return text embeddings (B, text_width), cached while the text encoder is frozen."""
        if any(parameter.requires_grad for parameter in self.network.text_encoder.parameters()):
            return self.network.embed_text(self.tokens(instructions))
        # Training uses embeddings cached in validation: no inference tensors, no half precision.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            for text in set(instructions) - set(self._texts):
                self._texts[text] = self.network.embed_text(self.tokens([text]))[0]
        return torch.stack([self._texts[text] for text in instructions]).to(self.device)

    def predict_actions(
        self, images: NDArray[np.uint8], instruction: str, joints: Joints
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return positions (K, n) rad and gripper (K,), 1 open, for images (V, s, s, 3) of the views.

        Raises:
            GenimaError: for actions that are not finite, or that the arm cannot follow.
        """
        positions, gripper = self.predict_samples(images, instruction, joints, self.network.sample)
        return positions[0], gripper[0]

    @torch.inference_mode()
    def predict_samples(
        self,
        images: NDArray[np.uint8],
        instruction: str,
        joints: Joints,
        sample: Callable[[Tensor, Tensor, Tensor], ChunkPrediction],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return N chunks, positions (N, K, n) rad and gripper (N, K); ``sample`` is the network's, with its options.

        Raises:
            GenimaError: for actions that are not finite, or that the arm cannot follow.
        """
        proprioception = np.append(self.statistics.normalise(joints.positions), joints.gripper)
        prediction = sample(
            self.encode_images(torch.from_numpy(images)[None], [instruction]),
            torch.from_numpy(proprioception).float()[None].to(self.device),
            self.embed_instructions([instruction]),
        )
        actions = prediction.actions.double().cpu().numpy()
        gripper = prediction.gripper.double().cpu().numpy()
        if not (np.all(np.isfinite(actions)) and np.all(np.isfinite(gripper))):
            raise GenimaError(f"the chunk is not finite: the {self.KIND}'s weights or its inputs are damaged")
        return np.stack([self.encoding.decode(chunk, joints.positions) for chunk in actions]), gripper

    @torch.inference_mode()
    def _check(self) -> None:
        """Predict once from small views, to detect parts that do not fit together."""
        side, n = min(64, self.spec.view_size), len(self.spec.joint_names)
        images = torch.zeros(1, self.IMAGES * len(self.spec.views), side, side, 3, dtype=torch.uint8)
        prediction = self.network.sample(
            self.encode_images(images, ["do " * 100]),
            torch.zeros(1, n + 1, device=self.device),
            self.embed_instructions(["do " * 100]),
        )
        expected = (self.spec.horizon, self.encoding.space.size)
        if tuple(prediction.actions.shape[1:]) != expected:
            raise ValueError(f"the network predicts {tuple(prediction.actions.shape[1:])} numbers, not {expected}")


def _read_encoding(
    spec: PolicySpec, about: Mapping[str, Any], config: ChunkConfig, folder: Path
) -> ActionEncoding | None:
    """Return the encoding of a checkpoint's actions; None in one that is older than encodings.

    Raises:
        GenimaError: for statistics that are missing, or of another size than the network's actions.
    """
    name, found = about.get("action_space", JOINTS), [about.get(f"action_{part}") for part in ("mean", "deviation")]
    if name == JOINTS and found == [None, None]:
        return None
    if None in found:
        raise GenimaError(f"checkpoint {folder}: action_mean or action_deviation is missing; fetch or train it again")
    space = ACTION_SPACES[name](RobotModel.load(spec.robot))
    mean, deviation = (np.array(values, float) for values in found)
    if not mean.shape == deviation.shape == (space.size,) or config.action_size != space.size:
        raise GenimaError(f"checkpoint {folder}: actions of {config.action_size} numbers; {name} has {space.size}")
    return ActionEncoding(space, JointStatistics(mean, deviation))


_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which ResNets expect


def pixels(images: Tensor) -> Tensor:
    """Convert images (..., H, W, 3) uint8 rgb to (..., 3, H, W) with ImageNet's normalisation."""
    mean, deviation = torch.tensor(_MEAN), torch.tensor(_DEVIATION)
    scaled = (images.float() / 255 - mean.to(images.device)) / deviation.to(images.device)
    return scaled.movedim(-1, -3)
