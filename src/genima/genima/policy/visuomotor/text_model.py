"""Model around a network that text conditions: specification, tokenizer, and the checkpoint's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerBase

from genima.errors import GenimaError
from genima.io import hub, model_files
from genima.io.files import shorten
from genima.policy import spec as checkpoint
from genima.policy.small_text_encoder import load_tokenizer
from genima.policy.spec import PolicySpec
from genima.policy.visuomotor.pretrained import load_clip
from genima.robot.model import RobotModel

_TEXT_ENCODER = "text_encoder."  # its weights' prefix


class TextConditionedModel:
    """Base of models with a network, which has a ``config`` and a ``text_encoder``."""

    KIND: ClassVar[str]  # in ``genima.json``
    network: Any

    def __init__(
        self, spec: PolicySpec, network: Any, tokenizer: PreTrainedTokenizerBase, clip: str | None = None
    ) -> None:
        """Args:
        spec: what it was trained for.
        network: of the model.
        tokenizer: of the network's text encoder.
        clip: source of a frozen text encoder for ``load_clip``; checkpoints name it without its weights. None: the text
            encoder was trained with the network.
        """
        self.spec, self.network, self.tokenizer = spec, network, tokenizer
        self.clip = str(Path(clip).resolve()) if clip and Path(clip).is_dir() else clip
        self.robot = RobotModel.load(spec.robot)
        spec.require_robot(self.robot, f"the {self.KIND}")

    def _save(self, folder: Path, name: str, **about: Any) -> None:
        """Write the network under its name, and ``about`` into ``genima.json``, which marks a complete folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / checkpoint.FILE).unlink(missing_ok=True)
        weights = {key: tensor.contiguous() for key, tensor in self.network.state_dict().items()}
        if self.clip:
            weights = {key: tensor for key, tensor in weights.items() if not key.startswith(_TEXT_ENCODER)}
        save_file(weights, folder / f"{name}.safetensors")
        if not self.clip:
            self.network.text_encoder.config.save_pretrained(folder / "text_encoder")
            self.tokenizer.save_pretrained(folder / "tokenizer")
        checkpoint.write(
            folder, self.KIND, self.spec, **{name: asdict(self.network.config)}, **about,
            text_encoder=self.clip, text_encoder_fingerprint=self.clip and hub.fingerprint(self.network.text_encoder),
        )  # fmt: skip

    def unfreeze(self) -> None:
        """Make all weights trainable, except those of a pre-trained text encoder."""
        self.network.requires_grad_(True)
        if self.clip:
            self.network.text_encoder.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        device: torch.device = next(self.network.parameters()).device
        return device

    def tokens(self, instructions: Sequence[str]) -> Tensor:
        """Return token ids (B, L) for the network's text encoder, on its device."""
        length = self.network.text_encoder.config.max_position_embeddings
        tokens = self.tokenizer(
            list(instructions), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return tokens.input_ids.to(self.device)


def load_network(
    folder: Path, name: str, network_class: type[Any], config_class: type[Any], about: Mapping[str, Any]
) -> tuple[Any, Any, PreTrainedTokenizerBase]:
    """Load the configuration, the network and the tokenizer of a checkpoint.

    Args:
        folder: of the checkpoint.
        name: of the network, in ``genima.json`` and of the weights' file.
        network_class: constructed from the configuration and the text encoder.
        config_class: of the network's sizes.
        about: content of ``genima.json``.

    Raises:
        GenimaError: for another version of the text encoder, and sizes that do not fit the weights.
        ValueError: for sizes out of range.
    """
    model_files.require_moderate(about[name], folder / checkpoint.FILE)
    config = config_class.from_dict(about[name])
    _require_sizes(name, config)
    weights = load_file(folder / f"{name}.safetensors")
    if clip := about["text_encoder"]:
        encoder, tokenizer = load_clip(clip)
        if hub.fingerprint(encoder) != about["text_encoder_fingerprint"]:
            raise GenimaError(f"checkpoint {folder} was trained with another version of {clip}")
        model_files.require_fitting(lambda: network_class(config, encoder), folder, _TEXT_ENCODER)
        weights |= {_TEXT_ENCODER + key: value for key, value in encoder.state_dict().items()}
    else:
        text = CLIPTextConfig.from_pretrained(folder / "text_encoder")
        model_files.require_fitting(lambda: network_class(config, CLIPTextModel(text)), folder)
        encoder, tokenizer = CLIPTextModel(text), load_tokenizer(folder / "tokenizer")
    network = network_class(config, encoder)
    network.load_state_dict(weights)
    return config, network, tokenizer


def _require_sizes(name: str, config: Any) -> None:
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
