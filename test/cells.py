"""Files of robot cells, for tests."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import yaml

from genima.io import paths


def write_cell(folder: Path, of: str, **changes: Any) -> str:
    """Write a cell like one of ``config/cells``; None leaves an entry out, a mapping changes those within."""
    data = yaml.safe_load(paths.shared("config", "cells", f"{of}.yaml").read_text(encoding="utf-8"))
    for name, value in changes.items():
        data[name] = data[name] | value if isinstance(value, dict) and isinstance(data.get(name), dict) else value
    data = {name: value for name, value in data.items() if value is not None}
    file = next(file for i in itertools.count() if not (file := folder / f"cell_{i}.yaml").exists())
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    return str(file)
