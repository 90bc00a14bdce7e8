"""Imports of the source tree, read without executing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
PACKAGES = ("genima", "genima_nodes", "genima_calibration", "genima_sim", "genima_bringup", "genima_cli")
"""Lowest first: a package imports from itself and from those before it."""


@cache
def modules(package: str) -> Mapping[str, Path]:
    """Return the files of a package by dotted module name."""
    files = {}
    for file in sorted((SOURCE / package / package).rglob("*.py")):
        parts = file.relative_to(SOURCE / package).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def imported(file: Path) -> Iterator[tuple[str, bool]]:
    """Yield absolute names that a file imports, ``package.module.name`` for a ``from`` import.

    The second value is true if the import is executed when the file is imported, false inside functions. Imports for
    type checkers are omitted.
    """
    yield from _imported(ast.parse(file.read_text(encoding="utf-8")), True)


def _imported(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, at_import) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield from ((f"{child.module}.{alias.name}", at_import) for alias in child.names)
        in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _imported(child, at_import and not in_function)
