"""Reports of the benchmarks: JSON files whose field "benchmark" names the benchmark, and PNG plots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genima.errors import GenimaError
from genima.io.files import atomic_write, read_json, require_writable
from genima.io.outputs import require_free


@dataclass(kw_only=True)
class ReportOptions:
    """Options of benchmarks that write a report."""

    out: Path | None = None
    """JSON file for the result."""
    overwrite: bool = False
    """Replace an earlier report of this benchmark."""


def require_report(path: Path | None, benchmark: str, overwrite: bool) -> None:
    """Check before the measurements that the report can be written; None: there will be none.

    Raises:
        GenimaError: when something exists there that may not be replaced, or there is no permission.
    """
    if path:
        require_free(path, f"report of {benchmark}.py", overwrite, lambda file: _names(file, benchmark))
        require_writable(path)


def write_report(path: Path | None, benchmark: str, content: Mapping[str, Any]) -> None:
    """Write a report in one step; None: write nothing."""
    if path:
        text = json.dumps({"benchmark": benchmark, **content}, indent=2)
        atomic_write(path, f"{text}\n".encode())


def require_plot(path: Path | None, overwrite: bool) -> None:
    """Check as :func:`require_report` that a PNG file can be written."""
    if path:
        require_free(path, "plot", overwrite, _is_png)
        require_writable(path)


def _names(file: Path, benchmark: str) -> bool:
    try:
        content = read_json(file, "report")
    except GenimaError:
        return False
    return isinstance(content, dict) and content.get("benchmark") == benchmark


def _is_png(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x89PNG"
