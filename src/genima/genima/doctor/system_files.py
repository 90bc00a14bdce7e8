"""The kernel's small text files, as /sys and /proc have them."""

from __future__ import annotations

from pathlib import Path


def read(path: Path) -> str | None:
    """What a file says, without its line end; None where it is not there or says nothing to us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def number(path: Path) -> float | None:
    """The number in a file; None where there is none."""
    try:
        return float(read(path) or "")
    except ValueError:
        return None
