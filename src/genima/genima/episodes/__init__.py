"""Demos on disk: one rosbag2 (MCAP) folder per episode."""

from genima.episodes.errors import EpisodeError
from genima.episodes.folders import find_episodes
from genima.episodes.reader import Episode
from genima.episodes.writer import EpisodeWriter

__all__ = ["Episode", "EpisodeError", "EpisodeWriter", "find_episodes"]
