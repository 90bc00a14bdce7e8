"""Log files of a training: progress, and validation errors of every checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from genima.errors import GenimaError
from genima.io.files import atomic_write, parse_json, read_json, read_text, validate
from genima.training import METRICS, PROGRESS, STATE

_Number = float | None  # None: not finite, such as the error in px where no sphere was found


class Progress(BaseModel):
    """Schema of ``progress.json``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)  # older ones hold NaN

    step: Annotated[int, Field(ge=0, le=10**12)]
    about: dict[str, Any]  # options and data, which must be equal when resuming
    best: _Number  # least validation error so far
    errors: dict[str, _Number]

    @classmethod
    def load(cls, checkpoint: Path) -> Progress:
        """Read the progress in a checkpoint's training state.

        Raises:
            GenimaError: when it is missing or damaged.
        """
        path = checkpoint / STATE / PROGRESS
        try:
            return validate(cls, read_json(path, "progress", constants=True), f"progress {path}")
        except GenimaError as error:
            raise GenimaError(f"{path} is damaged ({error}); train into another folder") from None

    def save(self, checkpoint: Path) -> None:
        """Write the progress into a checkpoint's training state."""
        atomic_write(checkpoint / STATE / PROGRESS, (json.dumps(self.model_dump(), indent=2) + "\n").encode())


class _Row(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, _Number]

    step: Annotated[int, Field(ge=0, le=10**12)]


def append_metrics(folder: Path, step: int, errors: Mapping[str, float]) -> None:
    """Append the validation errors of a checkpoint; non-finite ones are stored as None."""
    with (folder / METRICS).open("a", encoding="utf-8") as log:
        log.write(json.dumps({"step": step, **finite(errors)}) + "\n")


def read_metrics(folder: Path) -> dict[int, dict[str, float]]:
    """Return the validation errors of a training by step and name, NaN where not finite; empty without a log.

    Raises:
        GenimaError: for a damaged file.
    """
    file, metrics = folder / METRICS, {}
    if not file.is_file():
        return {}
    try:
        for number, line in enumerate(read_text(file, "metrics").splitlines(), 1):
            row = validate(_Row, parse_json(line, f"line {number}", constants=True), f"line {number}")
            metrics[row.step] = {key: math.nan if x is None else x for key, x in (row.model_extra or {}).items()}
    except GenimaError as error:
        raise GenimaError(f"{file} is damaged ({error}); remove it, it is optional") from None
    return metrics


def finite(errors: Mapping[str, float]) -> dict[str, _Number]:
    """Return numbers for JSON: None where not finite."""
    return {key: value if math.isfinite(value) else None for key, value in errors.items()}
