"""MessagePack with NumPy arrays: parity with openpi's encoding, and hostile messages."""

from __future__ import annotations

import pickle
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mutation import mutated_bytes, require_clean
from standins import openpi_server

from genima.errors import GenimaError
from genima.io.msgpack_numpy import pack, unpack

DTYPES = st.one_of(
    arrays.boolean_dtypes(), arrays.integer_dtypes(), arrays.unsigned_integer_dtypes(), arrays.floating_dtypes()
)
ARRAYS = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0)))

# Written by hand from the MessagePack specification and openpi's source: maps 8x, strings ax, binary c4, arrays 9x.
ARRAY = (
    b"\x81\xa7actions"
    b"\x84"
    b"\xc4\x0b__ndarray__\xc3"
    b"\xc4\x04data\xc4\x10\x00\x00\x80\x3f\x00\x00\x00\x40\x00\x00\x40\xc0\x00\x00\x00\x00"
    b"\xc4\x05dtype\xa3<f4"
    b"\xc4\x05shape\x92\x02\x02"
)
OBSERVATION = (
    b"\x83"
    b"\xa5image\x84\xc4\x0b__ndarray__\xc3\xc4\x04data\xc4\x03\x00\x7f\xff\xc4\x05dtype\xa3|u1\xc4\x05shape\x93\x01\x01\x03"
    b"\xa6prompt\xa4push"
    b"\xa4time\x83\xc4\x0d__npgeneric__\xc3\xc4\x04data\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\xc4\x05dtype\xa3<f4"
)


@pytest.mark.parametrize(("data", "golden"), [
    ({"actions": np.array([[1, 2], [-3, 0]], "<f4")}, ARRAY),
    ({"image": np.array([[[0, 127, 255]]], np.uint8), "prompt": "push", "time": np.float32(1.5)}, OBSERVATION),
], ids=["actions", "observation"])  # fmt: skip
def test_encoding_is_openpis(data: dict[str, Any], golden: bytes) -> None:
    assert pack(data) == golden
    for name, value in unpack(golden, "message").items():
        np.testing.assert_array_equal(value, data[name])
        assert type(value) is type(data[name])


@given(array=ARRAYS)
def test_arrays_survive_round_trip(array: np.ndarray) -> None:
    for pair in ((pack, unpack), (lambda d: openpi_server.message(d), unpack), (pack, _unpack_as_openpi)):
        found = pair[1](pair[0]({"a": {"b": array}}), "message")["a"]["b"]
        assert found.dtype == array.dtype and found.shape == array.shape
        np.testing.assert_array_equal(found, array)
    assert pack({"a": array}) == openpi_server.message({"a": array})


def _unpack_as_openpi(message: bytes, what: str) -> Any:
    return msgpack.unpackb(message, object_hook=openpi_server.decode)


@pytest.mark.parametrize(
    "value",
    [
        np.array([object()]), np.array([1j]), np.zeros(1, "i4,f4"), np.array(["a"]), np.array([b"a"]),
        np.datetime64("2026-01-01"), object(), 2**70, {1, 2},
    ],
)  # fmt: skip
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(GenimaError, match="message: cannot be packed") as caught:
        pack({"value": value})
    assert "\n" not in str(caught.value)


def _array(**changes: Any) -> bytes:
    fields: dict[bytes, Any] = {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "<f4", b"shape": [2]}
    packed: bytes = msgpack.packb({"a": fields | {name.encode(): value for name, value in changes.items()}})
    return packed


@pytest.mark.parametrize("hostile", [
    b"", b"\xc1", b"\x81", ARRAY[:-1], ARRAY + b"\0", b"\x93\x01\x02\x03", b"\xc0", b"\xa4text",
    pickle.dumps({"actions": [1]}),
    _array(dtype="O"), _array(dtype="<c8"), _array(dtype="V8"), _array(dtype="f4,f4"), _array(dtype="(2,)f4"),
    _array(dtype=b"<f4"), _array(dtype="<f3"), _array(dtype="<M8"), _array(dtype=None),
    _array(shape=[3]), _array(shape=[-2]), _array(shape=[2.0]), _array(shape=2), _array(shape=[True] * 2),
    _array(shape=[2**62, 2**62]), _array(shape=[1] * 40), _array(shape=[0] * 9), _array(data="text"), _array(data=None),
    _array(data=b""), _array(shape=None),
    msgpack.packb({"a": {b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}}),
    msgpack.packb({"a": {b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}}),
    msgpack.packb({"a": {b"__npgeneric__": True, b"data": 1.0}}),
    msgpack.packb({1: 2}),
    b"\x81\xa1a" * 5000 + b"\xc0",
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
], ids=lambda hostile: hostile[:40].hex())  # fmt: skip
def test_hostile_message_is_one_line(hostile: bytes) -> None:
    with pytest.raises(GenimaError, match="reply: not ") as caught:
        unpack(hostile, "reply")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("valid", [ARRAY, OBSERVATION], ids=["array", "observation"])
def test_mutated_message_is_read_or_refused(valid: bytes) -> None:
    for hostile in mutated_bytes(valid, 1000):
        require_clean(lambda hostile=hostile: unpack(hostile, "reply"), hostile)
