"""Reads pickles of numbers, texts and plain records without running anything that they ask for.

A pickle is a program: it may call whatever it can name. Here it can name stand-ins only, for NumPy's arrays and for
the classes that the caller knows, and every other name is refused.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError

_NUMBERS = re.compile(r"[fiub][1248]|b1|\?")  # no objects: they would be pickles again


class Record:
    """An object of one of the classes that the caller knows: what it holds are its attributes."""


class _Class:
    """Stands for numpy.ndarray where a pickle names the class to make."""


class _Dtype:
    def __init__(self, name: str, *_: object) -> None:
        if not _NUMBERS.fullmatch(name):
            raise ValueError(f"an array of {name}")
        self.value = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.value = self.value.newbyteorder(state[1])


class _Array:
    """An array that is filled later."""

    def __init__(self, *_: object) -> None:
        self.value: NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _values(data, dtype, shape, "F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.value.astype(self.value.dtype if dtype is None else dtype)


def _values(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    return np.frombuffer(data, dtype.value).reshape(shape, order=order)


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype.value)[0].item()


_NUMPY = {"_reconstruct": _Array, "scalar": _scalar, "_frombuffer": _values, "ndarray": _Class, "dtype": _Dtype}
_NUMPY_MODULES = re.compile(r"numpy(\._?core\.(multiarray|numeric))?")  # NumPy 2 has renamed core


def load(path: Path, records: Collection[str]) -> Any:
    """What a pickle holds; NumPy's arrays as objects that ``np.asarray`` takes.

    Args:
        path: of the file.
        records: the classes whose objects become :class:`Record`, as ``module.Name``.

    Raises:
        GenimaError: for a file that cannot be read, is damaged, or asks for anything else.
    """

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if f"{module}.{name}" in records:
                return Record
            if _NUMPY_MODULES.fullmatch(module) and name in _NUMPY:
                return _NUMPY[name]
            raise GenimaError(f"{path} asks for {module}.{name}, which no such file needs: it is not opened")

    try:
        with open(path, "rb") as file:
            return Reader(file).load()
    except GenimaError:
        raise
    except OSError as error:
        raise GenimaError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise GenimaError(f"{path} is damaged: {' '.join(str(error).split()) or type(error).__name__}") from None
