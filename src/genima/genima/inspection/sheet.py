"""Contact sheets: grids of images on white, with captions."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.PngImagePlugin

from genima.io.files import atomic_write
from genima.types import Image

_SOFTWARE = ("Software", "genima")  # metadata of our pictures; only such files are replaced
_LINE = 18  # px, height of a caption


def grid(images: Sequence[Image], columns: int = 2, gap: int = 6) -> Image:
    """Return images (h, w, 3) of any sizes row by row, with ``gap`` px right of and below each."""
    rows = [_join(images[i : i + columns], 1, gap) for i in range(0, len(images), columns)]
    return _join(rows, 0, gap)


def add_caption(image: Image, text: str) -> Image:
    """Return the image below a line of text, cut to its width."""
    line = np.full((_LINE, image.shape[1], 3), 255, np.uint8)
    cv2.putText(line, text, (2, _LINE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([line, image])


def write_picture(path: Path, image: Image) -> None:
    """Write an image (h, w, 3) as PNG.

    Raises:
        GenimaError: when there is no space or no permission.
    """
    note, data = PIL.PngImagePlugin.PngInfo(), io.BytesIO()
    note.add_text(*_SOFTWARE)
    PIL.Image.fromarray(image).save(data, "PNG", pnginfo=note)
    atomic_write(path, data.getvalue())


def is_picture(path: Path) -> bool:
    """Return whether a file was written by :func:`write_picture`."""
    try:
        with PIL.Image.open(path, formats=("PNG",)) as image:
            return image.info.get(_SOFTWARE[0]) == _SOFTWARE[1]
    except Exception:  # PIL raises many kinds for files of others
        return False


def _join(images: Sequence[Image], axis: int, gap: int) -> Image:
    length = max(image.shape[1 - axis] for image in images)
    padded = []
    for image in images:
        missing = length - image.shape[1 - axis]
        down, right = (missing, gap) if axis == 1 else (gap, missing)
        padded.append(cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_CONSTANT, value=(255, 255, 255)))
    return np.asarray(np.concatenate(padded, axis=axis), np.uint8)
