"""Tiling of several views into one image, and its inverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.types import Image

MAX_VIEWS = 6
_GRIDS = {1: (1, 1), 2: (1, 2), 3: (2, 2), 4: (2, 2), 5: (2, 3), 6: (2, 3)}


def require_views(views: Sequence[str], what: str = "views") -> None:
    """Check the views of a tile.

    Raises:
        GenimaError: unless they are 1 to 6 different views.
    """
    if not 1 <= len(views) <= MAX_VIEWS or len(set(views)) != len(views):
        raise GenimaError(
            f"{what}: not 1 to {MAX_VIEWS} different views ({', '.join(views) or 'none'}); name each once"
        )


def tile_grid(views: int) -> tuple[int, int]:
    """Return rows and columns of the tile of ``views`` views; unused cells at the end are black.

    Raises:
        GenimaError: for a number that is not 1 to 6.
    """
    if views not in _GRIDS:
        raise GenimaError(f"tile: number of views out of range ({views}); use 1 to {MAX_VIEWS}")
    return _GRIDS[views]


def tile_size(views: int, view_size: int) -> tuple[int, int]:
    """Return height and width in px of the tile of ``views`` square views of side ``view_size``."""
    rows, columns = tile_grid(views)
    return rows * view_size, columns * view_size


def tile(images: Mapping[str, Image], order: Sequence[str]) -> Image:
    """Tile (h, w, c) images row by row in ``order``: (rows h, columns w, c), see :func:`tile_grid`.

    Raises:
        GenimaError: when a view is missing or the sizes differ.
    """
    if missing := [view for view in order if view not in images]:
        raise GenimaError(f"tile: images missing ({', '.join(missing)}); there are {', '.join(images) or 'none'}")
    rows, columns = tile_grid(len(order))
    shapes = {view: images[view].shape for view in order}
    if len(set(shapes.values())) != 1:
        raise GenimaError(f"tile: image sizes differ ({shapes}); resize them")
    (h, w, channels), first = next(iter(shapes.values())), images[order[0]]
    tiled = np.zeros((rows * h, columns * w, channels), first.dtype)
    for view, cell in zip(order, _cells(tiled, rows, columns), strict=False):
        cell[:] = images[view]
    return tiled


def untile(tiled: Image, order: Sequence[str]) -> dict[str, Image]:
    """Split a tile into views (h, w, c) by name, which share its memory: the inverse of :func:`tile`."""
    return dict(zip(order, _cells(tiled, *tile_grid(len(order))), strict=False))


def _cells(tiled: Image, rows: int, columns: int) -> list[Image]:
    h, w = tiled.shape[0] // rows, tiled.shape[1] // columns
    return [tiled[r * h : (r + 1) * h, c * w : (c + 1) * w] for r in range(rows) for c in range(columns)]


def crop_square(image: Image, size: int) -> Image:
    """Crop the central square of an image (h, w, 3) and resize it to size x size, by area against aliasing."""
    square = _central_square(image)
    if len(square) == size:
        return square
    return np.asarray(cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def crop_depth(depth: NDArray[np.floating], size: int) -> NDArray[np.float32]:
    """Crop and resize a depth image (h, w) as :func:`crop_square`, to the nearest pixels: edges are not averaged."""
    square = _central_square(depth)
    nearest = (np.arange(size) + 0.5) * len(square) // size
    rows = nearest.astype(int)
    return np.asarray(square[np.ix_(rows, rows)], np.float32)


def _central_square(image: NDArray[Any]) -> NDArray[Any]:
    h, w = image.shape[:2]
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    return image[top : top + side, left : left + side]
