"""Fault of an episode, with topic and time."""

from __future__ import annotations

from pathlib import Path

from genima.errors import GenimaError


class EpisodeError(GenimaError):
    """Fault of an episode, in one line.

    Attributes:
        episode: the bag's folder.
        what: text of the fault.
        topic: its topic; None for the whole episode.
        time: s since the episode's start, which is the first stamp of any of its topics; None without a time.
    """

    def __init__(self, episode: Path, what: str, topic: str | None = None, time: float | None = None) -> None:
        super().__init__(episode, what, topic, time)  # all arguments: the error is pickled between processes
        self.episode, self.what, self.topic, self.time = episode, what, topic, time

    def __str__(self) -> str:
        place = "" if self.topic is None else f"{self.topic}: "
        if self.time is not None:
            place = f"{self.topic or 'all topics'} at {self.time:.3f} s: "
        return f"episode {self.episode}: {place}{self.what}"
