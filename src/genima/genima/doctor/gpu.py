"""GPU checks against the needs of a checkpoint's models."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from genima.doctor.findings import Finding, fail, ok, skipped, warn
from genima.policy.spec import CONTROLLER, DIFFUSION_AGENT, FILE

_QUERY = "name,driver_version,memory.total,memory.used"
_WEIGHT = 4  # bytes: weights are in single precision
# GB in addition to the weights, estimated: CUDA itself, and decoding a 512x512 tile in single precision (simultaneous
# tensors, counted on shapes: 0.8; and work space of convolutions)
_CUDA, _DECODING = 0.6, 1.5
_MIB = 2**20 / 1e9  # GB
_SMALL = 100e6  # weights: a CPU generates several targets per second


class GraphicsCard(NamedTuple):
    """Graphics card, by nvidia-smi."""

    name: str
    driver: str
    total: float  # GB
    used: float  # GB


def find_cards() -> list[GraphicsCard] | str:
    """Return all NVIDIA cards, or the reason why they are unknown."""
    if shutil.which("nvidia-smi") is None:
        return "no NVIDIA driver (nvidia-smi is not there)"
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi does not answer: {error}"
    if output.returncode:
        return f"nvidia-smi: {(output.stdout + output.stderr).strip().splitlines()[0]}"
    try:
        return [_card(line) for line in output.stdout.splitlines()]
    except ValueError:  # [N/A] for cards with shared memory
        return f"nvidia-smi: unknown output ({output.stdout.strip().splitlines()[0]})"


def _card(line: str) -> GraphicsCard:
    name, driver, total, used = (cell.strip() for cell in line.split(","))
    return GraphicsCard(name, driver, float(total) * _MIB, float(used) * _MIB)


def cuda_problem() -> str:
    """Return the problem of PyTorch's CUDA; empty where it works."""
    import torch  # imported here: takes seconds

    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is built without CUDA"
    return "" if torch.cuda.is_available() else f"PyTorch {torch.__version__} finds no usable CUDA device"


def count_weights(folders: dict[str, Path]) -> tuple[int, str]:
    """Return the number of weights of a pair of checkpoints, base model included.

    The second value is the base model's name where it is not on this machine, else empty.

    Args:
        folders: by kind, as of :func:`genima.policy.spec.read_pair`.
    """
    from huggingface_hub import try_to_load_from_cache

    own = sum(_count(folders[kind]) for kind in (DIFFUSION_AGENT, CONTROLLER))
    config = json.loads((folders[DIFFUSION_AGENT] / FILE).read_text(encoding="utf-8"))
    name = config.get("base")
    if not name:
        return own, ""
    base = Path(name)
    if not base.is_dir():
        index = try_to_load_from_cache(name, "model_index.json")
        if not isinstance(index, str):
            return own, name
        base = Path(index).parent
    parts = ["vae", "text_encoder", "text_encoder_2", *(["unet"] if config["conditioning"] == "controlnet" else [])]
    return own + sum(_count(base / part) for part in parts), ""


def _count(folder: Path) -> int:
    from huggingface_hub import parse_local_safetensors_file_metadata

    files = [file for file in folder.rglob("*.safetensors") if ".fp16." not in file.name]
    return sum(sum(parse_local_safetensors_file_metadata(file).parameter_count.values()) for file in files)


def check_memory(found: list[GraphicsCard] | str, problem: str, count: int, missing: str) -> Iterator[Finding]:
    """Check that the models fit.

    Args:
        found: as of :func:`find_cards`.
        problem: as of :func:`cuda_problem`.
        count: the models' weights.
        missing: the base model that is not here, if any.
    """
    small = count < _SMALL and not missing
    needed = _WEIGHT * count / 1e9 + _CUDA + (0 if small else _DECODING)
    takes = f"{count / 1e6:.1f} M weights, about {needed:.1f} GB of a card (estimated)"
    if missing:
        yield warn("models", f"their base {missing} is not on this machine: the first start downloads it",
                   f"once, with a network: {Path(sys.executable).parent / 'hf'} download {missing}")  # fmt: skip
        takes = f"more than {takes}, the base not counted"
    if isinstance(found, str) or problem:
        why = found if isinstance(found, str) else problem
        if small:
            yield ok("graphics card", f"{why}; the models are small ({count / 1e6:.1f} M weights): a CPU is sufficient")
        else:
            remedy = "install NVIDIA's driver and PyTorch's CUDA build, or run the policy on another machine"
            yield warn("graphics card", f"{why}; the models have {takes}: a target would take many seconds", remedy)
        if not isinstance(found, str):
            yield from (ok(card.name, f"driver {card.driver}, {card.total:.0f} GB") for card in found)
        return
    for card in found:
        text = f"driver {card.driver}, {card.total - card.used:.1f} of {card.total:.1f} GB free; {takes}"
        if card.total < needed:
            yield fail(card.name, text, "use a larger card, or a smaller model")
        elif card.total - card.used < needed:
            yield warn(card.name, text, "stop other processes on it (nvidia-smi lists them)")
        else:
            yield ok(card.name, text)


def check_cards(folders: dict[str, Path] | None) -> Iterator[Finding]:
    """Check the cards against a pair of checkpoints; None without one."""
    if folders is None:
        found = find_cards()
        text = found if isinstance(found, str) else ", ".join(f"{card.name}, driver {card.driver}" for card in found)
        yield skipped("graphics card", f"no checkpoint to compare it with; there is: {text}")
        return
    yield from check_memory(find_cards(), cuda_problem(), *count_weights(folders))
