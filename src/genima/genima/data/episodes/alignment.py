"""Alignment of unsynchronised streams to the samples of an episode.

Cameras, joint states and commands of a demo have rates and phases of their own::

    slowest view    |       |       |       |       |     its stamps are the moments
    other views       |       |       |      |       |    the nearest image
    joint states   | | | | | | | | | | | | | | | | | | |  the two around the moment, linearly
    commands         |    |    |    |    |    |    |      the last one before the next moment

Moments are stamps of images, not an even grid: at least one view and the joints are exact at each, every image of that
view is used once, and a recording with common stamps stays unchanged. They are the stamps of the slowest view, as every
other view then has an image within half a period, plus jitter: at most three quarters of a period away, unless an image
is missing.

Where one image of a view was lost, the sample is kept with the nearest image of that view, one period too old or too
new: the alternative is to lose the whole demo. Samples before the start of the last topic and after the end of the
first are dropped. A longer gap in between is a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genima.data.episodes.errors import EpisodeError

LOST = 1.5  # periods: a message is missing in a longer gap
TWO_LOST = 2.5  # periods: more than one is
_SPARSE = 4.0  # periods of the moments: larger gaps of joint states or commands do not determine the motion
_LATE = 1.0  # s: largest difference of the topics' starts, and of their ends
_MIN_SAMPLES = 3  # moments of an episode


@dataclass(frozen=True)
class Stream:
    """Messages of one topic, with their header stamps."""

    episode: Path
    topic: str
    times: NDArray[np.float64]  # (N,) s since the episode's start
    messages: Sequence[Any]  # N

    @property
    def period(self) -> float:
        """Return the median message period in s."""
        return float(np.median(np.diff(self.times)))

    def select(self, indices: NDArray[np.intp]) -> Stream:
        """Return the selected messages; repetitions are allowed."""
        return replace(self, times=self.times[indices], messages=[self.messages[i] for i in indices])

    def fault(self, time: float, what: str) -> EpisodeError:
        """Return a fault of this topic at ``time``, in s since the episode's start."""
        return EpisodeError(self.episode, what, self.topic, float(time))


class Alignment(NamedTuple):
    """T sample times, and the messages of each."""

    times: NDArray[np.float64]  # (T,) s since the episode's start
    images: dict[str, NDArray[np.intp]]  # by view, (T,) index of its image
    commands: NDArray[np.intp]  # (T,) index of the active command until the next moment


def align(views: Mapping[str, Stream], joints: Stream, commands: Stream) -> Alignment:
    """Return the aligned samples of an episode.

    Every moment lies between two joint states, or on one, so joints can be interpolated.

    Args:
        views: the images of each view, one view at least.
        joints: measured joints.
        commands: commanded joints.

    Raises:
        EpisodeError: for stamps that repeat or go back, gaps of images, joint states or commands, a camera or joint
            states that start late or end early, and too few moments.
    """
    for found in find_faults(views, joints, commands):
        raise found[0]
    slowest = _slowest(views)
    period = slowest.period
    begin, end = _common_interval(views, joints, period)

    times = _fill_lost_images(slowest)
    following = np.append(times[1:], times[-1] + period)
    command = np.searchsorted(commands.times, following) - 1  # -1 before the first command
    in_force = (command >= 0) & (times - commands.times[command] <= LOST * max(commands.period, period))
    kept = (begin <= times) & (times <= end) & in_force
    if kept.sum() < _MIN_SAMPLES:
        what = f"too short: {kept.sum()} moments have images, joints and a command, {_MIN_SAMPLES} are needed"
        raise EpisodeError(slowest.episode, what)
    times = times[kept]
    return Alignment(times, {name: _nearest(view.times, times) for name, view in views.items()}, command[kept])


def _fill_lost_images(view: Stream) -> NDArray[np.float64]:
    """Return the image times (T,) in s, with those of lost images filled in."""
    gaps = np.diff(view.times)
    lost = np.flatnonzero((gaps > LOST * view.period) & (gaps <= TWO_LOST * view.period))
    return np.insert(view.times, lost + 1, view.times[lost] + gaps[lost] / 2)


def _nearest(times: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.intp]:
    after = np.clip(np.searchsorted(times, moments), 1, len(times) - 1)
    return after - (moments - times[after - 1] <= times[after] - moments)


def find_faults(views: Mapping[str, Stream], joints: Stream, commands: Stream) -> Iterator[list[EpisodeError]]:
    """Return all faults of stamps that prevent :func:`align`.

    Yields:
        Faults of one kind on one topic, by time. Where stamps repeat or go back, other faults are not searched.
    """
    streams = [*views.values(), joints, commands]
    if disordered := [found for stream in streams if (found := _order_faults(stream))]:
        yield from disordered
        return
    period = _slowest(views).period
    for stream in (joints, commands):
        if stream.period > _SPARSE * period:
            what = f"one message every {stream.period:.3f} s is too few for images every {period:.3f} s"
            yield [stream.fault(stream.times[0], what)]
    yield from _end_faults([*views.values(), joints])
    begin, end = _common_interval(views, joints, period)
    allowed = [(view, TWO_LOST * view.period) for view in views.values()]
    allowed += [(stream, LOST * max(stream.period, period)) for stream in (joints, commands)]
    for stream, longest in allowed:
        if found := _gap_faults(stream, longest, begin, end):
            yield found


def _slowest(views: Mapping[str, Stream]) -> Stream:
    return max(views.values(), key=lambda view: view.period)


def _common_interval(views: Mapping[str, Stream], joints: Stream, period: float) -> tuple[float, float]:
    """Return the interval in s with joints and images of all views."""
    begin = max(joints.times[0], *(view.times[0] - period / 2 for view in views.values()))
    end = min(joints.times[-1], *(view.times[-1] + period / 2 for view in views.values()))
    return begin, end


def _order_faults(stream: Stream) -> list[EpisodeError]:
    times, found = stream.times, []
    for i in np.flatnonzero(np.diff(times) <= 0):
        back = times[i] - times[i + 1]
        what = f"goes back by {back:.3f} s" if back > 0 else "is the same"
        found.append(stream.fault(times[i], f"the next stamp {what}"))
    if not found and len(times) < _MIN_SAMPLES:
        found.append(stream.fault(times[0], f"too short: only {len(times)} messages"))
    return found


def _end_faults(streams: list[Stream]) -> Iterator[list[EpisodeError]]:
    first = min(streams, key=lambda stream: stream.times[0])
    last = max(streams, key=lambda stream: stream.times[-1])
    for stream in streams:
        start, end = stream.times[[0, -1]]
        if start - first.times[0] > _LATE:
            yield [stream.fault(start, f"starts {start - first.times[0]:.3f} s after {first.topic}")]
        if last.times[-1] - end > _LATE:
            yield [stream.fault(end, f"ends {last.times[-1] - end:.3f} s before {last.topic}")]


def _gap_faults(stream: Stream, longest: float, begin: float, end: float) -> list[EpisodeError]:
    gaps = np.diff(stream.times)
    within = (stream.times[1:] > begin) & (stream.times[:-1] < end)
    return [
        stream.fault(stream.times[i], f"the next message comes {gaps[i]:.3f} s later, some were lost")
        for i in np.flatnonzero((gaps > longest) & within)
    ]
