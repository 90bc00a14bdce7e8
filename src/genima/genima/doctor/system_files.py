"""Small text files of the kernel, in /sys and /proc."""

from __future__ import annotations

from pathlib import Path


def read_system_file(path: Path) -> str | None:
    """Return the text of a file without its line end; None where it is missing or unreadable."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    """Return the number in a file; None where there is none."""
    try:
        return float(read_system_file(path) or "")
    except ValueError:
        return None
