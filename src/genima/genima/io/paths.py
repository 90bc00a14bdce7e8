"""Paths of shared files (config/, calibration/, models/), in a source tree or an installation."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from genima.errors import GenimaError

USER_PATH = "GENIMA_PATH"
"""Environment variable with the user's own folders, separated as in PATH."""


def user_folders() -> list[Path]:
    """Return the user's folders: tasks/, policies/, simulators/, perturbations/, config/ and calibration/ in each.

    Raises:
        GenimaError: for a folder that does not exist.
    """
    folders = [Path(folder).absolute() for folder in os.environ.get(USER_PATH, "").split(os.pathsep) if folder]
    for folder in folders:
        if not folder.is_dir():
            raise GenimaError(f"{USER_PATH}: no such folder ({folder}); set it to folders of your own, or unset it")
    return folders


def is_users_file(file: str | Path) -> bool:
    """Return whether a file lies in one of the user's own folders."""
    return any(Path(file).is_relative_to(folder) for folder in user_folders())


def shared(*parts: str) -> Path:
    """Return the path of a shared file or folder, e.g. ``shared("config", "robots", "panda.yaml")``.

    Looks in the source tree that this file lies in, in the user's own folders, then in ``share/genima_bringup`` of
    every ROS prefix.

    Raises:
        GenimaError: where no such file exists anywhere.
    """
    own = user_folders()
    roots = _roots(own)
    found: list[Path] = []
    with contextlib.suppress(OSError, ValueError):  # a name that is too long, or has a null byte
        found = [path for root in roots if (path := root.joinpath(*parts)).exists()]
    users = [path for path in found if is_users_file(path)]
    if users and users != found[:1]:
        raise GenimaError(f"{users[0]}: the name is taken ({found[0]}); rename yours")
    if found:
        return found[0]
    raise GenimaError(f"{str(Path(*parts))[:200]} not found; looked under {', '.join(map(str, roots))}")


def yaml_files(*folder: str) -> list[Path]:
    """Return the YAML files of a shared folder, the user's included, sorted by name.

    Raises:
        GenimaError: for a folder in ``GENIMA_PATH`` that does not exist.
    """
    files = [file for root in _roots(user_folders()) for file in root.joinpath(*folder).glob("*.yaml")]
    by_name = {file.stem: file for file in reversed(files)}  # the first one of a name counts
    return [by_name[name] for name in sorted(by_name)]


def _roots(own: list[Path]) -> list[Path]:
    """Return the folders of shared files: the source tree, the user's ``own``, those of ROS prefixes."""
    source_tree = Path(__file__).resolve().parents[4]
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    return [source_tree, *own, *(p / "share" / "genima_bringup" for p in (*prefixes, Path(sys.prefix)))]


def config_file(name_or_file: str | Path, *folder: str) -> Path:
    """Return the YAML file for a name: ``<name>.yaml`` of a shared folder, or the user's own file.

    Raises:
        GenimaError: where the project has none of that name.
    """
    path = Path(name_or_file)
    return path if path.suffix == ".yaml" else shared(*folder, f"{name_or_file}.yaml")
