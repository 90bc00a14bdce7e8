"""Depth images as messages."""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import Image

from genima.errors import GenimaError
from genima_nodes.ros import messages

METRES = np.array([[0.0, 0.5, 1.2346], [3.0, 65.535, 0.001]], np.float32)


def test_message_holds_millimetres_and_their_stamp() -> None:
    message = messages.depth_message(METRES, 12.25, "front_color_optical_frame")
    assert (message.encoding, message.width, message.height, message.step) == ("16UC1", 3, 2, 6)
    assert messages.seconds(message.header.stamp) == 12.25 and message.header.frame_id == "front_color_optical_frame"
    assert np.frombuffer(message.data, "<u2").tolist() == [0, 500, 1235, 3000, 65535, 1]
    np.testing.assert_allclose(messages.depth_from(message, (3, 2)), METRES, atol=5.1e-4)


@pytest.mark.parametrize("distance", [np.nan, np.inf, -np.inf, -1.0, 65.6, 1e9, 1e-4])
def test_what_a_millimetre_cannot_hold_is_unknown(distance: float) -> None:
    message = messages.depth_message(np.full((2, 2), distance, np.float32), 0.0)
    assert not np.frombuffer(message.data, np.uint8).any()


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_both_encodings_are_read_in_metres(encoding: str, big_endian: bool) -> None:
    kind, scale = {"16UC1": ("u2", 1000), "32FC1": ("f4", 1)}[encoding]
    values = np.rint(METRES * scale) if encoding == "16UC1" else METRES
    raw = values.astype(f"{'>' if big_endian else '<'}{kind}")
    message = Image(height=2, width=3, encoding=encoding, step=raw.itemsize * 3, is_bigendian=int(big_endian))
    message.data = array.array("B", raw.tobytes())
    depth = messages.depth_from(message)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, METRES, atol=5.1e-4)


def test_unknown_distances_of_drivers_are_zero() -> None:
    message = Image(height=1, width=5, encoding="32FC1", step=20)
    message.data = array.array("B", np.array([np.nan, np.inf, -np.inf, -0.1, 2.0], "<f4").tobytes())
    assert messages.depth_from(message).tolist() == [[0, 0, 0, 0, 2]]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda m: setattr(m, "encoding", "rgb8"), "encoding rgb8; 16UC1 or 32FC1 is needed"),
        (lambda m: setattr(m, "encoding", ""), "encoding missing"),
        (lambda m: setattr(m, "encoding", "32FC1"), "12 bytes in rows of 6 do not fit 3x2 32FC1"),
        (lambda m: setattr(m, "width", 2), "size 2x2; 3x2 is needed"),
        (lambda m: setattr(m, "step", 8), "12 bytes in rows of 8 do not fit 3x2 16UC1"),
        (lambda m: setattr(m, "data", array.array("B", bytes(5))), "5 bytes"),
    ],
)
def test_malformed_messages_are_one_line_errors(change: Callable[[Any], None], line: str) -> None:
    message = messages.depth_message(METRES, 0.0)
    change(message)
    with pytest.raises(GenimaError, match=line) as error:
        messages.depth_from(message, (3, 2))
    assert "\n" not in str(error.value)
