"""Pre-trained parts of the networks: ImageNet ResNet and CLIP text encoder."""

from __future__ import annotations

import torch
from transformers import AutoTokenizer, CLIPTextModel, PreTrainedTokenizerBase, ResNetModel

from genima.errors import GenimaError
from genima.io import hub
from genima.policy.visuomotor.backbone import FilmResNet


def load_imagenet(backbone: FilmResNet, name_or_folder: str) -> None:
    """Load the weights of a ResNet, on the hub or in a local folder, into a backbone.

    Raises:
        GenimaError: when loading fails, weights are missing, or sizes differ from the backbone's.
    """
    resnet, info = hub.load(
        lambda name, **options: ResNetModel.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        ),
        name_or_folder, "the ResNet", "train the backbone from random weights",
    )  # fmt: skip
    if missing := sorted(info["missing_keys"]):
        raise GenimaError(f"{name_or_folder} is no ResNet: it has no weights {missing[0]} and {len(missing) - 1} more")
    widths, depths = tuple(resnet.config.hidden_sizes), tuple(resnet.config.depths)
    try:
        backbone.embedder.load_state_dict(resnet.embedder.state_dict())
        backbone.stages.load_state_dict(resnet.encoder.stages.state_dict())
    except RuntimeError:
        raise GenimaError(
            f"the ResNet {name_or_folder} (widths {widths}, depths {depths}, {resnet.config.layer_type} layers) does "
            f"not fit the network's (widths {backbone.config.backbone_widths}, "
            f"depths {backbone.config.backbone_depths}, basic layers); name another, or train from "
            "random weights"
        ) from None


def load_clip(name_or_folder: str) -> tuple[CLIPTextModel, PreTrainedTokenizerBase]:
    """Load a frozen CLIP text encoder and its tokenizer, from the hub or a local folder.

    Raises:
        GenimaError: when loading fails, or weights are missing.
    """
    otherwise = "train a small text encoder of its own"
    encoder, info = hub.load(
        lambda name, **options: CLIPTextModel.from_pretrained(
            name, dtype=torch.float32, attention_dropout=0.0, use_safetensors=True, output_loading_info=True, **options
        ),
        name_or_folder, "the text encoder", otherwise,
    )  # fmt: skip
    if missing := sorted(info["missing_keys"]):
        raise GenimaError(f"{name_or_folder} is no CLIP: it has no weights {missing[0]} and {len(missing) - 1} more")
    tokenizer = hub.load(
        lambda name, **options: AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options),
        name_or_folder, "the tokenizer of", otherwise,
    )  # fmt: skip
    return encoder.requires_grad_(False).eval(), tokenizer
