"""Images of one view."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image

from genima.data.episodes.alignment import Stream
from genima.data.episodes.bag import RAW, BagReader, view_of
from genima.data.episodes.errors import EpisodeError
from genima.errors import GenimaError
from genima.io.files import shorten
from genima.types import Image

_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")  # encodings of image_transport and others
_PIXELS = 1 << 26


@dataclass(frozen=True)
class Frames:
    """Recorded images of an episode in memory, one a sample, decoded on access."""

    stream: Stream  # of sensor_msgs/CompressedImage or Image

    def image(self, t: int) -> Image:
        """Return the (h, w, 3) rgb image of sample t.

        Raises:
            EpisodeError: when it cannot be decoded or its size differs from the first one's.
        """
        image = self._decoded(t)
        if image.shape != self._shape:
            (h, w, _), (height, width, _) = image.shape, self._shape
            what = f"image of {w}x{h} pixels, the first has {width}x{height}"
            raise self.stream.fault(self.stream.times[t], what)
        return image

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        return self._decoded(0).shape

    def _decoded(self, t: int) -> Image:
        try:
            return decode(self.stream.messages[t])
        except GenimaError as error:
            raise self.stream.fault(self.stream.times[t], str(error)) from None


def decode(message: Any) -> Image:
    """Return the (h, w, 3) rgb image of a sensor_msgs/CompressedImage or Image.

    Raises:
        GenimaError: when it cannot be decoded.
    """
    return (_from_raw if message.__msgtype__ == RAW else _from_compressed)(message)


def _from_compressed(message: Any) -> Image:
    data = message.data
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PIL, about large images
            width, height = PIL.Image.open(io.BytesIO(data), formats=_FORMATS).size  # reads the head only
        if width * height > _PIXELS:
            raise GenimaError(f"image of {width}x{height} pixels; {_PIXELS} pixels are read at most")
        # None for a truncated file, unless other bytes follow it, such as the rest of a buffer.
        bgr = None if _is_cut_jpeg(data.tobytes()) else cv2.imdecode(data, cv2.IMREAD_COLOR)
    except GenimaError:
        raise
    except PIL.Image.DecompressionBombError:
        raise GenimaError(f"image of too many pixels; {_PIXELS} are read at most") from None
    except Exception:  # PIL and OpenCV raise many kinds for damaged files
        bgr = None
    if bgr is None:
        kind = shorten(message.format) or "of no format"
        raise GenimaError(f"image cannot be decoded ({kind}, {len(data)} bytes)")
    return np.ascontiguousarray(bgr[..., ::-1])


def _is_cut_jpeg(data: bytes) -> bool:
    """Return whether a JPEG has no end mark after the start of its pixels; bytes after the mark are ignored."""
    if data[:2] != b"\xff\xd8":
        return False
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:  # segments before the pixels
        filler = data[place + 1] == 0xFF
        place += 1 if filler else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data.find(b"\xff\xd9", place) < 0


def _from_raw(message: Any) -> Image:
    h, w, step, encoding = message.height, message.width, message.step, message.encoding
    if encoding not in ("rgb8", "bgr8"):
        raise GenimaError(f"image is {shorten(encoding) or 'of no encoding'}, rgb8 or bgr8 is needed")
    if min(h, w) < 1 or step < 3 * w or len(message.data) != h * step:
        raise GenimaError(f"image of {w}x{h} pixels has {len(message.data)} bytes in rows of {step}")
    pixels = message.data.reshape(h, step)[:, : 3 * w].reshape(h, w, 3)
    return np.array(pixels if encoding == "rgb8" else pixels[..., ::-1], order="C")


def first_images(folder: Path) -> dict[str, Image]:
    """Return the first image (h, w, 3) of every view; the bag is read only up to these.

    Raises:
        EpisodeError: when the bag cannot be read, has no image, or one that cannot be decoded.
    """
    images: dict[str, Image] = {}
    with BagReader(folder) as bag:
        topics = {topic: view for topic in bag.types if (view := view_of(topic)) is not None}
        for message in bag.messages(topics):
            view = topics[message.topic]
            if view not in images:
                try:
                    images[view] = decode(bag.deserialize(message))
                except EpisodeError:
                    raise
                except GenimaError as error:
                    raise EpisodeError(folder, str(error), message.topic) from None
            if len(images) == len(set(topics.values())):
                break
    if not images:
        raise EpisodeError(folder, "no camera was recorded")
    return images
