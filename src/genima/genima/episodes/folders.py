"""Folders of bags: at most one process writes to one, a killed process holds none, and names survive a power cut."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from genima.errors import GenimaError

LOCK = "recording.lock"  # in the folder of the bag


class BagLock:
    """Holds a folder until it is released, or this process ends.

    Raises:
        GenimaError: when another one holds it, and when there is no right to write there.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise GenimaError(f"cannot write {path}: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(self._file), os.stat(path)):
                raise BlockingIOError  # its owner has just moved or removed it
            os.ftruncate(self._file, 0)
            os.write(self._file, str(os.getpid()).encode())
        except OSError as error:
            os.close(self._file)
            if isinstance(error, BlockingIOError | FileNotFoundError):
                raise busy(folder) from None
            raise GenimaError(f"cannot write {path}: {error.strerror}") from None

    def release(self, folder: Path) -> None:
        """Let others in; ``folder`` is where it lies by now. May be called more than once."""
        if self._file >= 0:
            (folder / LOCK).unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


def claim(partial: Path, replace: bool) -> BagLock:
    """Make the folder of a recording and hold it; what a killed one left there is removed when it may be replaced.

    Raises:
        GenimaError: when it is being recorded or was left and may not be replaced, and when there is no right to write.
    """
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.mkdir()
        except FileExistsError:
            if not replace:
                refuse_live(partial)
                raise GenimaError(
                    f"{partial} was left by a recording that did not end; ./genima episodes repair keeps what it holds"
                ) from None
    except OSError as error:
        raise GenimaError(f"cannot write {partial}: {error.strerror}") from None
    lock = BagLock(partial)
    try:
        for path in partial.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        lock.release(partial)
        raise GenimaError(f"cannot remove {error.filename}: {error.strerror}") from None
    return lock


def refuse_live(folder: Path) -> None:
    """Find out whether a bag is being written, without a trace.

    Raises:
        GenimaError: when it is.
    """
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy(folder) from None
    finally:
        os.close(file)


def busy(folder: Path) -> GenimaError:
    """The line for a folder that another process writes."""
    try:
        number = (folder / LOCK).read_text().strip()
    except OSError:
        number = ""
    return GenimaError(f"episode {folder} is being recorded{f' by process {number}' if number else ''}")


def sync_folder(folder: Path) -> None:
    """Wait until a folder's new names are on the disk.

    Raises:
        OSError: when that fails.
    """
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
