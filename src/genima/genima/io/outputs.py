"""Output folders of commands: existing files are kept, incomplete ones removed.

One rule for all: an output that exists is refused; with ``overwrite`` it is replaced only where it is an output of the
same kind; while it is written, a lock keeps other processes out; it appears under its name when it is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from genima.errors import GenimaError


@contextlib.contextmanager
def output_folder(
    path: Path, what: str, overwrite: bool = False, is_ours: Callable[[Path], bool] | None = None
) -> Iterator[Path]:
    """Yield an empty folder that becomes ``path`` at the end; it is removed when the block raises.

    Args:
        path: the output; its parents are made.
        what: names the output in errors: "LeRobot dataset".
        overwrite: replace an existing output of the same kind.
        is_ours: tells an output of this kind from other folders; required for ``overwrite``.

    Raises:
        GenimaError: when ``path`` exists and may not be replaced, another process writes it, or there is no space or
            no permission.
    """
    path = path.absolute()  # the working folder may change meanwhile; links stay as they are
    require_free(path, what, overwrite, is_ours)
    with output_lock(path, what):
        lock = path.with_name(f".{path.name}.lock")
        try:
            _remove_unfinished(path, lock)
            part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
            lock.write_text(part.name, encoding="utf-8")
            part.chmod(0o777 & ~_umask())
        except OSError as error:
            raise GenimaError(f"cannot write {what} {path}: {error.strerror}") from None
        try:
            yield part
            require_free(path, what, overwrite, is_ours)  # another process may have made it meanwhile
            _replace_folder(part, path, what)
        finally:
            shutil.rmtree(part, ignore_errors=True)  # made above by this process alone


def require_free(path: Path, what: str, overwrite: bool = False, is_ours: Callable[[Path], bool] | None = None) -> None:
    """Check that an output may be written: a free or empty path, or with ``overwrite`` an output of its kind.

    Raises:
        GenimaError: when something else is there.
    """
    if not path.name or path.name == "..":
        raise GenimaError(f"{what} {path}: name a new folder or file")
    try:
        if not path.exists() and not path.is_symlink():
            return
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            return
        ours = is_ours is not None and path.exists() and not path.is_symlink() and is_ours(path)
    except OSError as error:
        raise GenimaError(f"cannot read {path}: {error.strerror}") from None
    if not ours:
        remedy = "name another" if is_ours is None or overwrite else "name another, or remove it yourself"
        raise GenimaError(f"{what} {path}: already exists{'' if is_ours is None else ' and is not one'}; {remedy}")
    if not overwrite:
        raise GenimaError(f"{what} {path}: already exists; name another, or replace it with --overwrite")


def require_same_settings(what: str, stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Check that a result that is to be continued was begun with the same settings.

    Args:
        what: names the output in errors: "result runs/result.json".
        stored: settings in the output, plain JSON types.
        current: settings of this run; the field ``checkpoint``, a name, may differ: its digest is compared.

    Raises:
        GenimaError: names the first setting that differs, with both values.
    """
    current = json.loads(json.dumps(current))  # tuples become lists
    for key in sorted((current.keys() | stored.keys()) - {"checkpoint"}):
        old, new = stored.get(key), current.get(key)
        if old != new:
            raise GenimaError(
                f"{what}: of another run ({key}: {json.dumps(old)}, not {json.dumps(new)}); "
                "name another --out, or replace it with --overwrite"
            )


@contextlib.contextmanager
def output_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of an output, ``.<name>.lock`` in its folder, which is made; a killed process releases it.

    Raises:
        GenimaError: when another process holds it, or there is no permission.
    """
    file = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise GenimaError(f"cannot write {what} {path}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), os.stat(file)):
                raise BlockingIOError  # its owner has just finished
        except (BlockingIOError, FileNotFoundError):
            raise GenimaError(f"{what} {path}: another process is writing it; wait for it, or name another") from None
        try:
            yield
        finally:
            file.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _remove_unfinished(path: Path, lock: Path) -> None:
    """Remove a killed process's temporary folder for this output; the name is in its lock file."""
    name = lock.read_text(encoding="utf-8", errors="replace")
    if name.startswith(f".{path.name}.") and name.endswith(".partial") and "/" not in name and "\0" not in name:
        left = path.with_name(name)
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)


def _replace_folder(part: Path, path: Path, what: str) -> None:
    old = None
    try:
        if path.exists():
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
            else:
                old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".replaced", dir=path.parent)) / path.name
                path.rename(old)
        part.rename(path)
    except OSError as error:
        if old is not None and not path.exists():
            old.rename(path)
        raise GenimaError(f"cannot write {what} {path}: {error.strerror}") from None
    if old is not None:
        shutil.rmtree(old.parent, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
