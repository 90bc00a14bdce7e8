"""MessagePack with NumPy arrays, in the encoding of openpi's client.

An array is the map ``{b"__ndarray__": true, b"data": bytes, b"dtype": "<f4", b"shape": [20, 8]}``, a NumPy scalar the
map ``{b"__npgeneric__": true, b"data": number, b"dtype": "<f4"}``. Arrays of booleans, integers and floats are allowed;
nothing is pickled.

Source: openpi, packages/openpi-client/src/openpi_client/msgpack_numpy.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from genima.errors import GenimaError
from genima.io.files import describe_error, shorten

_ARRAY, _SCALAR, _DATA, _DTYPE, _SHAPE = b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape"
_DTYPES = re.compile(r"[<>|=]?[biuf][0-9]{1,2}")
_MAX_DIMENSIONS = 8


def pack(data: Mapping[str, Any]) -> bytes:
    """Return the message of a map of plain values and NumPy arrays.

    Raises:
        GenimaError: for an array of objects, records or complex numbers, and any other value that has no encoding.
    """
    try:
        packed: bytes = msgpack.packb(data, default=_encode)
    except (TypeError, ValueError, OverflowError) as error:
        raise GenimaError(f"message: cannot be packed ({describe_error(error)})") from None
    return packed


def unpack(message: bytes, what: str) -> dict[str, Any]:
    """Return the map of a message; arrays are read-only and share its memory.

    Args:
        message: untrusted bytes.
        what: subject of errors.

    Raises:
        GenimaError: for bytes that are no map in this encoding.
    """
    try:
        data = msgpack.unpackb(message, object_hook=_decode)
    except (ValueError, TypeError, RecursionError, MemoryError, msgpack.UnpackException) as error:
        raise GenimaError(f"{what}: not MessagePack with NumPy arrays ({describe_error(error)})") from None
    if not isinstance(data, dict):
        raise GenimaError(f"{what}: not a map ({shorten(repr(data))})")
    return data


def _encode(value: Any) -> Any:
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "biuf":
        raise TypeError(f"a value of type {getattr(value, 'dtype', type(value).__name__)} has no encoding")
    if isinstance(value, np.ndarray):
        return {_ARRAY: True, _DATA: value.tobytes(), _DTYPE: value.dtype.str, _SHAPE: value.shape}
    return {_SCALAR: True, _DATA: value.item(), _DTYPE: value.dtype.str}


def _decode(data: dict[Any, Any]) -> Any:
    if _ARRAY in data:
        dtype, shape, content = _dtype(data), data.get(_SHAPE), data.get(_DATA)
        if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
            raise ValueError(f"shape of an array: {shorten(repr(shape))}")
        if not all(type(side) is int and side >= 0 for side in shape) or not isinstance(content, bytes):
            raise ValueError(f"shape or data of an array: {shorten(repr(shape))}")
        if math.prod(shape) * dtype.itemsize != len(content):
            raise ValueError(f"an array of {dtype.str} {shape} has {len(content)} bytes")
        return np.ndarray(shape, dtype, content)
    if _SCALAR in data:
        value = data.get(_DATA)
        if not isinstance(value, bool | int | float):
            raise ValueError(f"value of a scalar: {shorten(repr(value))}")
        try:
            return _dtype(data).type(value)
        except OverflowError as error:
            raise ValueError(str(error)) from None
    return data


def _dtype(data: Mapping[Any, Any]) -> np.dtype[Any]:
    name = data.get(_DTYPE)
    if not isinstance(name, str) or not _DTYPES.fullmatch(name):
        raise ValueError(f"dtype {shorten(repr(name))}")
    return np.dtype(name)
