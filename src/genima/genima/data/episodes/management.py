"""Operations on demos: judge, delete, rename, move, copy; never on existing targets or demos being written."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from genima.data.episodes.bag import TASK, BagReader
from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.folders import (
    DELETED,
    JUDGEMENT,
    LOCK,
    METADATA,
    PARTIAL,
    BagLock,
    is_bag_file,
    is_demo,
    require_not_recording,
)
from genima.data.episodes.judgement import write_judgement
from genima.errors import GenimaError
from genima.io.files import shorten
from genima.io.outputs import output_folder

_FIELDS = re.compile(r"\{(\w*)\}")
_NAME_BYTES = 200


def judge(demo: Path, success: bool) -> None:
    """Store whether a demo succeeded.

    Raises:
        GenimaError: for a folder that is no demo, is being written, or cannot be written.
    """
    with _locked(demo):
        write_judgement(demo, success)


def undo_judgement(demo: Path) -> bool:
    """Remove a judgement of :func:`judge`; return whether there was one.

    Raises:
        GenimaError: for a folder that is no demo, is being written, or cannot be written.
    """
    with _locked(demo):
        exists = (demo / JUDGEMENT).exists()
        (demo / JUDGEMENT).unlink(missing_ok=True)
    return exists


def require_deletable(demo: Path) -> None:
    """Check that a folder is a demo without other files.

    Raises:
        GenimaError: for another folder, other files, and a demo being written.
    """
    _require_demo(demo)
    foreign = sorted(entry.name for entry in os.scandir(demo) if entry.is_dir() or not _is_of_demo(entry.name))
    if foreign:
        raise GenimaError(f"{demo}: other files than a demo's ({shorten(foreign[0])}); move them away first")
    if demo.is_symlink():
        raise GenimaError(f"{demo} is a link; name the demo itself")
    require_not_recording(demo)


def delete(demo: Path) -> Path:
    """Move a demo to the trash folder in its parent folder; return its new path.

    Raises:
        GenimaError: as :func:`require_deletable`, and when it cannot be moved.
    """
    require_deletable(demo)
    demo = demo.absolute()
    place = demo.parent / DELETED / time.strftime("%Y-%m-%d_%H-%M-%S") / demo.name
    for k in range(2, 1000):
        if not place.exists():
            break
        place = place.parent.with_name(f"{place.parent.name.split('.')[0]}.{k}") / demo.name
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GenimaError(f"cannot write {place.parent}: {error.strerror}") from None
    move(demo, place)
    return place


def restore(demo: Path) -> None:
    """Move back the demo deleted last under a name.

    Raises:
        GenimaError: without a deleted demo, for a used name, and when it cannot be moved.
    """
    demo = demo.absolute()
    trash = demo.parent / DELETED
    deleted = sorted((path for path in trash.glob("*") if (path / demo.name).is_dir()), key=lambda path: path.name)
    if not deleted:
        raise GenimaError(f"no demo {demo.name} in {trash}")
    move(deleted[-1] / demo.name, demo)
    with contextlib.suppress(OSError):  # not empty
        deleted[-1].rmdir()
        trash.rmdir()


def new_names(demos: Sequence[Path], scheme: str, first: int) -> dict[Path, Path]:
    """Return new places of demos by a scheme with {number}, {name}, {task} and {date}.

    Raises:
        GenimaError: for a scheme with empty or equal names, and demos without its fields.
    """
    unknown = sorted(set(_FIELDS.findall(scheme)) - {"number", "name", "task", "date"})
    if unknown or "{" in _FIELDS.sub("", scheme) or "}" in _FIELDS.sub("", scheme):
        raise GenimaError(f"--to {shorten(scheme)}: knows {{number}}, {{name}}, {{task}} and {{date}} only")
    digits = max(3, len(str(first + len(demos) - 1)))
    pairs: dict[Path, Path] = {}
    for number, demo in enumerate(demos, first):
        values = {"number": f"{number:0{digits}}", "name": demo.absolute().name}
        if "{task}" in scheme or "{date}" in scheme:
            values["task"], values["date"] = _task_and_date(demo)
            if "{task}" in scheme and not values["task"]:
                raise EpisodeError(demo, "is empty; name it without {task}", TASK)
        name = _FIELDS.sub(lambda match, values=values: values[match[1]], scheme)  # type: ignore[misc]
        if (
            not name
            or name != Path(name).name
            or name.startswith(".")
            or not name.isprintable()
            or len(name.encode()) > _NAME_BYTES
        ):
            raise GenimaError(f"--to {shorten(scheme)}: {shorten(name)!r} is no name of a folder")
        pairs[demo] = demo.absolute().parent / name if demo.absolute().name != name else demo
    targets = [target.absolute() for target in pairs.values()]
    if twice := sorted({target.name for target in targets if targets.count(target) > 1}):
        raise GenimaError(f"--to {shorten(scheme)}: several demos would be {twice[0]}; take {{number}} or {{name}} in")
    return pairs


def rename(pairs: Mapping[Path, Path]) -> None:
    """Rename demos; cyclic renames are allowed.

    Raises:
        GenimaError: before renaming, for a used name, and a folder that is no demo or is being written.
    """
    pending = {old.absolute(): new.absolute() for old, new in pairs.items() if old.absolute() != new.absolute()}
    for old, new in pending.items():
        _require_demo(old)
        require_not_recording(old)
        if new not in pending:
            _require_free(new)
    while pending:
        ready = [old for old, new in pending.items() if not new.exists()]
        if not ready:  # cyclic names: one demo gets a temporary name
            old = next(iter(pending))
            temporary = old.with_name(f".{old.name[:100]}.{os.getpid()}.renamed")
            move(old, temporary)
            pending[temporary] = pending.pop(old)
            continue
        for old in ready:
            move(old, pending.pop(old))


def merge(demos: Sequence[Path], out: Path) -> dict[Path, Path | None]:
    """Return the targets of demos in a folder; None for those that exist there already.

    Raises:
        GenimaError: for equal names, another demo of that name, and a demo being written.
    """
    targets: dict[Path, Path | None] = {}
    taken: dict[str, Path] = {}
    for demo in demos:
        name = demo.absolute().name
        if name in taken:
            raise GenimaError(f"{taken[name]} and {demo} have the same name; rename one: ./genima episodes rename")
        taken[name] = demo
        require_not_recording(demo)
        target = out / name
        if not target.exists():
            _require_free(target)
            targets[demo] = target
        elif _is_same(demo, target):
            targets[demo] = None
        else:
            raise GenimaError(f"{target} is another demo than {demo}; rename one: ./genima episodes rename")
    return targets


def move(source: Path, target: Path) -> None:
    """Move a demo within its file system; existing files are not replaced.

    Raises:
        GenimaError: for an existing target, a demo being written, and when it cannot be moved.
    """
    with _locked(source) as lock:
        _require_free(target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.mkdir()  # the move replaces an empty folder; an existing target raises
            try:
                source.rename(target)
            except BaseException:
                target.rmdir()
                raise
        except OSError as error:
            raise GenimaError(f"cannot move {source} to {target}: {error.strerror}") from None
        lock.release(target)


def copy(source: Path, target: Path) -> None:
    """Copy a demo; it appears under its name when it is complete.

    Raises:
        GenimaError: for an existing target, a demo being written, and without space or permission.
    """
    with _locked(source):
        size = sum(entry.stat().st_size for entry in os.scandir(source) if entry.is_file())
        with output_folder(target, "demo") as part:
            free = shutil.disk_usage(part).free
            if size > free:
                raise GenimaError(f"cannot write {target}: it takes {size / 1e9:.2f} GB, {free / 1e9:.2f} are left")
            try:
                shutil.copytree(source, part, ignore=shutil.ignore_patterns(LOCK), dirs_exist_ok=True)
            except (OSError, shutil.Error) as error:
                raise GenimaError(f"cannot write {target}: {shorten(str(error), 200)}") from None
            if (target.parent / PARTIAL / target.name).exists():
                raise GenimaError(f"{target} is being recorded")


@contextlib.contextmanager
def _locked(demo: Path) -> Iterator[BagLock]:
    """Lock a demo against repair and recording."""
    _require_demo(demo)
    require_not_recording(demo)
    lock = BagLock(demo)
    try:
        yield lock
    finally:
        lock.release(demo)


def _require_demo(demo: Path) -> None:
    if not demo.is_dir():
        raise GenimaError(f"no demo {demo}")
    if PARTIAL in demo.absolute().parts:
        raise GenimaError(f"{demo} is not complete; recover it with ./genima episodes repair")
    if not is_demo(demo):
        raise GenimaError(f"{demo} is no demo (rosbag2 folder); name the demos themselves")


def _require_free(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise GenimaError(f"{target} exists already; take another name")
    if (target.parent / PARTIAL / target.name).exists():
        raise GenimaError(f"{target} is being recorded, or was; take another name")


def _is_of_demo(name: str) -> bool:
    plain = name.removesuffix(".torn").removesuffix("-wal").removesuffix("-shm").removesuffix("-journal")
    repaired = name.startswith(".") and name.endswith(".repair")
    return is_bag_file(plain) or repaired or name in (METADATA, JUDGEMENT, LOCK)


def _is_same(demo: Path, other: Path) -> bool:
    """Return whether two folders are the same, or hold files of the same names, sizes and metadata."""
    if demo.samefile(other):
        return True
    own, others = (
        {entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.name not in (LOCK, JUDGEMENT)}
        for folder in (demo, other)
    )
    if own != others or METADATA not in own:
        return False
    return (demo / METADATA).read_bytes() == (other / METADATA).read_bytes()


def _task_and_date(demo: Path) -> tuple[str, str]:
    """Return the instruction, as part of a name, and the start of the recording (local time)."""
    with BagReader(demo) as bag:
        words = ""
        for message in bag.messages({TASK}):
            words = bag.deserialize(message).data
        start = bag.start_ns
    task = re.sub(r"[^\w]+", "_", words.lower()).strip("_")[:40]
    return task, time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(start / 1e9))
