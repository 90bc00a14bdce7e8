"""A view as it was laid over the view as it is, so that a person can put every object back where it was.

Demos and evaluations that shall begin in the same state are set up like this (GENIMA paper, section 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.types import Image

MATCH = 0.002  # share of a view up to which it counts as the same
BELONGS, STANDS = (0, 255, 255), (255, 0, 60)  # rgb of outlines: where an object was, and where it is
_COMPARED = 256  # px, the longer side of what is compared: so the difference does not depend on the camera
_BLUR = 1.5  # px: what is smaller is noise
_DIFFERENT = 25  # of 255, in any channel
_BLACK, _WHITE = 2, 250  # of 255: what is beyond may be clipped and tells nothing about the light
_GAIN, _OFFSET = 1.5, 30.0  # how far a channel's light may have changed
_FLAT = 25.0  # variance: a channel with less contrast tells no gain
_FEWEST = 0.1  # share of a channel that must show the same to tell the light
_EDGE = (40, 100)  # Canny's thresholds
_NEAR = 0.02  # of the longer side: outlines are drawn this near to what differs


class Reference:
    """A view as it was."""

    def __init__(self, image: Image) -> None:
        """``image`` is (h, w, 3)."""
        self.image = image

    def compare(self, live: Image) -> Comparison:
        """Find where an image (h, w, 3) of the view as it is differs, noise and a change of the light aside.

        Both are smoothed, the light of one is brought to that of the other channel by channel, and pixels count that
        then differ by more than a threshold: intensity normalisation and simple differencing of Radke et al., Image
        Change Detection Algorithms: A Systematic Survey, IEEE Trans. Image Processing 14(3), 2005.

        Raises:
            GenimaError: when the sizes differ.
        """
        if live.shape != self.image.shape:
            (h, w, _), (height, width, _) = live.shape, self.image.shape
            raise GenimaError(f"image is {w}x{h}, the episode's is {width}x{height}: set the camera as it was")
        was, is_now = self._smooth.copy(), _smooth(live)
        for c in range(3):
            gain, offset = _change_of_light(was[::2, ::2, c], is_now[::2, ::2, c])
            # The one that is darker where it is bright is raised: what it clips then, the other has clipped already.
            if 255 * gain + offset > 255:
                was[..., c] = np.clip(gain * was[..., c] + offset, 0, 255)
            else:
                is_now[..., c] = np.clip((is_now[..., c] - offset) / gain, 0, 255)
        return Comparison(self, live, np.abs(was - is_now).max(axis=-1) > _DIFFERENT)

    @cached_property
    def edges(self) -> NDArray[np.uint8]:
        """(h, w), 1 on edges."""
        return _edges(self.image)

    @cached_property
    def _smooth(self) -> NDArray[np.float32]:
        return _smooth(self.image)


@dataclass(frozen=True)
class Comparison:
    """A view as it was and as it is."""

    reference: Reference
    live: Image  # (h, w, 3)
    differing: NDArray[np.bool_]  # at the size of comparison

    @property
    def difference(self) -> float:
        """The share of the view that differs, 0..1."""
        return float(self.differing.mean())

    def picture(self) -> Image:
        """Both half transparent (h, w, 3); where they differ, with the outlines that only one of them has."""
        h, w, _ = self.live.shape
        side = max(h, w)
        picture = np.asarray(cv2.addWeighted(self.reference.image, 0.5, self.live, 0.5, 0), np.uint8)
        if not self.differing.any():
            return picture
        near = cv2.resize(self.differing.astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST)
        near = cv2.dilate(near, _square(_NEAR * side))
        was, is_now = self.reference.edges, _edges(self.live)
        thickness, same = _square(side / 1000), _square(1)
        for edges, others, colour in ((is_now, was, STANDS), (was, is_now, BELONGS)):
            alone = cv2.bitwise_and(edges, near)
            alone[cv2.dilate(others, same) > 0] = 0
            picture[cv2.dilate(alone, thickness) > 0] = colour
        return picture


def _smooth(image: Image) -> NDArray[np.float32]:
    h, w, _ = image.shape
    scale = min(1.0, _COMPARED / max(h, w))
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), _BLUR), np.float32)


def _change_of_light(was: NDArray[np.float32], is_now: NDArray[np.float32]) -> tuple[float, float]:
    """Gain and offset from one channel (h, w) to the other: least squares over what shows the same in both."""
    telling = (np.minimum(was, is_now) > _BLACK) & (np.maximum(was, is_now) < _WHITE)
    x, y = was[telling], is_now[telling]
    gain, offset = 1.0, 0.0
    for within in (np.inf, 2 * _DIFFERENT, _DIFFERENT, _DIFFERENT):
        same = np.abs(gain * x + offset - y) < within
        if same.sum() < _FEWEST * was.size:
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
