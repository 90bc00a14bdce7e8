"""Result files: written after each episode, resumed by the same command."""

from __future__ import annotations

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, Field

from genima.evaluation.success import Success
from genima.io.files import FileSchema, atomic_write, load_json
from genima.io.outputs import output_lock, require_same_settings

_DIGESTED = 1 << 20  # bytes at each end of a file


class StoredResult(FileSchema):
    """Fields that resuming needs; the others describe the run."""

    model_config = ConfigDict(extra="allow")

    settings: dict[str, Any] = Field(default_factory=dict)


class ResultFile(ABC):
    """JSON file of a result that the same command continues."""

    schema: ClassVar[type[StoredResult]]

    def __init__(self, settings: Mapping[str, Any], path: Path | None) -> None:
        """Args:
        settings: values that the result depends on, as plain JSON types; part of the file.
        path: JSON file; None: write nothing.
        """
        self.settings, self.path = dict(settings), path

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, without the settings."""

    @abstractmethod
    def restore(self, stored: Any) -> None:
        """Take over the episodes of a file, an instance of ``schema``."""

    def write(self) -> None:
        """Write the file in one step.

        Raises:
            GenimaError: when it cannot be written.
        """
        if self.path is not None:
            content = {**self.settings, **self.to_dict(), "settings": self.settings}
            atomic_write(self.path, (json.dumps(content, indent=2) + "\n").encode())

    def resume(self) -> None:
        """Read the episodes that the file has.

        Raises:
            GenimaError: for a file that is no result, or one of other options.
        """
        assert self.path is not None
        stored = load_json(self.schema, self.path, "result")
        require_same_settings(f"result {self.path}", stored.settings, self.settings)
        self.restore(stored)


class _Stored(StoredResult):
    task: str
    seeds: list[int]
    succeeded: list[int]


class Results(ResultFile):
    """Seeds that have been evaluated, and those that succeeded."""

    schema = _Stored

    def __init__(self, settings: Mapping[str, Any], path: Path | None) -> None:
        super().__init__(settings, path)
        self.seeds: list[int] = []
        self.succeeded: list[int] = []

    def success(self) -> Success:
        """Return the success so far."""
        return Success(len(self.succeeded), len(self.seeds))

    def add(self, seed: int, success: bool) -> None:
        """Add an episode, and write the file."""
        self.seeds.append(seed)
        if success:
            self.succeeded.append(seed)
        self.write()

    def to_dict(self) -> dict[str, Any]:
        """See :class:`ResultFile`."""
        success = self.success()
        return {
            "episodes": success.episodes,
            "successes": success.successes,
            "score": 100 * success.rate if self.seeds else None,  # as the paper counts: the mean of 0 and 100
            "interval_95": success.interval() if self.seeds else None,
            "seeds": self.seeds,
            "succeeded": self.succeeded,
        }

    def restore(self, stored: _Stored) -> None:
        """See :class:`ResultFile`."""
        self.seeds, self.succeeded = list(stored.seeds), list(stored.succeeded)


_Result = TypeVar("_Result", bound=ResultFile)


@contextlib.contextmanager
def open_results(results: _Result, overwrite: bool) -> Iterator[_Result]:
    """Hold the lock of a result file; resume the file unless ``overwrite``.

    Raises:
        GenimaError: for a file that is no such result, or one of other options, or that another process writes.
    """
    if (path := results.path) is None:
        yield results
        return
    with output_lock(path, "result"):
        if path.exists():
            load_json(results.schema, path, "result")  # nothing else is replaced
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
