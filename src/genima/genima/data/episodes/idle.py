"""Idle intervals of an episode: neither arm nor gripper moves, commanded or measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from genima.data.episodes.bag import JOINT_COMMAND, JOINT_STATES
from genima.data.episodes.episode_index import EpisodeIndex
from genima.data.episodes.reader import joints_by_name, measured_gripper
from genima.robot.model import RobotModel

_BAND = 0.01  # rad: range of positions of a joint at rest
_GRIPPER_BAND = 0.02  # of its opening
_MIN_DURATION = 0.5  # s: a shorter rest is part of the motion
_STEP = 0.02  # s between evaluated times


class Interval(NamedTuple):
    """Interval of an episode, in s since its start."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """Return the duration."""
        return self.end - self.begin

    def overlap(self, other: Interval) -> float:
        """Return the overlap with another interval, in s."""
        return max(0.0, min(self.end, other.end) - max(self.begin, other.begin))


@dataclass(frozen=True)
class JointTrack:
    """Joint positions over time, measured or commanded; faulty messages are dropped, stamps are sorted."""

    topic: str
    times: NDArray[np.float64]  # (N,) s since the episode's start, N > 0
    positions: NDArray[np.float64]  # (N, n) rad
    gripper: NDArray[np.float64]  # (N,) open fraction

    def at(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the positions (T, n) at times (T,), interpolated linearly."""
        return np.column_stack([np.interp(times, self.times, joint) for joint in self.positions.T])


@dataclass(frozen=True)
class Activity:
    """Motion of an episode's joints over time."""

    whole: Interval  # of the joints' messages
    idle: tuple[Interval, ...]  # without overlap, by time

    @property
    def moving(self) -> Interval | None:
        """Return the interval from the first to the last motion; None without motion."""
        begin, end = self.whole
        for interval in self.idle:
            if interval == self.whole:
                return None
            if interval.begin <= self.whole.begin:
                begin = interval.end
            elif interval.end >= self.whole.end:
                end = interval.begin
        return Interval(begin, end)

    def idle_within(self, interval: Interval) -> float:
        """Return the idle time within an interval, in s."""
        return sum(each.overlap(interval) for each in self.idle)


def find_tracks(index: EpisodeIndex, robot: RobotModel) -> dict[str, JointTrack]:
    """Return measured and commanded joints, by topic."""
    tracks = {}
    for topic in (JOINT_STATES, JOINT_COMMAND):
        if topic not in index.streams:
            continue
        stream = index.streams[topic]
        rows, _ = joints_by_name(stream, robot)
        gripper = rows[:, -1]
        if topic == JOINT_STATES:
            gripper, _ = measured_gripper(stream, rows, robot)
        good = np.isfinite(gripper)
        times, first = np.unique(stream.times[good], return_index=True)
        if len(times):
            tracks[topic] = JointTrack(topic, times, rows[good][first][:, :-1], gripper[good][first])
    return tracks


def find_idle(tracks: dict[str, JointTrack]) -> Activity:
    """Return the intervals in which no track moves; at least one track is required.

    A moment is idle if it is within half a second in which all joints stay in a narrow range.
    """
    begin = min(track.times[0] for track in tracks.values())
    end = max(track.times[-1] for track in tracks.values())
    whole = Interval(float(begin), float(end))
    times = np.linspace(begin, end, max(2, round((end - begin) / _STEP) + 1))
    scaled = [track.at(times) / _BAND for track in tracks.values()]
    scaled += [np.interp(times, track.times, track.gripper)[:, None] / _GRIPPER_BAND for track in tracks.values()]
    values = np.concatenate(scaled, axis=1)
    count = min(len(times), round(_MIN_DURATION / _STEP) + 1)
    spread = maximum_filter1d(values, count, axis=0) - minimum_filter1d(values, count, axis=0)
    before = count // 2  # samples of the filter window before its centre
    is_idle = (spread <= 1).all(1)[before : before + len(times) - count + 1]  # by the window's first sample
    idle = np.convolve(is_idle, np.ones(count)) > 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], idle, [False]])))
    intervals = [Interval(float(times[a]), float(times[b - 1])) for a, b in edges.reshape(-1, 2)]
    return Activity(whole, tuple(intervals))
