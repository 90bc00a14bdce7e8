"""Decoding of PNG and JPEG with a size check before memory is allocated."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from genima.errors import GenimaError
from genima.types import Image

MAX_PIXELS = 1 << 25  # 33 megapixels, 100 MB: 8K is 33.2
_FORMATS = ("PNG", "JPEG")
_COLOUR = ("RGB", "RGBA", "P")  # Pillow's modes: 8 bits a channel, or a palette


def decode_colour(data: bytes | NDArray[np.uint8], what: str, size: tuple[int, int] | None = None) -> Image:
    """Return the (h, w, 3) rgb image of a PNG or JPEG file.

    Args:
        data: the file's bytes.
        what: subject of the error.
        size: width and height in px that it must have.

    Raises:
        GenimaError: for other formats, depth and grey images, sizes, and damaged files.
    """
    pixels = _decode(data, what, _COLOUR, cv2.IMREAD_COLOR, size)
    return np.ascontiguousarray(pixels[..., ::-1])


def decode_rgba(data: bytes | NDArray[np.uint8], what: str, size: tuple[int, int] | None = None) -> Image:
    """Return the (h, w, 4) rgba image of a PNG file; as :func:`decode_colour`."""
    pixels = _decode(data, what, ("RGBA",), cv2.IMREAD_UNCHANGED, size)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA), np.uint8)


def image_size(data: bytes | NDArray[np.uint8], what: str) -> tuple[int, int]:
    """Return width and height in px of a PNG or JPEG file, from its header.

    Raises:
        GenimaError: for other formats and damaged headers.
    """
    return _header(bytes(data), what)[0]


def _decode(
    data: bytes | NDArray[np.uint8], what: str, modes: tuple[str, ...], flags: int, size: tuple[int, int] | None
) -> NDArray[Any]:
    data = bytes(data)
    (width, height), mode = _header(data, what)
    if width * height > MAX_PIXELS:
        raise GenimaError(f"{what}: an image of {width}x{height} px; at most {MAX_PIXELS} px are read")
    if size is not None and (width, height) != size:
        raise GenimaError(f"{what}: an image of {width}x{height} px, {size[0]}x{size[1]} are expected")
    if mode not in modes:
        raise GenimaError(f"{what}: an image of type {mode}, {' or '.join(modes)} is needed (8 bits a channel)")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.shape[:2] != (height, width):  # flags leave turns by EXIF to the caller
        raise GenimaError(f"{what}: an image cannot be decoded ({len(data)} bytes)")
    return np.asarray(pixels)


def _header(data: bytes, what: str) -> tuple[tuple[int, int], str]:
    try:
        with Pillow.open(io.BytesIO(data), formats=_FORMATS) as header:
            return header.size, header.mode
    except (UnidentifiedImageError, Pillow.DecompressionBombError, OSError, ValueError, SyntaxError, EOFError) as error:
        if isinstance(error, Pillow.DecompressionBombError):
            raise GenimaError(f"{what}: an image with more than {MAX_PIXELS} px") from None
        raise GenimaError(f"{what}: neither a PNG nor a JPEG image ({len(data)} bytes)") from None
