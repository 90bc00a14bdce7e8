"""Safe reader of pickles of numbers, texts and plain records; nothing is executed or imported.

A pickle is a program for a stack machine whose instructions may call any function by name. Here :mod:`pickletools` only
splits the file into instructions; those that build data are executed below. A name must be one of NumPy's arrays or of
a known class, else the file is rejected. The result is never larger than a few times the file.
"""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Callable, Collection, Hashable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.io.files import read_bytes, shorten

MAX_BYTES = 64 << 20  # of a file: RLBench's have 10 kB an observation
MAX_INSTRUCTIONS = 3_000_000  # some 10 s
_NUMBERS = re.compile(r"[fiub][1248]|b1|\?")  # no objects: they would be pickles again
_NUMPY_MODULES = re.compile(r"numpy(\._?core\.(multiarray|numeric))?")  # NumPy 2 has renamed core
_NUMPY_NAMES = ("_reconstruct", "scalar", "_frombuffer", "ndarray", "dtype")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set}
_LITERALS = {
    "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip


class Record:
    """Instance of a known class; its attributes are the pickled ones."""


class _Name:
    """Name in a pickle: a part of NumPy, or a known class."""

    def __init__(self, name: str) -> None:
        self.name = name  # "record", or one of _NUMPY_NAMES


class _Dtype:
    """Numeric type."""

    def __init__(self, name: Any) -> None:
        if not isinstance(name, str) or not _NUMBERS.fullmatch(name):
            raise ValueError(f"an array of {shorten(str(name))}")
        self.value = np.dtype(name)


class _Array:
    """Array that a later instruction fills."""

    value: NDArray[Any] | None = None


_MARK = object()


def load(path: Path, records: Collection[str]) -> Any:
    """Return the content of a pickle, NumPy arrays as read-only arrays.

    Args:
        path: of the file.
        records: the classes whose objects become a :class:`Record`, as ``module.Name``.

    Raises:
        GenimaError: for a file that cannot be read, is damaged or too large, or asks for anything else.
    """
    data = read_bytes(path, "pickle", MAX_BYTES)
    machine = _Machine(path, records)
    try:
        for number, (operation, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
            if number >= MAX_INSTRUCTIONS:
                raise GenimaError(f"{path}: more than {MAX_INSTRUCTIONS} instructions; split it")
            if operation.name == "STOP":
                return _resolve_arrays(machine.pop())
            machine.step(operation.name, argument)
    except GenimaError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, AttributeError, MemoryError) as error:
        raise GenimaError(f"{path} is damaged: {shorten(str(error), 200) or type(error).__name__}") from None
    raise GenimaError(f"{path} is damaged: it has no end")


class _Machine:
    """Stack machine of the pickle protocol."""

    def __init__(self, path: Path, records: Collection[str]) -> None:
        self._path, self._records = path, records
        self._stack: list[Any] = []
        self._memory: dict[int, Any] = {}

    def pop(self) -> Any:
        if (value := self._stack.pop()) is _MARK:
            raise ValueError("a mark without its end")
        return value

    def step(self, name: str, argument: Any) -> None:
        """Execute one instruction."""
        push, stack = self._stack.append, self._stack
        if name in _LITERALS:
            push(argument)
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in _EMPTY:
            push(_EMPTY[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MEMOIZE":
            self._memory[len(self._memory)] = stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memory[argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            push(self._memory[argument])
        elif name == "MARK":
            push(_MARK)
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._pop_to_mark()
        elif name == "DUP":
            push(stack[-1])
        elif name in ("LIST", "TUPLE", "DICT", "FROZENSET"):
            items = self._pop_to_mark()
            made = {"LIST": list, "TUPLE": tuple, "DICT": _pairs, "FROZENSET": _set}[name]
            push(made(items))  # type: ignore[operator]
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            push(tuple(reversed([self.pop() for _ in range(int(name[-1]))])))
        elif name in ("APPEND", "APPENDS"):
            items = [self.pop()] if name == "APPEND" else self._pop_to_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [self.pop(), self.pop()][::-1] if name == "SETITEM" else self._pop_to_mark()
            self._top(dict).update(_pairs(items))
        elif name == "ADDITEMS":
            items = self._pop_to_mark()
            self._top(set).update(_set(items))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            push(self._find_class(argument))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, called = self.pop(), self.pop()
            push(self._make(called, arguments))
        elif name == "BUILD":
            state = self.pop()
            _set_state(stack[-1], state)
        else:
            raise GenimaError(f"{self._path}: instruction not allowed ({name}); export the data in another format")

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise ValueError(f"items for what is no {kind.__name__}")
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        """Pop the items above the last mark, and the mark."""
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("an end without its mark")
        items = self._stack[place + 1 :]
        del self._stack[place:]
        return items

    def _find_class(self, argument: Any) -> _Name:
        if argument is None:
            name, module = self.pop(), self.pop()
        else:
            module, _, name = str(argument).partition(" ")
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a name that is no text")
        if f"{module}.{name}" in self._records:
            return _Name("record")
        if _NUMPY_MODULES.fullmatch(module) and name in _NUMPY_NAMES:
            return _Name(name)
        reference = shorten(f"{module}.{name}")
        raise GenimaError(f"{self._path}: reference not allowed ({reference}); export the data in another format")

    def _make(self, called: Any, arguments: Any) -> Any:
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of what is no name")
        if called.name == "record":
            return Record()
        if called.name == "_reconstruct":
            return _Array()
        if called.name == "dtype":
            return _Dtype(arguments[0])
        if called.name == "scalar":
            dtype, data = arguments
            return _values(data, dtype, (1,), "C")[0].item()
        if called.name == "_frombuffer":
            return _values(*arguments)
        raise ValueError(f"a call of {called.name}")


def _set_state(made: Any, state: Any) -> None:
    """Set the state of an object."""
    if isinstance(made, Record) and isinstance(state, dict):
        made.__dict__.update({str(name): value for name, value in state.items() if str(name).isidentifier()})
    elif isinstance(made, _Dtype) and isinstance(state, tuple) and state[1] in ("<", ">", "=", "|"):
        made.value = made.value.newbyteorder(state[1])
    elif isinstance(made, _Array) and isinstance(state, tuple):
        _, shape, dtype, fortran, data = state
        made.value = _values(data, dtype, shape, "F" if fortran else "C")
    else:
        raise ValueError("a state for what has none")


def _values(data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(data, bytes | bytearray) or not isinstance(dtype, _Dtype) or order not in ("C", "F", "A"):
        raise ValueError("an array of no bytes")
    if not isinstance(shape, tuple) or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array of no shape")
    return np.frombuffer(bytes(data), dtype.value).reshape(shape, order=order)


def _pairs(items: list[Any]) -> dict[str | int, Any]:
    if len(items) % 2 or not all(type(key) is str or (type(key) is int and abs(key) < 2**31) for key in items[::2]):
        raise ValueError("a dictionary with keys that are neither texts nor small integers")  # others may collide
    return dict(zip(items[::2], items[1::2], strict=True))


def _set(items: list[Any]) -> frozenset[Hashable]:
    if not all(type(item) is str for item in items):
        raise ValueError("a set of what is no text")
    return frozenset(items)


def _resolve_arrays(root: Any) -> Any:
    """Replace placeholders by their arrays; each object is visited once."""

    def resolved(value: Any) -> Any:
        return value.value if isinstance(value, _Array) else value

    seen: set[int] = set()
    pending = [root]
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        held = value.__dict__ if isinstance(value, Record) else value
        if isinstance(held, list):
            held[:] = map(resolved, held)
            pending += held
        elif isinstance(held, dict):
            held.update({key: resolved(each) for key, each in held.items()})
            pending += held.values()
        elif isinstance(held, tuple):
            pending += held  # its own arrays are looked up by array_of
    return resolved(root)


def as_array(values: Any, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Return an object as an array of finite numbers of a shape; None for anything else.

    Lists are followed only as deep and as far as the shape goes: a list may hold itself, or one list a billion times.
    """
    if isinstance(values, _Array):
        values = values.value
    if isinstance(values, np.ndarray):
        numeric = values.dtype.kind in "fiub" and values.shape == shape
        found = values.astype(float) if numeric else None
    elif not shape:
        numeric = isinstance(values, int | float | np.number) and (not isinstance(values, int) or abs(values) < 2**1000)
        found = np.array(values, float) if numeric else None
    elif isinstance(values, list | tuple) and len(values) == shape[0]:
        parts = [as_array(value, shape[1:]) for value in values]
        found = None if any(part is None for part in parts) else np.array(parts, float)
    else:
        found = None
    return found if found is not None and np.isfinite(found).all() else None
