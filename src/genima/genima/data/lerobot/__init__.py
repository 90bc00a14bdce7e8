"""Conversion of demos to and from LeRobotDataset v3.0; the lerobot library is not needed."""

from genima.data.lerobot.reader import DatasetReader
from genima.data.lerobot.writer import DatasetWriter

__all__ = ["DatasetReader", "DatasetWriter"]
