"""Timing checks: missing topics, order of stamps, gaps, jitter, and recording times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from genima.data.episodes.alignment import LOST, TWO_LOST, Stream, align, find_faults
from genima.data.episodes.bag import JOINT_COMMAND, JOINT_STATES, TASK, camera_info_topic, raw_topic
from genima.data.episodes.checks.finding import Finding, as_finding
from genima.data.episodes.episode_index import EpisodeIndex
from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.reader import several_tasks

GAP = 2.5  # periods of the topic: messages are missing in a longer gap
JITTER = 0.3  # of the period: a tenth of the periods may differ by more
CLOCK = 0.5  # s between a stamp and the recording of its message
MIN_MESSAGES = 10  # messages needed for gaps and jitter


def find_missing(index: EpisodeIndex) -> Iterator[Finding]:
    """Find required topics that are missing, and topics that cannot be deserialized."""
    if not index.views:
        yield Finding("error", "no camera was recorded", raw_topic("VIEW"))
    for topic in (*index.views.values(), JOINT_STATES, JOINT_COMMAND):
        if topic not in index.streams:
            yield Finding("error", "no messages", topic)
    if TASK not in index.words:
        yield Finding("error", "no messages", TASK)
    elif not index.words[TASK].strip():
        yield Finding("error", "empty instruction", TASK)
    elif len(index.tasks) > 1:
        yield Finding("error", several_tasks(index.tasks), TASK)
    for topic, why in index.unread.items():
        yield Finding("warning", f"not read: {why}", topic)
    for view in index.views:
        if camera_info_topic(view) not in index.streams:
            yield Finding("warning", "no messages", camera_info_topic(view))


def find_timing(index: EpisodeIndex) -> Iterator[Finding]:
    """Return the faults of the stamps."""
    misaligned = list(_find_misaligned(index))
    yield from misaligned
    named = {finding.topic for finding in misaligned}
    for topic, stream in index.streams.items():
        if topic not in named and len(stream.times) >= MIN_MESSAGES:
            yield from _find_uneven(stream)
        yield from _find_late(index, topic)


def _find_misaligned(index: EpisodeIndex) -> Iterator[Finding]:
    """Return the reason why an episode's topics cannot be aligned."""
    streams = index.streams
    views = {view: streams[topic] for view, topic in index.views.items() if topic in streams}
    if not views or JOINT_STATES not in streams or JOINT_COMMAND not in streams:
        return
    parts = views, streams[JOINT_STATES], streams[JOINT_COMMAND]
    faults = list(find_faults(*parts))
    yield from (as_finding("error", found) for found in faults)
    if not faults:
        yield from _find_lost_images(views.values())
        try:
            align(*parts)
        except EpisodeError as error:
            yield as_finding("error", [error])


def _find_lost_images(views: Iterable[Stream]) -> Iterator[Finding]:
    """Return lost images, which are replaced by neighbours."""
    for view in views:
        gaps = np.diff(view.times)
        if lost := [
            view.fault(view.times[i], f"an image was lost, the next is {gaps[i]:.3f} s later: replaced by a neighbour")
            for i in np.flatnonzero((gaps > LOST * view.period) & (gaps <= TWO_LOST * view.period))
        ]:
            yield as_finding("warning", lost)


def _find_uneven(stream: Stream) -> Iterator[Finding]:
    times, periods = stream.times, np.diff(stream.times)
    if back := [stream.fault(times[i], "the next stamp repeats or goes back") for i in np.flatnonzero(periods <= 0)]:
        yield as_finding("warning", back)
        return
    period = stream.period
    gaps = periods > GAP * period
    if gaps.any():
        what = f"the next message comes {{:.3f}} s later, the period is {period:.3f} s"
        yield as_finding("warning", [stream.fault(times[i], what.format(periods[i])) for i in np.flatnonzero(gaps)])
    uneven = np.percentile(np.abs(periods[~gaps] / period - 1), 90)
    if uneven > JITTER:
        what = f"a tenth of the periods differs by {100 * uneven:.0f}% or more from their median {period:.3f} s"
        yield Finding("warning", what, stream.topic)


def _find_late(index: EpisodeIndex, topic: str) -> Iterator[Finding]:
    stream, delays = index.streams[topic], index.delays[topic]
    off = np.flatnonzero(np.abs(delays) > CLOCK)
    if len(off):
        worst = delays[off[np.abs(delays[off]).argmax()]]
        order = "after" if worst > 0 else "before"
        what = f"recorded up to {abs(worst):.3f} s {order} its stamp, {len(off)} of {len(delays)} messages"
        yield Finding("warning", what, topic, float(stream.times[off[0]]))
