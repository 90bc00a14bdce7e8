"""Image checks: decoding, size, brightness, and frozen images while the arm moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.data.episodes.alignment import Stream
from genima.data.episodes.bag import BagReader
from genima.data.episodes.checks.finding import Finding, as_finding
from genima.data.episodes.episode_index import EpisodeIndex
from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.frames import decode
from genima.data.episodes.idle import Activity, Interval
from genima.errors import GenimaError
from genima.types import Image

BLACK = 8.0  # mean of the pixels' values, 0..255
OVEREXPOSED = 0.4  # of the pixels are 255 in all colours
UNDEREXPOSED = 0.7  # of the pixels are 0 in all colours
_SAMPLED = 4  # px between counted pixels
FROZEN = 0.5  # s of equal images while the arm moves


def check_images(index: EpisodeIndex, activity: Activity | None) -> Iterator[Finding]:
    """Check every image once; ``activity`` is None where it is unknown."""
    cameras = {topic: _ViewCheck(index.streams[topic]) for topic in index.views.values() if topic in index.streams}
    with BagReader(index.folder) as bag:
        for message in bag.messages(cameras):
            cameras[message.topic].add(bag.deserialize(message))
    for camera in cameras.values():
        yield from camera.findings(activity)


@dataclass
class _ViewCheck:
    """State of a view's checks."""

    stream: Stream
    undecodable: list[EpisodeError] = field(default_factory=list)
    resized: list[EpisodeError] = field(default_factory=list)
    exposure: dict[str, list[EpisodeError]] = field(default_factory=dict)  # by kind of fault
    same: list[bool] = field(default_factory=list)  # equal to the previous image, by image
    _shape: tuple[int, ...] = ()
    _last: NDArray[np.uint8] | None = None

    def add(self, message: Any) -> None:
        """Check the next image."""
        time = self.stream.times[len(self.same)]
        self.same.append(self._last is not None and np.array_equal(self._last, message.data))
        self._last = message.data
        try:
            image = decode(message)
        except GenimaError as error:
            self.undecodable.append(self.stream.fault(time, str(error)))
            return
        self._shape = self._shape or image.shape
        if image.shape != self._shape:
            (h, w, _), (height, width, _) = image.shape, self._shape
            what = f"image of {w}x{h} pixels, the first has {width}x{height}"
            self.resized.append(self.stream.fault(time, what))
        if kind := _exposure_fault(image):
            self.exposure.setdefault(kind.split(":")[0], []).append(self.stream.fault(time, kind))

    def findings(self, activity: Activity | None) -> Iterator[Finding]:
        """Return the findings of the view."""
        yield from (as_finding("error", faults) for faults in (self.undecodable, self.resized) if faults)
        yield from (as_finding("warning", faults) for faults in self.exposure.values())
        if activity is not None:
            yield from self._frozen(activity)

    def _frozen(self, activity: Activity) -> Iterator[Finding]:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], self.same, [False]])))
        for first, end in edges.reshape(-1, 2):
            interval = Interval(float(self.stream.times[first - 1]), float(self.stream.times[end - 1]))
            moving = Interval(max(interval.begin, activity.whole.begin), min(interval.end, activity.whole.end))
            if moving.seconds - activity.idle_within(moving) > FROZEN:
                what = f"the image stays the same for {interval.seconds:.2f} s while the arm moves"
                yield Finding("warning", what, self.stream.topic, interval.begin)


def _exposure_fault(image: Image) -> str:
    """Return the fault of the brightness; empty without one."""
    mean = sum(cv2.mean(image)[:3]) / 3
    if mean < BLACK:
        return f"black: the pixels' mean is {mean:.1f} of 255"
    pixels = image[::_SAMPLED, ::_SAMPLED].reshape(-1, 3)
    white = float((pixels.min(1) == 255).mean())
    if white > OVEREXPOSED:
        return f"overexposed: {100 * white:.0f}% of the pixels are white"
    black = float((pixels.max(1) == 0).mean())
    if black > UNDEREXPOSED:
        return f"underexposed: {100 * black:.0f}% of the pixels are black"
    return ""
