"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import yaml

from genima.errors import GenimaError


def read_yaml(path: Path, what: str) -> Any:
    """What a YAML file holds.

    Args:
        what: it is, for messages: "board", "robot model".

    Raises:
        GenimaError: for a file that is missing, cannot be read or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise GenimaError(f"{what} {path} does not exist") from None
    except OSError as error:
        raise GenimaError(f"cannot read {what} {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise GenimaError(f"{what} {path} is not YAML: {' '.join(str(error).split())}") from None


def require_writable(path: Path) -> None:
    """Find out before long work whether its result can be written to ``path``; what is there stays as it is.

    Raises:
        GenimaError: when there is no room or no right to.
    """
    if path.is_dir():
        raise GenimaError(f"cannot write {path}: it is a folder")
    probe = path.with_name(path.name + ".probe")
    write_whole(probe, b"room and right to write\n")
    probe.unlink()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in one step, with its folder where that is missing.

    Raises:
        GenimaError: when there is no room or no right to; nothing half-written is left then.
    """
    if not path.name:
        raise GenimaError(f"cannot write {path}: it is a folder")
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise GenimaError(f"cannot write {path}: {error.strerror}") from None


def keep_former(path: Path) -> Path | None:
    """Copy a file that is about to be written anew, to its name with the time of its last change; None where there is
    none.

    Raises:
        GenimaError: when there is no room or no right to.
    """
    if not path.exists():
        return None
    former = path.with_name(f"{path.name}.{time.strftime('%Y-%m-%d_%H-%M-%S', time.localtime(path.stat().st_mtime))}")
    try:
        shutil.copy2(path, former)
    except OSError as error:
        raise GenimaError(f"cannot write {former}: {error.strerror}") from None
    return former
