"""Demos on disk: one rosbag2 (MCAP) folder per episode."""

from genima.episodes.bag import Episode, EpisodeWriter, find_episodes

__all__ = ["Episode", "EpisodeWriter", "find_episodes"]
