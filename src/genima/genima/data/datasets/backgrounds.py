"""Random backgrounds, which make the controller rely on the spheres only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.types import Image

_KINDS = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_SMALLEST_CROP = 0.5  # of an image's shorter side


class Backgrounds:
    """Square crops of the images below a folder, or procedural textures without one."""

    def __init__(self, folder: Path | None = None) -> None:
        """Raises:
        GenimaError: for a folder without images, or an image file that cannot be read.
        """
        self._files: list[Path] = []
        if folder is not None:
            self._files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _KINDS and path.is_file())
            if not self._files:
                raise GenimaError(f"no images ({', '.join(sorted(_KINDS))}) in {folder}; choose another folder")
            for file in self._files:
                if not cv2.haveImageReader(str(file)):  # looks at the first bytes only
                    raise _read_error(file)

    def __call__(self, rng: np.random.Generator, size: int) -> Image:
        """Return a background (size, size, 3).

        Raises:
            GenimaError: when the chosen image is damaged.
        """
        if not self._files:
            return random_background(rng, size)
        file = self._files[rng.integers(len(self._files))]
        image = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise _read_error(file)
        h, w = image.shape[:2]
        side = int(np.ceil(min(h, w) * rng.uniform(_SMALLEST_CROP, 1)))
        top, left = rng.integers(h - side + 1), rng.integers(w - side + 1)
        square = image[top : top + side, left : left + side]
        interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(square, (size, size), interpolation=interpolation), np.uint8)


def _read_error(file: Path) -> GenimaError:
    return GenimaError(f"background {file}: not readable as an image; repair or remove it")


def random_background(rng: np.random.Generator, size: int) -> Image:
    """Return a procedural texture (size, size, 3): plain, gradient, noise or stripes, half of them with clutter."""
    kind = rng.integers(4)
    texture: NDArray[Any]
    if kind == 0:
        texture = np.full((size, size, 3), _colour(rng), np.float32)
    elif kind == 1:  # a gradient between four random corners
        texture = _enlarge(np.array([_colour(rng) for _ in range(4)]).reshape(2, 2, 3), size)
    elif kind == 2:  # noise of several grains
        texture = np.zeros((size, size, 3), np.float32)
        for weight, cells in zip(rng.dirichlet(np.ones(3)), rng.integers(3, size // 2, 3), strict=True):
            texture += float(weight) * _enlarge(rng.uniform(0, 255, (cells, cells, 3)), size)
    else:  # stripes or checks
        along = np.arange(size, dtype=np.float32)
        angle, period = rng.uniform(0, np.pi), rng.uniform(6, size / 2)
        x, y = float(np.cos(angle) * 2 / period) * along, float(np.sin(angle) * 2 / period) * along
        dark = np.floor(x[None] + y[:, None]) % 2 == 0
        if rng.random() < 0.5:
            dark ^= np.floor(x[:, None] - y[None]) % 2 == 0
        texture = np.array([_colour(rng), _colour(rng)], np.float32)[dark.astype(np.intp)]
    if rng.random() < 0.6:
        _clutter(rng, texture)
    return np.clip(texture, 0, 255).astype(np.uint8)


def _clutter(rng: np.random.Generator, texture: NDArray[Any]) -> None:
    """Draw shapes like those of arms, tables and objects: limbs, discs, blocks and planes."""
    size = len(texture)
    for _ in range(rng.integers(3, 30)):
        colour, centre = _colour(rng).tolist(), rng.integers(0, size, 2)
        extent = size * rng.uniform(0.02, 0.5) * rng.random(2)
        shape = rng.integers(4)
        if shape == 0:
            end = centre + rng.normal(0, size / 3, 2)
            thickness = int(rng.integers(1, size // 6))
            cv2.line(texture, centre.tolist(), end.astype(int).tolist(), colour, thickness, cv2.LINE_AA)
        elif shape == 1:
            axes, turn = (extent + 1).astype(int).tolist(), float(rng.uniform(0, 180))
            cv2.ellipse(texture, centre.tolist(), axes, turn, 0, 360, colour, -1, cv2.LINE_AA)
        elif shape == 2:
            corners = centre + rng.normal(0, 1, (int(rng.integers(3, 6)), 2)) * extent
            cv2.fillPoly(texture, [corners.astype(np.int32)], colour, cv2.LINE_AA)
        else:
            cv2.rectangle(texture, centre.tolist(), (centre + extent).astype(int).tolist(), colour, -1)


def _colour(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a random colour, half of the time a grey."""
    return rng.uniform(0, 255, 3) if rng.random() < 0.5 else np.full(3, rng.uniform(0, 255))


def _enlarge(cells: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(cells.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
