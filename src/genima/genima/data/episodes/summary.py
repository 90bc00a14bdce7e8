"""One-line summary of a demo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from genima.data.episodes.alignment import Stream
from genima.data.episodes.bag import EPISODE, TASK, calibration_topic
from genima.data.episodes.episode_index import EpisodeIndex
from genima.data.episodes.frames import decode
from genima.errors import GenimaError
from genima.io.files import parse_yaml


class ViewSummary(NamedTuple):
    """Images of a view."""

    rate: float  # Hz; NaN for a single image
    size: tuple[int, int] | None  # width and height in px, of the first; None when that cannot be decoded


@dataclass(frozen=True)
class Summary:
    """Summary of a demo, faulty or not."""

    instruction: str  # empty without one
    seconds: float
    views: Mapping[str, ViewSummary]  # those with images
    megabytes: float
    operator: str  # operator; empty where it is not recorded
    success: bool | None  # None: not judged
    uncalibrated: tuple[str, ...] = ()  # views whose camera calibration is unknown

    @classmethod
    def of(cls, index: EpisodeIndex) -> Summary:
        """Return the summary of an episode index."""
        return cls(
            instruction=index.words.get(TASK, "").strip(),
            seconds=index.seconds,
            views={
                view: ViewSummary(rate(index.streams[topic]), _size(index, topic))
                for view, topic in index.views.items()
                if topic in index.streams
            },
            megabytes=sum(file.stat().st_size for file in index.folder.iterdir() if file.is_file()) / 1e6,
            operator=read_notes(index).get("operator", ""),
            success=index.success,
            uncalibrated=tuple(
                view
                for view, topic in index.views.items()
                if topic in index.streams and not index.counts.get(calibration_topic(view))
            ),
        )


def read_notes(index: EpisodeIndex) -> dict[str, str]:
    """Return the metadata of a demo, such as operator and notes; empty where it cannot be read."""
    try:
        data = parse_yaml(index.words.get(EPISODE, ""), EPISODE)
    except GenimaError:
        data = None
    return {str(key): str(value) for key, value in data.items() if value} if isinstance(data, dict) else {}


def rate(stream: Stream) -> float:
    """Return the message rate in Hz; NaN for a single message."""
    seconds = stream.times[-1] - stream.times[0]
    return (len(stream.times) - 1) / seconds if seconds > 0 else float("nan")


def _size(index: EpisodeIndex, topic: str) -> tuple[int, int] | None:
    try:
        h, w, _ = decode(index.first_images[topic]).shape
    except GenimaError:
        return None
    return w, h
