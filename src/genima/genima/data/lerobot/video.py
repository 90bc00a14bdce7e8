"""MP4 videos with exact presentation times, readable by LeRobot.

LeRobot's default reader, torchcodec, does not look frames up by their stamps. It seeks the number
``round(t * fps)``: the first frame that is shown at that number over fps or later. It counts from the first frame in
the file, refuses numbers beyond the count of frames, and guesses fps from the *decoding* times. So

- frames are decoded on an even grid of fps, and only the times when they are shown carry the jitter;
- they are shown a quarter of a period after the grid: with a jitter below a quarter period, they are found;
- where the grid has a point without a frame, at time 0 to begin with, a copy of an image is shown.

The other reader, pyav, finds frames by their stamps, with any jitter. Several episodes share a file, as torchcodec
keeps every file open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.types import Image

CODEC, PIXEL_FORMAT = "h264", "yuv420p"
_TICKS = 1_000_000  # a second
_TIME_BASE = Fraction(1, _TICKS)
# Every other frame is a key frame, as in LeRobot: training reads frames in random order. Frames leave the encoder
# immediately and in order, so an episode's packets are complete after its last frame.
_ENCODER = {"crf": "15", "g": "2", "bf": "0", "tune": "zerolatency", "forced-idr": "1"}
_SEEK_EARLY = 1.0  # s: seeking uses decoding times, which differ from presentation times


@dataclass(frozen=True)
class Schedule:
    """Presentation and decoding times of an episode's frames; N = T and their copies."""

    images: NDArray[np.int64]  # (N,) index of the image that a frame shows, never decreasing
    shown: NDArray[np.int64]  # (N,) in us since the file's beginning, increasing
    decoded: NDArray[np.int64]  # (N,) likewise, never later than ``shown``
    start: float  # s since the file's beginning: when the first image is shown
    end: int  # how many points of the grid are in use now
    missed: int  # images that a reader which looks for frames by number does not find

    @classmethod
    def of(cls, times: NDArray[np.float64], fps: int, begin: int) -> Schedule:
        """Continue a file whose grid is used up to ``begin`` with images taken at ``times`` (T,) in s.

        Times start at 0 and increase by more than a microsecond.
        """
        period = _TICKS / fps
        start = round((max(1, begin) + (0.25 - _circular_mean(times * fps)) % 1) * period)
        taken = start + np.round(times * _TICKS).astype(np.int64)
        used = np.floor(taken / period + 0.25).astype(np.int64)  # points of the grid, each a quarter before its image
        holes = np.setdiff1d(np.arange(begin, used[-1] + 1), used)
        before = np.clip(np.searchsorted(used, holes) - 1, 0, None)
        filled = np.where(holes == 0, 0, np.round((holes + 0.25) * period)).astype(np.int64)
        order = np.argsort(np.concatenate([taken, filled]))
        images = np.concatenate([np.arange(len(times)), before])[order]
        shown = np.concatenate([taken, filled])[order]
        points = np.concatenate([used, holes])[order]
        decoded = np.maximum(0, np.floor((points - 0.25) * period)).astype(np.int64)
        # Seeking goes by decoding times: it must not land behind a frame that is shown at the wanted time.
        decoded[1:] = np.maximum(decoded[1:], shown[:-1] + 1)
        frames = np.flatnonzero(order < len(times))
        found = np.searchsorted(shown, np.round(np.round(shown[frames] / period) * period))
        return cls(images, shown, decoded, start / _TICKS, int(points[-1]) + 1, int(np.sum(found != frames)))


def _circular_mean(numbers: NDArray[np.float64]) -> float:
    """Return the circular mean of the fractional parts of numbers, 0..1."""
    remainders = np.sort(numbers % 1)
    twice = np.concatenate([remainders, remainders + 1])
    last = np.searchsorted(twice, remainders + 0.499) - 1
    first = int(np.argmax(last - np.arange(len(remainders))))
    return float((twice[first] + twice[last[first]]) / 2)


class VideoWriter:
    """Writer of H.264 in MP4, one episode at a time."""

    def __init__(self, path: Path, shape: tuple[int, int], fps: int) -> None:
        """Prepare a file for images of ``shape`` (h, w).

        Raises:
            GenimaError: when a side is odd.
            OSError: when the file cannot be made.
        """
        height, width = shape
        if height % 2 or width % 2:
            raise GenimaError(f"images of {width}x{height} pixels cannot become a video: both sides must be even")
        self._duration = round(_TICKS / fps)
        self._encoded = 0  # frames
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._stream = self._container.add_stream("libx264", rate=fps, options=_ENCODER)
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, PIXEL_FORMAT
        self._stream.time_base = _TIME_BASE
        self._stream.codec_context.thread_count = 1  # views are written side by side

    def encode(self, images: Iterable[Image], schedule: Schedule) -> list[av.Packet]:
        """Encode the frames of an episode from (h, w, 3) rgb images; nothing is written yet."""
        packets = []
        remaining = enumerate(images)
        t = -1
        for number, wanted in enumerate(schedule.images):
            while t < wanted:
                t, image = next(remaining)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = self._encoded
            if number == 0:  # independent of earlier frames, which may never be written
                frame.pict_type = av.video.frame.PictureType.I
            packets += self._stream.encode(frame)
            self._encoded += 1
        return packets

    def write(self, packets: Iterable[av.Packet], schedule: Schedule) -> int:
        """Append encoded frames; return their size in bytes."""
        size = 0
        for packet, shown, decoded in zip(packets, schedule.shown.tolist(), schedule.decoded.tolist(), strict=True):
            packet.pts, packet.dts, packet.duration = shown, decoded, self._duration
            packet.time_base = _TIME_BASE
            self._container.mux(packet)
            size += packet.size
        return size

    def close(self) -> None:
        """Complete the file."""
        self._container.close()


def frames_at(path: Path, times: Iterable[float], tolerance: float, size: tuple[int, int]) -> Iterator[Image]:
    """Yield the (h, w, 3) rgb frames of an MP4 that are shown at increasing times in s, give or take ``tolerance``.

    Args:
        path: the file; what it refers to is not opened.
        times: when the frames are shown, s since the file's beginning.
        tolerance: s.
        size: width and height in px that they must have; no larger one is unpacked.

    Raises:
        GenimaError: when the video cannot be decoded, is of another size or shows no frame at one of the times.
    """
    if not path.is_file():
        raise GenimaError(f"video {path} is missing")
    try:
        with path.open("rb") as file, av.open(file, "r", format="mp4") as container:
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise GenimaError(f"video {path} cannot be read: its codec is unknown")
            stream.codec_context.thread_count = 1
            _require_size(path, stream.codec_context, size)
            stream.codec_context.options = {"max_pixels": str(2 * size[0] * size[1] + (1 << 16))}  # padding included
            frames: Iterator[av.VideoFrame] | None = None
            for time in times:
                if frames is None:
                    container.seek(round(max(0.0, time - _SEEK_EARLY) * av.time_base))
                    frames = container.decode(stream)
                    frame = next(frames, None)
                while frame is not None and frame.time is not None and frame.time < time - tolerance:
                    frame = next(frames, None)
                if frame is None or frame.time is None or frame.time > time + tolerance:
                    raise GenimaError(f"video {path} shows no frame at {time:.4f} s")
                _require_size(path, frame, size)
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except (av.FFmpegError, IndexError, ValueError, OverflowError, MemoryError, UnicodeError) as error:
        raise GenimaError(f"video {path} cannot be read: {error}") from None
    except OSError as error:
        raise GenimaError(f"cannot read video {path}: {error.strerror}") from None


def _require_size(path: Path, shown: av.VideoFrame | av.VideoCodecContext, size: tuple[int, int]) -> None:
    if (shown.width, shown.height) != size:
        raise GenimaError(
            f"video {path} is of {shown.width}x{shown.height} px, its description has {size[0]}x{size[1]}"
        )
