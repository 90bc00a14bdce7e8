"""Four views in one picture, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from genima.errors import GenimaError
from genima.types import Image


def tile(images: Mapping[str, Image], order: Sequence[str]) -> Image:
    """Tile four (h, w, 3) images 2x2, row by row in ``order``, into (2h, 2w, 3).

    Raises:
        GenimaError: when a view is missing or the sizes differ.
    """
    if missing := [view for view in order if view not in images]:
        raise GenimaError(f"no image of view {', '.join(missing)}; there is {', '.join(images) or 'none'}")
    shapes = {view: images[view].shape for view in order}
    if len(order) != 4 or len(set(shapes.values())) != 1:
        raise GenimaError(f"a tile takes four images of one size, not {shapes}")
    a, b, c, d = (images[view] for view in order)
    return np.concatenate([np.concatenate([a, b], axis=1), np.concatenate([c, d], axis=1)], axis=0)


def untile(tiled: Image, order: Sequence[str]) -> dict[str, Image]:
    """The exact inverse of :func:`tile`: views (h, w, 3) by name (they share memory with the tile)."""
    h, w = tiled.shape[0] // 2, tiled.shape[1] // 2
    quarters = (tiled[:h, :w], tiled[:h, w:], tiled[h:, :w], tiled[h:, w:])
    return dict(zip(order, quarters, strict=True))


def fit(image: Image, size: int) -> Image:
    """The middle square of an image (h, w, 3), size x size; by area, so that shrinking does not alias."""
    h, w = image.shape[:2]
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    square = image[top : top + side, left : left + side]
    if side == size:
        return square
    return np.asarray(cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
