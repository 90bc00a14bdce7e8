"""One-line summary of a demo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from genima.data.episodes.alignment import Stream
from genima.data.episodes.bag import EPISODE, TASK, calibration_topic
from genima.data.episodes.frames import decode
from genima.data.episodes.episode_index import EpisodeIndex
from genima.errors import GenimaError
from genima.io.files import parse_yaml


class ViewSummary(NamedTuple):
    """Images of a view."""

    rate: float  # Hz; not a number for a single image
    size: tuple[int, int] | None  # width and height in px, of the first; None when that cannot be decoded


@dataclass(frozen=True)
class Summary:
    """Summary of a demo, faulty or not."""

    instruction: str  # empty when it has none
    seconds: float
    views: Mapping[str, ViewSummary]  # those with images
    megabytes: float
    operator: str  # who led the arm; empty when nobody wrote that down
    success: bool | None  # None: nobody has judged it
    uncalibrated: tuple[str, ...] = ()  # views whose camera calibration is unknown

    @classmethod
    def of(cls, survey: EpisodeIndex) -> Summary:
        """Return the summary of an episode index."""
        return cls(
            instruction=survey.words.get(TASK, "").strip(),
            seconds=survey.seconds,
            views={
                view: ViewSummary(rate(survey.streams[topic]), _size(survey, topic))
                for view, topic in survey.views.items()
                if topic in survey.streams
            },
            megabytes=sum(file.stat().st_size for file in survey.folder.iterdir() if file.is_file()) / 1e6,
            operator=notes(survey).get("operator", ""),
            success=survey.success,
            uncalibrated=tuple(
                view
                for view, topic in survey.views.items()
                if topic in survey.streams and not survey.counts.get(calibration_topic(view))
            ),
        )


def notes(survey: EpisodeIndex) -> dict[str, str]:
    """Return the metadata of a demo, such as operator and notes; empty where it cannot be read."""
    try:
        said = parse_yaml(survey.words.get(EPISODE, ""), EPISODE)
    except GenimaError:
        said = None
    return {str(key): str(value) for key, value in said.items() if value} if isinstance(said, dict) else {}


def rate(stream: Stream) -> float:
    """Return the message rate in Hz; NaN for a single message."""
    seconds = stream.times[-1] - stream.times[0]
    return (len(stream.times) - 1) / seconds if seconds > 0 else float("nan")


def _size(survey: EpisodeIndex, topic: str) -> tuple[int, int] | None:
    try:
        h, w, _ = decode(survey.first_images[topic]).shape
    except GenimaError:
        return None
    return w, h
