"""Augmentation of drawn targets: blurred, shifted and recoloured spheres, as a diffusion model generates them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.types import Image

Range = tuple[float, float]  # of a uniform distribution, sampled for every image
Transform = Callable[[np.random.Generator, Image], Image]  # (h, w, 3) uint8 rgb to the same
_LUMA = np.array([0.299, 0.587, 0.114])  # luma weights of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True)
class Elastic:
    """Elastic distortion: each pixel is taken from a nearby place, with smoothly varying offsets."""

    shift: Range  # px, standard deviation of the displacement along each axis
    smoothness: Range  # px, standard deviation of the Gaussian that smooths the displacements

    def __call__(self, rng: np.random.Generator, image: Image) -> Image:
        """Return a distorted copy."""
        h, w = image.shape[:2]
        shift, smoothness = rng.uniform(*self.shift), rng.uniform(*self.smoothness)
        cell = max(1.0, smoothness / 2)  # px: a grid that is fine enough for the smoothed displacements
        rows, columns = (int(np.ceil(side / cell)) for side in (h, w))
        displacements = cv2.GaussianBlur(rng.standard_normal((rows, columns, 2), np.float32), (0, 0), smoothness / cell)
        displacements *= shift * 2 * np.sqrt(np.pi) * smoothness / cell  # restores the deviation that smoothing reduces
        x, y = cv2.split(_pixels(h, w) + cv2.resize(displacements, (w, h)))
        return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.uint8)


@dataclass(frozen=True)
class Blur:
    """Gaussian blur."""

    sigma: Range  # px

    def __call__(self, rng: np.random.Generator, image: Image) -> Image:
        """Return a blurred copy."""
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(*self.sigma)), np.uint8)


@dataclass(frozen=True)
class ColourJitter:
    """Random brightness, contrast and saturation (relative), and hue (fraction of a turn).

    All in one linear map of the colours, so hue turns about the axis of greys.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float

    def __call__(self, rng: np.random.Generator, image: Image) -> Image:
        """Return a recoloured copy."""
        spread = np.array([self.brightness, self.contrast, self.saturation, self.hue])
        brightness, contrast, saturation, hue = rng.uniform(-spread, spread) + [1, 1, 1, 0]
        turn = Rotation.from_rotvec(np.full(3, 2 * np.pi * hue / np.sqrt(3))).as_matrix()
        colours = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * _LUMA) @ turn
        offset = brightness * (1 - contrast) * (_LUMA @ cv2.mean(image)[:3])
        return _recolour(image, colours, np.full(3, offset))


@dataclass(frozen=True)
class ColourCast:
    """Random scale and shift of the red, green and blue channels, each separately."""

    gain: float  # largest relative change
    offset: float  # grey levels, largest change

    def __call__(self, rng: np.random.Generator, image: Image) -> Image:
        """Return a recoloured copy."""
        gains, offsets = rng.uniform(1 - self.gain, 1 + self.gain, 3), rng.uniform(-self.offset, self.offset, 3)
        return _recolour(image, np.diag(gains), offsets)


@dataclass(frozen=True)
class Crop:
    """Random shift by whole pixels along each axis, as by padding and a random crop; edges are repeated.

    Source: Yarats et al., Mastering Visual Continuous Control, 2021.
    """

    padding: int  # px

    def __call__(self, rng: np.random.Generator, image: Image) -> Image:
        """Return a shifted copy."""
        (h, w), p = image.shape[:2], self.padding
        top, left = rng.integers(0, 2 * p + 1, 2)
        padded = cv2.copyMakeBorder(image, p, p, p, p, cv2.BORDER_REPLICATE)
        return np.ascontiguousarray(padded[top : top + h, left : left + w], np.uint8)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise, smooth over ``grain`` pixels as decoders leave it; a grain of 1 is per-pixel noise."""

    deviation: Range  # grey levels
    grain: tuple[int, int] = (1, 1)  # px, smallest and largest

    def __call__(self, rng: np.random.Generator, image: Image) -> Image:
        """Return a noisy copy."""
        h, w = image.shape[:2]
        grain = int(rng.integers(self.grain[0], self.grain[1] + 1))
        rows, columns = -(-h // grain), -(-w // grain)
        cv2.setRNGSeed(int(rng.integers(2**31)))  # OpenCV's normal numbers take a third of NumPy's time
        blotches = np.empty((rows, columns * 3), np.float32)
        cv2.randn(blotches, np.zeros(1), np.array([rng.uniform(*self.deviation)]))
        noise = cv2.resize(blotches.reshape(rows, columns, 3), (w, h))
        return np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), np.uint8)


@dataclass(frozen=True)
class Augmentation:
    """Transforms of a drawn view, each applied with probability 0.5, and the opacity of its spheres."""

    transforms: tuple[Transform, ...]
    opacity: Range = (0.7, 1.0)

    @classmethod
    def paper(cls) -> Augmentation:
        """Return the augmentation of the GENIMA paper (appendices E and F).

        Torchvision's elastic transform shifts by alpha / 2 times uniform noise in -1..1 smoothed with sigma: with the
        released alpha 80 and sigma 10 its standard deviation is this shift. The colour ranges, which the
        paper does not specify, are the diffusion agent's.
        """
        shift = 80 / 2 / np.sqrt(3) / (2 * np.sqrt(np.pi) * 10)
        elastic, noise = Elastic((shift, shift), (10.0, 10.0)), Noise((5.0, 5.0))
        return cls((elastic, ColourJitter(0.2, 0.2, 0.1, 0.05), Crop(4), noise))

    @classmethod
    def small(cls) -> Augmentation:
        """Return the augmentation for a small diffusion model, whose positions are better than its stripes."""
        return cls((
            Elastic((0.2, 1.0), (1.5, 6.5)),
            Blur((0.3, 2.5)),
            ColourCast(0.25, 20.0),
            Noise((3.0, 25.0), (1, 3)),
        ))  # fmt: skip

    def __call__(self, rng: np.random.Generator, image: Image) -> Image:
        """Return an augmented copy of a drawn view (h, w, 3)."""
        for transform in self.transforms:
            if rng.random() < 0.5:
                image = transform(rng, image)
        return image


AUGMENTATIONS = {"paper": Augmentation.paper, "small": Augmentation.small}
"""Augmentations by the name that options have."""


def _recolour(image: Image, colours: NDArray[np.float64], offset: NDArray[np.float64]) -> Image:
    return np.asarray(cv2.transform(image, np.column_stack([colours, offset]).astype(np.float32)), np.uint8)


@lru_cache(maxsize=2)
def _pixels(h: int, w: int) -> NDArray[np.float32]:
    """Return the coordinates (h, w, 2) of all pixels, x before y."""
    return np.stack(np.meshgrid(np.arange(w), np.arange(h)), axis=-1).astype(np.float32)
