"""Paths and names in a LeRobotDataset v3.0.

Source: LeRobotDataset of the lerobot library, version 0.4.4.
"""

from __future__ import annotations

VERSION = "v3.0"
CHUNK_SIZE = 1000  # files at most in one chunk-xxx folder

INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

STATE = "observation.state"
ACTION = "action"
SUCCESS = "next.success"
TIMESTAMP = "timestamp"
IMAGES = "observation.images."  # and the view
GRIPPER = "gripper_open_fraction"  # in addition to the arm's joints in STATE and ACTION
