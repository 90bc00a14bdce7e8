"""Demos to and from LeRobotDataset v3.0, with their own timestamps; the lerobot library is not needed."""

from genima.episodes.lerobot.reader import DatasetReader
from genima.episodes.lerobot.writer import DatasetWriter

__all__ = ["DatasetReader", "DatasetWriter"]
