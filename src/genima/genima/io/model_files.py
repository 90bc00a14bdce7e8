"""Checks of model folders from others, before a library loads them.

Configurations may name classes that a library then imports, code that it runs, or sizes for which it takes all memory.
Only known classes and moderate sizes pass; weights are read from safetensors alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from genima.errors import GenimaError
from genima.io.files import read_json, shorten

# Of diffusers. The steps of the first can be sampled; of the others a base model's settings are taken.
SchedulerName = Literal[
    "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "DDIMScheduler", "DDPMScheduler", "LCMScheduler"
]  # fmt: skip
SCHEDULERS: tuple[str, ...] = get_args(SchedulerName)
_BASE_SCHEDULERS = (
    *SCHEDULERS, "PNDMScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "LMSDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DEISMultistepScheduler",
    "UniPCMultistepScheduler", "TCDScheduler",
)  # fmt: skip
_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
_PIPELINES = (
    "StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusionInstructPix2PixPipeline",
    "StableDiffusionXLInstructPix2PixPipeline", "StableDiffusionControlNetPipeline",
)  # fmt: skip
# What the parts of a base model may be, by their names in model_index.json: (library, class).
_PARTS: dict[str, Collection[tuple[str, str]]] = {
    "unet": [("diffusers", "UNet2DConditionModel")],
    "vae": [("diffusers", "AutoencoderKL")],
    "scheduler": [("diffusers", name) for name in _BASE_SCHEDULERS],
    "text_encoder": [("transformers", "CLIPTextModel")],
    "text_encoder_2": [("transformers", "CLIPTextModelWithProjection")],
    "tokenizer": [("transformers", name) for name in _TOKENIZERS],
    "tokenizer_2": [("transformers", name) for name in _TOKENIZERS],
    "feature_extractor": [("transformers", "CLIPImageProcessor"), ("transformers", "CLIPFeatureExtractor")],
    "image_encoder": [("transformers", "CLIPVisionModelWithProjection")],
    "safety_checker": [("stable_diffusion", "StableDiffusionSafetyChecker")],
    "controlnet": [("diffusers", "ControlNetModel")],
}
_NETWORKS = ("UNet2DConditionModel", "ControlNetModel", "AutoencoderKL", "AutoencoderTiny", "PatchCodec")
_LABELS = ("id2label", "label2id")  # of a classifier: 754 is "record player", not a number of layers
_INDEX = "model_index.json"
_CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json", _INDEX)
# Keys by which libraries find code, or other files, to load.
_CODE = (
    "auto_map", "custom_pipelines", "custom_pipeline", "quantization_config", "base_model_name_or_path",
    "text_config_module", "module_file", "trust_remote_code",
)  # fmt: skip
_ATTENTION = (None, "eager", "sdpa")  # others name kernels to be downloaded
_LARGEST = 10**6  # of a network's sizes: a vocabulary has 50 thousand tokens
_DEEPEST = 100  # layers, or attention heads
_WIDEST = 16  # values of a list: a UNet has four blocks; a schedule may list its steps
_STEPS = 1000


def require_safe(folder: Path, what: str) -> None:
    """Check all configurations in a model's folder.

    Args:
        folder: of a model, or of a pipeline with its parts in folders.
        what: names it in errors: "checkpoint runs/mine/controller".

    Raises:
        GenimaError: for a configuration that cannot be read, names code or unknown classes, or asks for sizes that no
            network has.
    """
    for file in sorted(path for path in folder.glob("**/*.json") if path.name in _CONFIGS):
        data = read_json(file, "model configuration")
        if not isinstance(data, dict):
            raise GenimaError(f"model configuration {file}: not a mapping")
        _require_plain(data, file, what)
        if file.name == _INDEX:
            require_known_parts(data, file)
        if file.name == "tokenizer_config.json":
            _require_listed(data.get("tokenizer_class"), (None, *_TOKENIZERS), "tokenizer class", file)
        elif file.name == "scheduler_config.json":
            _require_listed(data.get("_class_name"), (None, *_BASE_SCHEDULERS), "scheduler", file)
        elif file.name == "config.json":
            _require_listed(data.get("_class_name"), (None, *_NETWORKS), "class", file)
        if file.name in ("scheduler_config.json", "config.json"):
            require_moderate(data, file)


def require_known_parts(index: Any, file: Path) -> None:
    """Check the content of a pipeline's ``model_index.json``: only parts that a Stable Diffusion has.

    Raises:
        GenimaError: for another pipeline, part or class.
    """
    if not isinstance(index, dict):
        raise GenimaError(f"model configuration {file}: not a mapping")
    _require_listed(index.get("_class_name"), _PIPELINES, "pipeline", file)
    for name, part in index.items():
        if not isinstance(part, list):
            continue
        known = _PARTS.get(name)
        if known is None:
            raise GenimaError(f"model configuration {file}: unknown part {shorten(repr(name))}; Genima loads none such")
        if part != [None, None] and tuple(map(str, part)) not in known:
            raise GenimaError(
                f"model configuration {file}: {name} is {shorten(repr(part))}, not one of "
                f"{', '.join('.'.join(pair) for pair in known)}; Genima loads no other"
            )


def load_scheduler(folder: Path, name: str) -> Any:
    """Load the scheduler of a folder's ``scheduler_config.json``; ``name`` is one of :data:`SCHEDULERS`.

    Raises:
        GenimaError: for another name, a missing file, or another class in it.
        ValueError, TypeError: for settings that the scheduler does not take.
    """
    import diffusers  # imported here: reading a specification must be quick

    file = folder / "scheduler_config.json"
    _require_listed(name, SCHEDULERS, "scheduler", folder)
    config = read_json(file, "scheduler configuration")
    if not isinstance(config, dict):
        raise GenimaError(f"scheduler configuration {file}: not a mapping")
    _require_listed(config.get("_class_name", name), (name,), "scheduler", file)
    require_moderate(config, file)
    return getattr(diffusers, name).from_config(config)


def require_network(kind: Any, folder: Path, config: Any = None) -> None:
    """Check the number of weights against the configuration, before memory is allocated for them.

    Args:
        kind: class of the network, of diffusers or transformers.
        folder: holds ``config.json`` and safetensors.
        config: of a network of transformers; diffusers' read it themselves.

    Raises:
        GenimaError: for a configuration of another class, or of a larger network than there are weights for.
    """
    file = folder / "config.json"
    data = read_json(file, "model configuration")
    if config is None:
        _require_listed(data.get("_class_name"), (kind.__name__,), "class", file)
    require_fitting(lambda: kind.from_config(data) if config is None else kind(config), folder)


def require_fitting(build: Callable[[], Any], folder: Path, elsewhere: str | None = None) -> None:
    """Check that the safetensors in a folder can hold the network that ``build`` makes, at a byte a weight.

    Args:
        build: makes the network on the device "meta".
        folder: holds the safetensors.
        elsewhere: how the names of those weights begin that other files hold.

    Raises:
        GenimaError: when they cannot.
    """
    import torch  # imported here: reading a specification must be quick

    with torch.device("meta"):  # shapes without memory
        weights = build().state_dict()
    count = sum(x.numel() for name, x in weights.items() if elsewhere is None or not name.startswith(elsewhere))
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if not 0 < count <= size:
        raise GenimaError(f"{folder}: its configuration asks for {count} weights, its safetensors hold {size} bytes")


def _require_listed(value: Any, known: Iterable[str | None], what: str, file: Path) -> None:
    names = [name for name in known if name]
    if value not in list(known):
        raise GenimaError(
            f"model configuration {file}: {what} {shorten(repr(value))} is not one of {', '.join(names)}; "
            "Genima loads no other"
        )


def _require_plain(data: Any, file: Path, what: str) -> None:
    for key, value in _pairs(data):
        if key in _CODE and value not in (None, False, [], {}):
            raise GenimaError(f"{what}: {file} asks for code or files of others ({key}); Genima never loads those")
        if key.lstrip("_").startswith("attn_implementation") and value not in (*_ATTENTION, False, True):
            raise GenimaError(f"{what}: {file} asks for code of others ({key} {shorten(repr(value))}); remove that")


def require_moderate(data: Any, file: Path) -> None:
    """Check the numbers of a network's configuration.

    Raises:
        GenimaError: for a size or a number of layers that no network has.
    """
    for key, value in _pairs(data):
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            deep = any(part in key for part in ("layer", "depth", "head", "block_repeat")) and "dim" not in key
            if abs(number) > (_DEEPEST if deep and "norm" not in key and "eps" not in key else _LARGEST):
                raise GenimaError(f"model configuration {file}: {key} is {shorten(str(number))}, which no network has")
        if isinstance(value, list) and len(value) > (_STEPS if key == "trained_betas" else _WIDEST):
            raise GenimaError(f"model configuration {file}: {key} has {len(value)} values, which no network has")


def _pairs(data: Any) -> Iterator[tuple[str, Any]]:
    """Yield each key of nested mappings with its value."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key not in _LABELS:
                yield str(key), value
                yield from _pairs(value)
    elif isinstance(data, list):
        for value in data:
            yield from _pairs(value)
