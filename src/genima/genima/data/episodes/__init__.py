"""Demos on disk: one rosbag2 (MCAP) folder per episode."""

from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.folders import find_episodes
from genima.data.episodes.reader import Episode
from genima.data.episodes.writer import EpisodeWriter

__all__ = ["Episode", "EpisodeError", "EpisodeWriter", "find_episodes"]
