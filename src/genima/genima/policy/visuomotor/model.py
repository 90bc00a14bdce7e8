"""Model that predicts action chunks: a network with its text encoder, normalisation and specification."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerBase

from genima.errors import GenimaError
from genima.io import hub, model_files
from genima.io.files import shorten
from genima.policy import spec as checkpoint
from genima.policy.small_text_encoder import load_tokenizer
from genima.policy.spec import PolicySpec
from genima.policy.visuomotor.act import Act, ActConfig
from genima.policy.visuomotor.action_space import ACTION_SPACES, JOINTS, ActionEncoding, JointPositions, JointStatistics
from genima.policy.visuomotor.backbone import BackboneConfig
from genima.policy.visuomotor.diffusion import DiffusionConfig, DiffusionNetwork
from genima.policy.visuomotor.network import ChunkConfig, ChunkNetwork, ChunkPrediction
from genima.policy.visuomotor.pretrained import load_clip
from genima.policy.visuomotor.video import VideoConfig, VideoNetwork
from genima.robot.model import RobotModel
from genima.types import Joints

NETWORKS: dict[str, tuple[type[Any], type[ChunkConfig]]] = {
    "act": (Act, ActConfig),
    "diffusion": (DiffusionNetwork, DiffusionConfig),
    "video": (VideoNetwork, VideoConfig),
}
"""Networks and their sizes, by the name in ``genima.json`` and of the weights' file."""
_TEXT_ENCODER = "text_encoder."  # its weights' prefix


class ChunkModel:
    """Base of policies and controllers with a network that predicts chunks from images, joints and text."""

    KIND: ClassVar[str]  # in ``genima.json``
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
        clip: source of a frozen text encoder for ``load_clip``; checkpoints name it without its weights. None: the text
            encoder was trained with the network.
        encoding: of the actions; None: joint positions, normalised as the measured ones.
        """
        self.spec, self.network, self.tokenizer, self.statistics = spec, network, tokenizer, statistics
        self.clip = str(Path(clip).resolve()) if clip and Path(clip).is_dir() else clip
        self.robot = RobotModel.load(spec.robot)
        spec.require_robot(self.robot, f"the {self.KIND}")
        self.encoding = encoding or ActionEncoding(JointPositions(self.robot), statistics)
        self._texts: dict[str, Tensor] = {}

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu") -> Self:
        """Load a checkpoint folder (safetensors only), and the text encoder that it may name.

        Raises:
            GenimaError: for a missing or damaged checkpoint, another schema, robot or text encoder, and an
                unavailable device.
        """
        checkpoint.require_device(device)
        folder = checkpoint.resolve(folder)
        spec, rest = checkpoint.read(folder, cls.KIND)
        with checkpoint.translate_load_errors(folder):
            name = next(name for name in NETWORKS if rest.get(name) is not None)
            network_class, config_class = NETWORKS[name]
            model_files.require_moderate(rest[name], folder / checkpoint.FILE)
            config = config_class.from_dict(rest[name])
            require_sizes(name, config)
            weights = load_file(folder / f"{name}.safetensors")
            clip, fingerprint = rest["text_encoder"], rest["text_encoder_fingerprint"]
            if clip:
                encoder, tokenizer = load_clip(clip)
                if hub.fingerprint(encoder) != fingerprint:
                    raise GenimaError(f"checkpoint {folder} was trained with another version of {clip}")
                model_files.require_fitting(lambda: network_class(config, encoder), folder, _TEXT_ENCODER)
                weights |= {_TEXT_ENCODER + key: value for key, value in encoder.state_dict().items()}
            else:
                text = CLIPTextConfig.from_pretrained(folder / "text_encoder")
                model_files.require_fitting(lambda: network_class(config, CLIPTextModel(text)), folder)
                encoder, tokenizer = CLIPTextModel(text), load_tokenizer(folder / "tokenizer")
            network = network_class(config, encoder)
            network.load_state_dict(weights)
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
        model = cls(spec, network, tokenizer, statistics, clip, encoding)
        with checkpoint.translate_load_errors(folder):
            model._load_parts(folder, device)
            model._check()
        return model

    def _load_parts(self, folder: Path, device: str) -> None:
        """Load what a checkpoint holds beside the network."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint; ``genima.json`` is written last, and marks a complete folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / checkpoint.FILE).unlink(missing_ok=True)
        weights = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        if self.clip:
            weights = {name: tensor for name, tensor in weights.items() if not name.startswith(_TEXT_ENCODER)}
        save_file(weights, folder / f"{self.network_name}.safetensors")
        if not self.clip:
            self.network.text_encoder.config.save_pretrained(folder / "text_encoder")
            self.tokenizer.save_pretrained(folder / "tokenizer")
        checkpoint.write(
            folder, self.KIND, self.spec,
            **{self.network_name: asdict(self.network.config)},
            joint_mean=self.statistics.mean.tolist(), joint_deviation=self.statistics.deviation.tolist(),
            action_space=self.encoding.name, action_mean=self.encoding.statistics.mean.tolist(),
            action_deviation=self.encoding.statistics.deviation.tolist(),
            text_encoder=self.clip, text_encoder_fingerprint=self.clip and hub.fingerprint(self.network.text_encoder),
        )  # fmt: skip

    def unfreeze(self) -> None:
        """Make all weights trainable, except those of a pre-trained text encoder."""
        self.network.requires_grad_(True)
        if self.clip:
            self.network.text_encoder.requires_grad_(False)

    @property
    def network_name(self) -> str:
        """Name of the network in :data:`NETWORKS`."""
        return next(name for name, (network_class, _) in NETWORKS.items() if type(self.network) is network_class)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.network.parameters()).device

    def encode_images(self, images: Tensor, instructions: Sequence[str]) -> Tensor:
        """Return the network's input for images (B, views, H, W, 3) uint8."""
        return pixels(images.to(self.device))

    def embed_instructions(self, instructions: Sequence[str]) -> Tensor:
        """Return text embeddings (B, text_width), cached while the text encoder is frozen."""
        if any(parameter.requires_grad for parameter in self.network.text_encoder.parameters()):
            return self.network.embed_text(self._tokens(instructions))
        # Training uses embeddings cached in validation: no inference tensors, no half precision.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            for text in set(instructions) - set(self._texts):
                self._texts[text] = self.network.embed_text(self._tokens([text]))[0]
        return torch.stack([self._texts[text] for text in instructions]).to(self.device)

    def _tokens(self, instructions: Sequence[str]) -> Tensor:
        length = self.network.text_encoder.config.max_position_embeddings
        tokens = self.tokenizer(
            list(instructions), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return tokens.input_ids.to(self.device)

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


def require_sizes(name: str, config: BackboneConfig | ChunkConfig) -> None:
    """Raise a ValueError for a field of another type than its default, and for sizes that are not positive."""
    default = vars(type(config)())
    for field, value in vars(config).items():
        numbers = value if isinstance(value, tuple) else (value,)
        kinds = {type(x) for x in (default[field] if isinstance(default[field], tuple) else (default[field],))}
        kinds |= {int} if float in kinds else set()
        valid = isinstance(value, tuple) == isinstance(default[field], tuple) and {type(x) for x in numbers} <= kinds
        if valid and field == "dropout":
            valid = 0 <= value < 1
        elif valid and float in kinds:
            valid = min(numbers, default=0) > 0
        elif valid and int in kinds:
            valid = min(numbers, default=0) >= 1
        if not valid:
            raise ValueError(f"{name}.{field} is {shorten(repr(value))}")


_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which ResNets expect


def pixels(images: Tensor) -> Tensor:
    """Convert images (..., H, W, 3) uint8 rgb to (..., 3, H, W) with ImageNet's normalisation."""
    mean, deviation = torch.tensor(_MEAN), torch.tensor(_DEVIATION)
    scaled = (images.float() / 255 - mean.to(images.device)) / deviation.to(images.device)
    return scaled.movedim(-1, -3)
