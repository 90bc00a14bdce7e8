"""Errors in the user's own modules, in one line with the module's file."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

from genima.errors import GenimaError
from genima.io.files import describe_error

Check: TypeAlias = Callable[[Any], str]
"""Function that returns the problem of a result, such as "no bool (None)"; empty: none."""


def checked(method: Callable[..., Any], subject: str, file: str, check: Check | None = None) -> Callable[..., Any]:
    """Return a function that calls ``method`` and raises a GenimaError for every error and for a wrong result.

    Args:
        method: of a class in the user's module.
        subject: of the error line, such as "task push_button".
        file: the module's.
        check: of the result; None: accept every result.
    """
    name = getattr(method, "__qualname__", type(method).__name__)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = method(*args, **kwargs)
            problem = check(result) if check is not None else ""
        except GenimaError:
            raise
        except Exception as error:
            raise GenimaError(f"{subject}: {name} failed ({describe_error(error)}); correct {file}") from error
        if problem:
            raise GenimaError(f"{subject}: {name} returned {problem}; correct {file}")
        return result

    return call
