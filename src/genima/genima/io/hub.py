"""Pre-trained models by Hugging Face hub name, or from a local folder."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi
from torch import nn
from transformers.utils import logging

from genima.errors import GenimaError
from genima.io import model_files
from genima.io.files import shorten

_Part = TypeVar("_Part")


def load(from_pretrained: Callable[..., _Part], name: str, what: str, otherwise: str) -> _Part:
    """Load a pre-trained model from a local folder, the hub's cache or the hub, in this order.

    Args:
        what: the part, for the error.
        otherwise: what can be done without it, for the error.

    Raises:
        GenimaError: when it is in none of these places, or damaged.
    """
    try:
        with _quiet_loading():
            if Path(name).is_dir():
                model_files.require_safe(Path(name), f"{what} {name}")
                return from_pretrained(name)
            try:
                return from_pretrained(name, local_files_only=True)
            except (OSError, ValueError):
                HfApi().model_info(name, timeout=5)  # fails at once without a network, where a download tries for long
                return from_pretrained(name)
    except GenimaError:
        raise
    except Exception as error:  # the libraries raise many kinds
        reason = shorten(str(error).strip().splitlines()[0] if str(error).strip() else repr(error), 300)
        raise GenimaError(
            f"{what} {name} cannot be loaded ({reason}); connect to the hub once, name a folder that holds it, "
            f"or {otherwise}"
        ) from None


@contextlib.contextmanager
def _quiet_loading() -> Iterator[None]:
    """Silence transformers' list of unused weights within the context."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def fingerprint(*modules: nn.Module) -> str:
    """Return a hash of a few values of every parameter, to compare models."""
    digest = hashlib.sha256()
    for module in modules:
        for name, parameter in sorted(module.named_parameters()):
            digest.update(f"{name}{tuple(parameter.shape)}".encode())
            digest.update(parameter.detach().flatten()[:8].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
