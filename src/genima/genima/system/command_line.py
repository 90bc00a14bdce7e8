"""Parse and check the options of a command, before anything slow is imported.

Options are a dataclass whose fields have a type, a default and a docstring; :mod:`tyro` makes the command line and the
help page from them. Limits stand in the annotations, as :mod:`pydantic` has them, and are checked here::

    @dataclass
    class Render:
        rate: Annotated[float, Field(gt=0, le=1000)] = 20.0
        \"\"\"Actions a second.\"\"\"

Numbers must be finite unless the annotation says otherwise.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import shutil
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from genima.errors import GenimaError
from genima.io.files import shorten
from genima.system.ros_names import require_namespace

_Options = TypeVar("_Options")
_LEAST_WIDTH = 40  # columns
_CONFIG = ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True)


def _ros_namespace(name: str) -> str:
    try:
        return require_namespace(name)
    except GenimaError as error:
        raise ValueError(str(error).removeprefix("namespace: ")) from None


REPLAY_SPEED = 0.01, 1.0  # fraction of the recorded speed; the node replay has the same limits

# Options of several commands.
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Episodes = Annotated[int, Field(ge=1, le=1_000_000)]
Workers = Annotated[int, Field(ge=1, le=1024)]  # processes or threads
Seconds = Annotated[float, Field(gt=0, le=86400)]
Port = Annotated[int, Field(ge=1, le=65535)]
Namespace = Annotated[str, AfterValidator(_ros_namespace)]


def parse_options(options: type[_Options], command: str, argv: Sequence[str], example: str = "") -> _Options:
    """Parse ``argv`` into ``options``, a dataclass; print the help page and exit on ``--help``.

    Args:
        options: dataclass of the options; its docstring is the description.
        command: name without ``./``: "genima render".
        argv: arguments after the command.
        example: a command line that works, shown at the end of the help page.

    Raises:
        GenimaError: for a value outside its limits.
        SystemExit: for ``--help`` (0) and for an unknown option or a value of another type (2).
    """
    description = inspect.cleandoc(options.__doc__ or "")
    if example:
        description += f"\n\nExample: {example}"
    config = (tyro.conf.DisallowNone,)  # otherwise the help shows {None} for optional values
    with _minimum_width(), _paths():
        parsed = tyro.cli(options, prog=f"./{command}", description=description, args=list(argv), config=config)
    check_options(parsed)
    if _parses_only:
        raise ParsedOptions
    return parsed


_parses_only = False


class ParsedOptions(Exception):
    """End of a command whose options are valid, in :func:`only_parse`."""


@contextlib.contextmanager
def only_parse() -> Iterator[None]:
    """Let :func:`parse_options` raise :class:`ParsedOptions` in place of returning: commands are checked, not run."""
    global _parses_only
    _parses_only = True
    try:
        yield
    finally:
        _parses_only = False


@contextlib.contextmanager
def _minimum_width() -> Iterator[None]:
    """Treat narrower terminals as 40 columns wide: tyro's help page for five columns or fewer never ends."""
    before = os.environ.get("COLUMNS")
    if narrow := shutil.get_terminal_size().columns < _LEAST_WIDTH:
        os.environ["COLUMNS"] = str(_LEAST_WIDTH)
    try:
        yield
    finally:
        if narrow and before is None:
            del os.environ["COLUMNS"]
        elif narrow and before is not None:
            os.environ["COLUMNS"] = before


def _paths() -> tyro.constructors.ConstructorRegistry:
    """Reject an empty path, as from an unset shell variable: it would be the current folder."""
    registry = tyro.constructors.ConstructorRegistry()

    def path(words: list[str]) -> Path:
        if not words[0]:
            raise ValueError("an empty path; give . for the current folder")
        return Path(words[0])

    @registry.primitive_rule
    def rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Path] | None:
        if info.type is not Path:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1, metavar="PATH", instance_from_str=path, is_instance=lambda each: isinstance(each, Path),
            str_from_instance=lambda each: [str(each)],
        )  # fmt: skip

    return registry


def check_options(parsed: Any, prefix: str = "--") -> None:
    """Check the fields of a parsed dataclass, nested ones included, against their annotations.

    Args:
        parsed: instance of a dataclass.
        prefix: text before a field's name in errors.

    Raises:
        GenimaError: for the first value outside its limits.
    """
    hints = typing.get_type_hints(type(parsed), include_extras=True)
    for field in dataclasses.fields(parsed):
        value = getattr(parsed, field.name)
        flag = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            merged = any(getattr(extra, "name", None) == "" for extra in getattr(hints[field.name], "__metadata__", ()))
            check_options(value, prefix if merged else f"{flag}.")  # tyro.conf.arg(name="") leaves the name out
            continue
        try:
            TypeAdapter(hints[field.name], config=_CONFIG).validate_python(value)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            message = problem["msg"].replace("Input should", "must").removeprefix("Value error, ")
            message = "name at least one" if problem["type"] == "too_short" else message
            shown = " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
            raise GenimaError(f"{flag} {shorten(shown)}: {message}") from None
