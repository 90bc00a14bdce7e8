"""Comparison of a reference image with the live image of a view, to restore the positions of objects.

Demos and evaluations that start from the same state are set up this way (GENIMA paper, section 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.types import Image

MATCH = 0.002  # fraction of different pixels up to which views are equal
REFERENCE_COLOUR, LIVE_COLOUR = (0, 255, 255), (255, 0, 60)  # rgb of the outlines of objects
_COMPARISON_SIZE = 256  # px, longer side: independent of the camera's resolution
_BLUR = 1.5  # px: smaller structures are noise
_DIFFERENT = 25  # of 255, in any channel
_BLACK, _WHITE = 2, 250  # of 255: pixels beyond may be clipped and are not used to estimate the light
_GAIN, _OFFSET = 1.5, 30.0  # largest change of a channel's light
_FLAT = 25.0  # variance: below, the gain of a channel is undetermined
_MIN_UNCHANGED = 0.1  # fraction of a channel needed to estimate the light
_EDGE = (40, 100)  # Canny's thresholds
_NEAR = 0.02  # of the longer side: distance of outlines from different pixels


class Reference:
    """Reference image of a view."""

    def __init__(self, image: Image) -> None:
        """``image`` is (h, w, 3)."""
        self.image = image

    def compare(self, live: Image) -> Comparison:
        """Find the differences of a live image (h, w, 3), without noise and changes of light.

        Both are smoothed, the light of one is normalised to the other, channel by channel, and differences above a
        threshold count: intensity normalisation and simple differencing of Radke et al., Image Change Detection
        Algorithms: A Systematic Survey, IEEE Trans. Image Processing 14(3), 2005.

        Raises:
            GenimaError: when the sizes differ.
        """
        if live.shape != self.image.shape:
            (h, w, _), (height, width, _) = live.shape, self.image.shape
            raise GenimaError(
                f"image: size differs from the episode's ({w}x{h}, {width}x{height}); set the camera's profile"
            )
        reference, smooth = self._smooth.copy(), _smooth(live)
        for c in range(3):
            gain, offset = _light_change(reference[::2, ::2, c], smooth[::2, ::2, c])
            # The darker image is brightened: where it is clipped, the other is clipped already.
            if 255 * gain + offset > 255:
                reference[..., c] = np.clip(gain * reference[..., c] + offset, 0, 255)
            else:
                smooth[..., c] = np.clip((smooth[..., c] - offset) / gain, 0, 255)
        return Comparison(self, live, np.abs(reference - smooth).max(axis=-1) > _DIFFERENT)

    @cached_property
    def edges(self) -> NDArray[np.uint8]:
        """Edge mask (h, w), 1 on edges."""
        return _edges(self.image)

    @cached_property
    def _smooth(self) -> NDArray[np.float32]:
        return _smooth(self.image)


@dataclass(frozen=True)
class Comparison:
    """Reference and live image of a view."""

    reference: Reference
    live: Image  # (h, w, 3)
    mask: NDArray[np.bool_]  # different pixels, at the size of comparison

    @property
    def difference(self) -> float:
        """Fraction of different pixels, 0..1."""
        return float(self.mask.mean())

    def overlay(self) -> Image:
        """Return both images blended (h, w, 3), with the outlines that only one of them has."""
        h, w, _ = self.live.shape
        side = max(h, w)
        picture = np.asarray(cv2.addWeighted(self.reference.image, 0.5, self.live, 0.5, 0), np.uint8)
        if not self.mask.any():
            return picture
        near = cv2.resize(self.mask.astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST)
        near = cv2.dilate(near, _square(_NEAR * side))
        reference, live = self.reference.edges, _edges(self.live)
        thickness, same = _square(side / 1000), _square(1)
        for edges, others, colour in ((live, reference, LIVE_COLOUR), (reference, live, REFERENCE_COLOUR)):
            outline = cv2.bitwise_and(edges, near)
            outline[cv2.dilate(others, same) > 0] = 0
            picture[cv2.dilate(outline, thickness) > 0] = colour
        return picture


def _smooth(image: Image) -> NDArray[np.float32]:
    h, w, _ = image.shape
    scale = min(1.0, _COMPARISON_SIZE / max(h, w))
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), _BLUR), np.float32)


def _light_change(reference: NDArray[np.float32], live: NDArray[np.float32]) -> tuple[float, float]:
    """Return gain and offset from one channel (h, w) to the other: least squares over unchanged pixels."""
    unclipped = (np.minimum(reference, live) > _BLACK) & (np.maximum(reference, live) < _WHITE)
    x, y = reference[unclipped], live[unclipped]
    gain, offset = 1.0, 0.0
    for within in (np.inf, 2 * _DIFFERENT, _DIFFERENT, _DIFFERENT):
        same = np.abs(gain * x + offset - y) < within
        if same.sum() < _MIN_UNCHANGED * reference.size:
            return 1.0, 0.0
        a, b = x[same], y[same]
        covariance = np.mean((a - a.mean()) * (b - b.mean()))
        gain = float(np.clip((covariance + _FLAT) / (a.var() + _FLAT), 1 / _GAIN, _GAIN))
        offset = float(np.clip(b.mean() - gain * a.mean(), -_OFFSET, _OFFSET))
    return gain, offset


def _edges(image: Image) -> NDArray[np.uint8]:
    return np.asarray(cv2.Canny(cv2.GaussianBlur(image, (0, 0), _BLUR), *_EDGE) > 0, np.uint8)


def _square(radius: float) -> NDArray[np.uint8]:
    side = 2 * round(radius) + 1
    return np.ones((side, side), np.uint8)
