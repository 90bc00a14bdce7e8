"""Paths of shared files (config/, calibration/, models/), in a source tree or an installation."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from genima.errors import GenimaError


def shared(*parts: str) -> Path:
    """Return the path of a shared file or folder, e.g. ``shared("config", "robots", "panda.yaml")``.

    Looks in the source tree that this file lies in, then in ``share/genima_bringup`` of every ROS prefix.

    Raises:
        GenimaError: where no such file exists anywhere.
    """
    source_tree = Path(__file__).resolve().parents[4]
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    roots = [source_tree, *(p / "share" / "genima_bringup" for p in (*prefixes, Path(sys.prefix)))]
    for root in roots:
        with contextlib.suppress(OSError, ValueError):  # a name that is too long, or has a null byte
            if (path := root.joinpath(*parts)).exists():
                return path
    raise GenimaError(f"{str(Path(*parts))[:200]} not found; looked under {', '.join(map(str, roots))}")


def named(name_or_file: str | Path, *folder: str) -> Path:
    """Return the YAML file for a name: ``<name>.yaml`` of a shared folder, or the user's own file.

    Raises:
        GenimaError: where the project has none of that name.
    """
    path = Path(name_or_file)
    return path if path.suffix == ".yaml" else shared(*folder, f"{name_or_file}.yaml")
