"""Folders of demos, and locks for their writers."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from genima.errors import GenimaError
from genima.io.files import YAML_BYTES, parse_yaml, read_text
from genima.system.terminal import printable

METADATA = "metadata.yaml"
PARTIAL = ".partial"  # folder next to the demos, of those being written
DELETED = ".deleted"  # folder next to the demos, of deleted ones
JUDGEMENT = "judgement.yaml"  # in the folder of a demo that was judged after its recording
LOCK = "recording.lock"  # in the folder of a demo that is being written
RECREATABLE = "recreatable"  # in the lock of a demo that a command can write again after an interruption

_SUFFIXES = (".mcap", ".db3")
_INFORMATION = "rosbag2_bagfile_information"


# ------------------------------------------------------------------------------------------------------------- finding


def is_bag_file(name: str) -> bool:
    """Return whether a file belongs to a bag, compressed ones included."""
    return name.removesuffix(".zstd").endswith(_SUFFIXES) and not name.startswith(".")


def is_demo(folder: Path) -> bool:
    """Return whether a folder is a demo: it has a bag's files or rosbag2's metadata.yaml.

    Raises:
        GenimaError: when the folder cannot be read.
    """
    if not folder.is_dir():
        return False
    try:
        names = [entry.name for entry in os.scandir(folder) if not entry.is_dir()]
    except OSError as error:
        raise GenimaError(f"cannot read {folder}: {error.strerror}") from None
    return _has_bag_files(folder, names)


def find_episodes(folder: Path) -> list[Path]:
    """Return all demos at or below a folder, sorted, intact or damaged.

    Hidden folders are ignored, such as those of unfinished and deleted demos.

    Raises:
        GenimaError: when there is none, or a folder cannot be read.
    """
    if not folder.is_dir():
        problem = "not a folder" if folder.exists() else "there is no folder of this name"
        raise GenimaError(f"no episodes in {folder}: {problem}; name a folder of demos (rosbag2), or one demo")
    found = sorted(_iterate_demos(folder))
    if not found:
        raise GenimaError(f"no episodes (rosbag2 folders) in {folder}; record some with ./genima record")
    return found


def find_damaged(folder: Path) -> list[Path]:
    """Return all candidates for a repair: unfinished recordings at or below a folder, then all demos.

    Raises:
        GenimaError: when there is nothing, or a folder cannot be read.
    """
    if folder.is_dir() and folder.absolute().parent.name == PARTIAL:
        return [folder]
    left = sorted(path for path in folder.rglob(f"{PARTIAL}/*") if path.is_dir())
    try:
        return [*left, *find_episodes(folder)]
    except GenimaError:
        if not left:
            raise
        return left


def _iterate_demos(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise GenimaError(f"cannot read {error.filename}: {error.strerror}") from None

    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:  # a link to a visited folder
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # unfinished, deleted
        path = Path(place)
        if PARTIAL not in path.absolute().parts and _has_bag_files(path, names):
            yield path


def _has_bag_files(folder: Path, names: list[str]) -> bool:
    if any(is_bag_file(name) for name in names):
        return True
    if METADATA not in names or not (folder / METADATA).is_file():  # opening a pipe would block
        return False
    try:
        text = read_text(folder / METADATA, "file", YAML_BYTES)
        # Without rosbag2's entry, a mapping is of another program; anything else is damaged.
        return _INFORMATION in text or not isinstance(parse_yaml(text, METADATA), dict)
    except GenimaError:
        return True  # damaged


# --------------------------------------------------------------------------------------------------------------- locks


class BagLock:
    """Lock of a folder, held until it is released or this process ends.

    Raises:
        GenimaError: when another process holds it, and without permission to write.
    """

    def __init__(self, folder: Path, note: str = "") -> None:
        """Lock ``folder``; ``note`` is stored in the lock file for the reader of an error."""
        path = folder / LOCK
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise GenimaError(f"cannot write {path}: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(self._file), os.stat(path)):
                raise BlockingIOError  # another process has just moved or removed it
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()} {note}".strip().encode(), 0)
        except OSError as error:
            os.close(self._file)
            if isinstance(error, BlockingIOError | FileNotFoundError):
                raise busy(folder) from None
            raise GenimaError(f"cannot write {path}: {error.strerror}") from None

    def release(self, folder: Path, done: bool = True) -> None:
        """Release the lock; repeated calls are harmless.

        Args:
            folder: its current path.
            done: remove the lock file; else it stays with its note.
        """
        if self._file >= 0:
            if done:
                (folder / LOCK).unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


def claim(partial: Path, replace: bool) -> BagLock:
    """Create the folder of a recording and lock it.

    Existing files are removed only if they are unfinished work of a command that repeats it: its lock is marked so, no
    process holds the lock, and the folder has only the files of one bag.

    Args:
        partial: the folder.
        replace: replace an unfinished recording that can be repeated.

    Raises:
        GenimaError: for other existing content, a running recording, and without permission to write.
    """
    note = RECREATABLE if replace else ""
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.mkdir()
        except FileExistsError:
            return _claim_unfinished(partial, replace, note)
    except OSError as error:
        raise GenimaError(f"cannot write {partial}: {error.strerror}") from None
    return BagLock(partial, note)


def _claim_unfinished(partial: Path, replace: bool, note: str) -> BagLock:
    require_not_recording(partial)
    _require_recording(partial)
    left = sorted(entry.name for entry in partial.iterdir() if entry.name != LOCK)
    recreatable = is_recreatable(partial)
    if left and not replace:
        raise GenimaError(f"{partial} is an unfinished recording; recover it with ./genima episodes repair")
    lock = BagLock(partial, note)
    try:
        if left and not recreatable:
            raise GenimaError(
                f"{partial} is an unfinished recording; recover it with ./genima episodes repair, or move it away"
            )
        for name in left:
            (partial / name).unlink()
    except BaseException as error:
        lock.release(partial)
        if isinstance(error, OSError):
            raise GenimaError(f"cannot remove {error.filename}: {error.strerror}") from None
        raise
    return lock


def is_recreatable(partial: Path) -> bool:
    """Return whether a folder is unfinished work of a command that repeats it, by its lock."""
    try:
        with open(partial / LOCK, "rb") as file:
            return RECREATABLE.encode() in file.read(100)
    except OSError:
        return False


def _require_recording(folder: Path) -> None:
    """Raise a GenimaError unless a folder has only the files of one bag of its name."""
    if folder.is_symlink() or not folder.is_dir():
        raise GenimaError(f"{folder}: not a folder of a recording; move it away")
    if foreign := sorted(entry.name for entry in folder.iterdir() if not _is_ours(entry.name, folder.name)):
        raise GenimaError(f"{folder} contains files of no recording ({printable(foreign[0])}); move it away")


def remove_recording(folder: Path) -> None:
    """Remove a recording that a command replaces: only the files of one bag.

    Unfinished ones, in ``PARTIAL``, are removed only where a command repeats them, as in :func:`claim`.

    Raises:
        GenimaError: for a running recording, other content, or files that cannot be removed.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    require_not_recording(folder)
    _require_recording(folder)
    lock = claim(folder, replace=True) if folder.parent.name == PARTIAL else BagLock(folder)
    try:
        remove_recording_files(folder)
    except OSError as error:
        raise GenimaError(f"cannot remove {error.filename}: {error.strerror}") from None
    finally:
        lock.release(folder)


def remove_recording_files(partial: Path) -> None:
    """Remove a recording's files from its folder, and the folder if it is empty then.

    Raises:
        OSError: when that fails.
    """
    for entry in sorted(partial.iterdir()):
        if _is_ours(entry.name, partial.name) and not entry.is_dir():
            entry.unlink()
    if not any(partial.iterdir()):
        partial.rmdir()


def _is_ours(name: str, demo: str) -> bool:
    """Return whether a recording of ``demo`` makes a file of this name, temporary ones included."""
    mcap = f"{demo}.mcap"
    return name in (mcap, METADATA, LOCK, repair_name(mcap)) or (
        name.startswith(f".{METADATA}.") and name.endswith(".part")
    )


def repair_name(name: str) -> str:
    """Return the name of the copy that a repair of file ``name`` writes."""
    return f".{name}.repair"


def require_not_recording(folder: Path) -> None:
    """Check that no process writes a bag, without changing it.

    Raises:
        GenimaError: for a bag that is being written.
    """
    with contextlib.suppress(FileNotFoundError, PermissionError):
        file = os.open(folder / LOCK, os.O_RDONLY)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy(folder) from None
        finally:
            os.close(file)
    with contextlib.suppress(FileNotFoundError, PermissionError):
        for entry in sorted(folder.iterdir()):
            if is_bag_file(entry.name) and _has_writer(entry):
                raise GenimaError(f"episode {folder} is being recorded: a process writes {printable(entry.name)}")


def _has_writer(file: Path) -> bool:
    """Return whether a process has a file open for writing; False where the file system does not report it."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)  # fails while there is a writer
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False


def busy(folder: Path) -> GenimaError:
    """Return the error for a folder that another process writes."""
    try:
        with open(folder / LOCK, "rb") as file:
            number = file.read(20).decode(errors="replace").split()[:1]
    except OSError:
        number = []
    return GenimaError(f"episode {folder} is being recorded{f' by process {printable(number[0])}' if number else ''}")


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to the disk.

    Raises:
        OSError: when that fails.
    """
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
