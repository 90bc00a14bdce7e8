"""Arguments of launch files: those that ours declare, and recorded ones of other packages."""

from __future__ import annotations

import ast
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
BRINGUP = ROOT / "src" / "genima_bringup" / "genima_bringup"

RECORDED = {
    data["package"]: data
    for data in (yaml.safe_load(file.read_text()) for file in (ROOT / "test/data/launch_arguments").glob("*.yaml"))
}


def declared(file: Path) -> set[str]:
    """Return the arguments that one of our launch files declares, those that all share included."""
    names = set()
    for place in (file, BRINGUP / "launch_actions.py"):
        for node in ast.walk(ast.parse(place.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Argument":
                        names.add(key.value if isinstance(key, ast.Constant) else key.id.lower())  # type: ignore[union-attr]
    return names
