"""Random backgrounds, which force the controller to look at the spheres alone."""

from __future__ import annotations

import cv2
import numpy as np

from genima.observation import Image


def random_background(rng: np.random.Generator, size: int) -> Image:
    """A procedural texture (size, size, 3): coloured noise of random grain, gradients, stripes, patches, or plain."""
    kind = rng.integers(5)
    if kind == 0:
        texture = np.full((size, size, 3), rng.uniform(0, 255, 3))
    elif kind == 1:  # a gradient between four random corners
        texture = _grown(rng.uniform(0, 255, (2, 2, 3)), size)
    elif kind == 2:  # noise of several grains
        texture = sum(
            weight * _grown(rng.uniform(0, 255, (cells, cells, 3)), size)
            for weight, cells in zip(rng.dirichlet(np.ones(3)), rng.integers(3, size // 2, 3), strict=True)
        )
    elif kind == 3:  # stripes or checks
        u, v = np.meshgrid(np.arange(size), np.arange(size))
        angle, period = rng.uniform(0, np.pi), rng.uniform(6, size / 2)
        wave = np.sin((u * np.cos(angle) + v * np.sin(angle)) * 2 * np.pi / period)
        if rng.random() < 0.5:
            wave = wave * np.sin((v * np.cos(angle) - u * np.sin(angle)) * 2 * np.pi / period)
        a, b = rng.uniform(0, 255, (2, 3))
        texture = np.where((wave > 0)[..., None], a, b)
    else:  # overlapping patches, like a cluttered room
        texture = np.full((size, size, 3), rng.uniform(0, 255, 3))
        for _ in range(rng.integers(3, 12)):
            x, y = rng.integers(0, size, 2).tolist()
            w, h = rng.integers(size // 12, size // 2, 2).tolist()
            colour = rng.uniform(0, 255, 3).tolist()
            if rng.random() < 0.5:
                cv2.rectangle(texture, (x, y), (x + w, y + h), colour, -1)
            else:
                cv2.ellipse(texture, (x, y), (w // 2, h // 2), float(rng.uniform(0, 180)), 0, 360, colour, -1)
    return np.clip(texture, 0, 255).astype(np.uint8)


def _grown(cells: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(cells.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
