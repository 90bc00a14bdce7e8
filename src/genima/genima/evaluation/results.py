"""Result file of an evaluation: written after each episode, resumed by the same command."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from genima.evaluation.success import Success
from genima.io.files import FileSchema, atomic_write, load_json
from genima.io.outputs import output_lock, require_same_settings

_DIGESTED = 1 << 20  # bytes at each end of a file


class _Stored(FileSchema):
    """Fields that resuming needs; the others describe the run."""

    model_config = ConfigDict(extra="allow")

    task: str
    seeds: list[int]
    succeeded: list[int]
    settings: dict[str, Any] = Field(default_factory=dict)


class Results:
    """Seeds that have been evaluated, and those that succeeded."""

    def __init__(self, settings: Mapping[str, Any], path: Path | None) -> None:
        """Args:
        settings: values that the result depends on, as plain JSON types; part of the file.
        path: JSON file; None: write nothing.
        """
        self.seeds: list[int] = []
        self.succeeded: list[int] = []
        self._settings, self._path = dict(settings), path

    def success(self) -> Success:
        """Return the success so far."""
        return Success(len(self.succeeded), len(self.seeds))

    def add(self, seed: int, success: bool) -> None:
        """Add an episode, and write the file."""
        self.seeds.append(seed)
        if success:
            self.succeeded.append(seed)
        self.write()

    def write(self) -> None:
        """Write the file in one step.

        Raises:
            GenimaError: when it cannot be written.
        """
        if self._path is not None:
            atomic_write(self._path, (json.dumps(self.to_dict(), indent=2) + "\n").encode())

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        success = self.success()
        return {
            **self._settings,
            "episodes": success.episodes,
            "successes": success.successes,
            "score": 100 * success.rate if self.seeds else None,  # as the paper counts: the mean of 0 and 100
            "interval_95": success.interval() if self.seeds else None,
            "seeds": self.seeds,
            "succeeded": self.succeeded,
            "settings": self._settings,
        }

    def resume(self) -> None:
        """Read the episodes that the file has.

        Raises:
            GenimaError: for a file that is no result, or one of other options.
        """
        assert self._path is not None
        stored = load_json(_Stored, self._path, "result")
        require_same_settings(f"result {self._path}", stored.settings, self._settings)
        self.seeds, self.succeeded = list(stored.seeds), list(stored.succeeded)


@contextlib.contextmanager
def open_results(path: Path | None, settings: Mapping[str, Any], overwrite: bool) -> Iterator[Results]:
    """Open a result file under a lock; resume it unless ``overwrite``.

    Raises:
        GenimaError: for a file that is no result, or one of other options, or that another process writes.
    """
    results = Results(settings, path)
    if path is None:
        yield results
        return
    with output_lock(path, "result"):
        if path.exists():
            load_json(_Stored, path, "result")  # nothing else is replaced
            if not overwrite:
                results.resume()
        yield results


def load_outcomes(path: Path) -> dict[int, bool]:
    """Return whether each seed of a result file succeeded.

    Raises:
        GenimaError: for a file that is no result.
    """
    stored = load_json(_Stored, path, "result")
    succeeded = set(stored.succeeded)
    return {seed: seed in succeeded for seed in stored.seeds}


def checkpoint_digest(folders: Mapping[str, Path]) -> str:
    """Return a digest of checkpoints: of each file its name, its size and a megabyte at both ends."""
    digest = hashlib.sha256()
    for kind in sorted(folders):
        for file in sorted(path for path in folders[kind].rglob("*") if path.is_file()):
            size = file.stat().st_size
            digest.update(f"{kind} {file.relative_to(folders[kind])} {size}\n".encode())
            with file.open("rb") as stream:
                digest.update(stream.read(_DIGESTED))
                if size > _DIGESTED:
                    stream.seek(-_DIGESTED, 2)
                    digest.update(stream.read(_DIGESTED))
    return digest.hexdigest()[:16]
