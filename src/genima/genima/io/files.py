"""Read UTF-8, YAML and JSON files with limits and a schema; write files atomically.

Every file from a user, a robot or another program is read through this module: nothing in it is executed, no file can
exhaust the memory, and every fault is one :class:`GenimaError`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Hashable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from genima.errors import GenimaError

_T = TypeVar("_T")

YAML_BYTES = 1 << 20  # PyYAML's pure-Python parser reads some 100 kB/s: the largest file takes about 10 s
JSON_BYTES = 64 << 20
_DEPTH = 64  # levels of nesting
_NODES = 2_000_000  # values: aliases can make a tree of 2**30 values from 1 kB of text
_INSTANCE = re.compile(r" or instance of \w+")  # in pydantic's messages
_SHOWN = 60  # characters of a value in an error

# ------------------------------------------------------------------------------------------------------------ schema


class FileSchema(BaseModel):
    """Base of the schemas of files: unknown fields and non-finite numbers are errors, values are not converted.

    An integer counts as a float; nothing else changes its type. Use ``validate`` or ``load_yaml`` to read one.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True, frozen=True)


Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Pixels = Annotated[int, Field(ge=1, le=16384)]  # side of an image; 16384 is OpenGL's usual limit
Text = Annotated[str, Field(min_length=1, max_length=1000)]


def validate(schema: type[_T], data: Any, what: str) -> _T:
    """Check plain data against a schema and return an instance of it.

    Args:
        schema: a :class:`FileSchema`, or any annotation that pydantic understands.
        data: plain data, as :func:`parse_yaml` and :func:`parse_json` return it.
        what: subject of the error, with the file's name: "board calibration/boards/a4.yaml".

    Raises:
        GenimaError: the first fields that are wrong, with their values.
    """
    try:
        checked: _T = _adapter(schema).validate_python(data)
        return checked
    except ValidationError as error:
        raise GenimaError(f"{what}: {describe(error)}") from None
    except RecursionError:
        raise GenimaError(f"{what}: nested too deeply") from None


def describe(error: ValidationError) -> str:
    """Return the first three problems of a failed validation in one line: ``field: problem (value)``."""
    problems = []
    for item in error.errors(include_url=False)[:3]:
        place = ".".join(str(part) for part in item["loc"] if part != "[key]")
        message = _INSTANCE.sub("", item["msg"].removeprefix("Value error, "))
        value = "" if item["type"] in ("missing", "extra_forbidden") else f" ({shorten(repr(item['input']))})"
        problems.append(f"{place}: {message}{value}" if place else f"{message}{value}")
    rest = error.error_count() - len(problems)
    return "; ".join(problems) + (f"; and {rest} more" if rest > 0 else "")


def _make_adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(_make_adapter)


def shorten(text: str, limit: int = _SHOWN) -> str:
    """Return ``text`` on one line, with "..." after ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def describe_error(error: Exception) -> str:
    """Return kind and text of an error in one line."""
    text = shorten(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# -------------------------------------------------------------------------------------------------------------- read


def read_bytes(path: Path, what: str, limit: int = JSON_BYTES) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Raises:
        GenimaError: for a file that is missing, too large, not a regular file, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise GenimaError(f"{what} {path}: not a regular file")
        if (size := path.stat().st_size) > limit:
            raise GenimaError(f"{what} {path}: too large ({size} bytes; the limit is {limit})")
        return path.read_bytes()
    except FileNotFoundError:
        raise GenimaError(f"{what} {path} does not exist") from None
    except OSError as error:
        raise GenimaError(f"cannot read {what} {path}: {error.strerror}") from None
    except ValueError as error:  # a null byte in the name
        raise GenimaError(f"cannot read {what} {str(path)!r}: {error}") from None


def read_text(path: Path, what: str, limit: int = JSON_BYTES) -> str:
    """Read a UTF-8 file, independent of the locale.

    Raises:
        GenimaError: as :func:`read_bytes`, and for a file that is not UTF-8.
    """
    try:
        return read_bytes(path, what, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise GenimaError(f"{what} {path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None


def read_yaml(path: Path, what: str) -> Any:
    """Read plain data from a YAML file. ``what`` names it in errors: "board", "robot model".

    Raises:
        GenimaError: as :func:`read_text` and :func:`parse_yaml`.
    """
    return parse_yaml(read_text(path, what, YAML_BYTES), f"{what} {path}")


def read_json(path: Path, what: str, constants: bool = False) -> Any:
    """Read plain data from a JSON file. ``what`` names it in errors; ``constants`` as in :func:`parse_json`.

    Raises:
        GenimaError: as :func:`read_text` and :func:`parse_json`.
    """
    return parse_json(read_text(path, what), f"{what} {path}", constants)


def load_yaml(schema: type[_T], path: Path, what: str) -> _T:
    """Read a YAML file and check it against a schema.

    Raises:
        GenimaError: as :func:`read_yaml` and :func:`validate`.
    """
    return validate(schema, read_yaml(path, what), f"{what} {path}")


def load_json(schema: type[_T], path: Path, what: str) -> _T:
    """Read a JSON file and check it against a schema.

    Raises:
        GenimaError: as :func:`read_json` and :func:`validate`.
    """
    return validate(schema, read_json(path, what), f"{what} {path}")


def parse_yaml(text: str, what: str) -> Any:
    """Return the plain data (mappings, lists, strings, numbers, booleans, None) of a YAML text.

    Dates stay strings. Tags, duplicate keys, merge keys and recursive aliases are errors.

    Raises:
        GenimaError: for a text that is too long, not YAML, nested too deeply, or too large once expanded.
    """
    if len(text) > YAML_BYTES:
        raise GenimaError(f"{what}: too large ({len(text)} characters; the limit is {YAML_BYTES})")
    try:
        data = yaml.load(text, _PlainLoader)
    except yaml.YAMLError as error:
        raise GenimaError(f"{what}: not YAML ({shorten(str(error), 200)})") from None
    except (ValueError, OverflowError) as error:  # an integer of 5000 digits
        raise GenimaError(f"{what}: not YAML ({shorten(str(error), 200)})") from None
    except RecursionError:
        raise GenimaError(f"{what}: nested too deeply") from None
    _require_small(data, what)
    return data


def parse_json(text: str | bytes, what: str, constants: bool = False) -> Any:
    """Return the plain data of a JSON text; NaN and Infinity, which JSON does not have, are errors.

    Args:
        text: of a file.
        what: subject of the error.
        constants: read NaN and Infinity, which Python writes.

    Raises:
        GenimaError: for a text that is not JSON, or nested too deeply.
    """
    try:
        constant = float if constants else _refuse_constant
        data = json.loads(text, parse_constant=constant, object_pairs_hook=_unique_keys)
    except ValueError as error:
        raise GenimaError(f"{what}: not JSON ({shorten(str(error), 200)})") from None
    except RecursionError:
        raise GenimaError(f"{what}: nested too deeply") from None
    _require_small(data, what)
    return data


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} appears twice")
    return data


def _require_small(data: Any, what: str) -> None:
    """Raise a GenimaError for a tree that is too deep or too large, such as aliases make."""
    level, nodes = [data], 0
    for _ in range(_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value.values()
            elif isinstance(value, list):
                below += value
            if nodes + len(below) > _NODES:
                raise GenimaError(f"{what}: more than {_NODES} values")
        nodes += len(below)
        level = below
        if not level:
            return
    raise GenimaError(f"{what}: nested more than {_DEPTH} levels deep")


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader that keeps dates as text and refuses duplicate and merge keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "merge keys (<<) are not read", key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {shorten(key.value)!r} appears twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Keep merge keys: construct_mapping rejects them."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

# ------------------------------------------------------------------------------------------------------------- write


def require_writable(path: Path) -> None:
    """Check before long work that ``path`` is writable; existing files stay unchanged.

    Raises:
        GenimaError: when there is no space or no permission.
    """
    if path.is_dir():
        raise GenimaError(f"cannot write {path}: it is a folder")
    probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
    atomic_write(probe, b"probe\n")
    probe.unlink()


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file atomically, creating its folder.

    Raises:
        GenimaError: when there is no space or no permission; nothing half-written is left then.
    """
    if not path.name:
        raise GenimaError(f"cannot write {path}: it is a folder")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # of this process alone
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise GenimaError(f"cannot write {path}: {error.strerror}") from None


def backup(path: Path) -> Path | None:
    """Copy a file that is about to be replaced, to its name with the time of its last change; None where it is missing.

    Raises:
        GenimaError: when there is no space or no permission.
    """
    if not path.exists():
        return None
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(path.stat().st_mtime))
    names = (f"{path.name}.{stamp}{f'-{i}' if i else ''}" for i in itertools.count())
    copy = next(copy for name in names if not (copy := path.with_name(name)).exists())  # several within one second
    try:
        shutil.copy2(path, copy)
    except OSError as error:
        raise GenimaError(f"cannot write {copy}: {error.strerror}") from None
    return copy
