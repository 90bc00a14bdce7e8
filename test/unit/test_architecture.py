"""Imports are downwards between packages and within the library, without cycles."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from imports import PACKAGES, SOURCE, imported, modules

LAYERS = (
    ("genima.errors",),
    ("genima.system", "genima.io", "genima.types"),
    ("genima.robot",),
    ("genima.cameras",),
    ("genima.targets",),
    ("genima.control", "genima.teleop"),
    ("genima.policy",),
    ("genima.cell",),
    ("genima.data",),
    ("genima.training", "genima.evaluation", "genima.inspection", "genima.doctor", "genima.closed_loop"),
)
"""Parts of the library, lowest first; parts of one layer may use each other."""


def imports() -> Mapping[str, set[str]]:
    """Return the imported modules by module, with imports inside functions."""
    ours = {name: file for package in PACKAGES for name, file in modules(package).items()}
    return {
        name: {found for target, _ in imported(file) if (found := _module(target, ours)) not in ("", name)}
        for name, file in ours.items()
    }


def _module(name: str, ours: Mapping[str, object]) -> str:
    while name and name not in ours:
        name = name.rpartition(".")[0]
    return name


def _layer(module: str) -> int | None:
    for number, parts in enumerate(LAYERS):
        if any(module == part or module.startswith(f"{part}.") for part in parts):
            return number
    return None


def test_packages_import_only_lower_packages() -> None:
    upward = [
        f"{module} imports {target}"
        for module, targets in imports().items()
        for target in targets
        if PACKAGES.index(target.split(".")[0]) > PACKAGES.index(module.split(".")[0])
    ]
    assert not upward


def test_library_imports_only_from_lower_layers() -> None:
    upward = []
    for module, targets in imports().items():
        layer = _layer(module)
        for target in targets:
            below = _layer(target)
            if layer is not None and below is not None and below > layer:
                upward.append(f"{module} imports {target}")
    assert not upward


def test_all_parts_of_library_have_layer() -> None:
    assert [name for name in modules("genima") if name != "genima" and _layer(name) is None] == []


def test_modules_have_no_import_cycles() -> None:
    assert list(_cycles(imports())) == []


def _cycles(targets: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """Yield modules that import themselves indirectly: leaves are removed until only cycles remain."""
    remaining = {module: set(others) for module, others in targets.items()}
    while leaves := {module for module, others in remaining.items() if not others}:
        remaining = {module: others - leaves for module, others in remaining.items() if module not in leaves}
    users = {module: {user for user, others in remaining.items() if module in others} for module in remaining}
    while unused := {module for module, by in users.items() if not by}:
        users = {module: by - unused for module, by in users.items() if module not in unused}
    if users:
        yield sorted(users)


def test_launch_files_import_existing_names() -> None:
    """`launch` has no wheel, so launch files cannot be imported here."""
    files = {name: file for package in PACKAGES for name, file in modules(package).items()}
    missing = []
    for file in sorted((SOURCE.parent / "launch").glob("*.py")):
        for target, _ in imported(file):
            module = _module(target, files)
            name = target.removeprefix(f"{module}.")
            if module and target != module and name not in _names(files[module]):
                missing.append(f"{file.name} imports {target}")
    assert not missing


def _names(file: Path) -> set[str]:
    """Return the names that a module defines or imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        ({"a": {"b"}, "b": set()}, []),
        ({"a": {"b"}, "b": {"a"}, "c": {"a"}}, [["a", "b"]]),
    ],
)
def test_cycles_are_found(targets: Mapping[str, set[str]], found: list[list[str]]) -> None:
    assert list(_cycles(targets)) == found
