"""Judgement of a demo after its recording, in a separate file: the bag stays as recorded."""

from __future__ import annotations

import time
from pathlib import Path

from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.folders import JUDGEMENT
from genima.errors import GenimaError
from genima.io.files import FileSchema, atomic_write, load_yaml


class Judgement(FileSchema):
    """Content of judgement.yaml; it takes precedence over the topic /success of the bag."""

    success: bool
    judged: str = ""  # time, ISO 8601


def read_judgement(folder: Path) -> bool | None:
    """Return a demo's judgement after its recording; None without one.

    Raises:
        EpisodeError: when the file is damaged.
    """
    path = folder / JUDGEMENT
    if not path.exists():
        return None
    try:
        return load_yaml(Judgement, path, "judgement").success
    except GenimaError as error:
        raise EpisodeError(folder, f"{error}; judge it again") from None


def write_judgement(folder: Path, success: bool) -> None:
    """Write a judgement.

    Raises:
        GenimaError: when it cannot be written.
    """
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    atomic_write(folder / JUDGEMENT, f"success: {str(success).lower()}\njudged: '{now}'\n".encode())
