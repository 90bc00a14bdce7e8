"""Export of demos as a LeRobotDataset v3.0."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.reader import Episode
from genima.data.lerobot import layout, statistics
from genima.data.lerobot.description import read_info
from genima.data.lerobot.statistics import Statistics
from genima.data.lerobot.video import CODEC, PIXEL_FORMAT, Schedule, VideoWriter
from genima.errors import GenimaError
from genima.io.outputs import output_folder
from genima.robot.model import RobotModel
from genima.types import Image

_VIDEO_MB = 200  # LeRobot's default
_RATE_TOLERANCE = 0.05  # how far an episode's rate may be off the dataset's, relative


class DatasetWriter:
    """Writer of a dataset, one episode at a time; the folder gets its name when it is complete.

    Timestamps are the episodes' own, from each one's first moment on, in float32: to 4 us within the first minute.
    The dataset consists of parts: a file of data, one of episodes and a video of each view, all growing until a video
    has its size.
    """

    def __init__(self, folder: Path, robot: RobotModel, overwrite: bool = False) -> None:
        """Prepare a dataset; writing starts on entering the context.

        Args:
            folder: the dataset's; it must not exist.
            robot: robot of the episodes.
            overwrite: replace an existing LeRobot dataset.
        """
        self._output = output_folder(folder, "LeRobot dataset", overwrite, is_dataset)
        self._robot = robot
        self._parts = 0  # complete ones
        self._rows: list[dict[str, Any]] = []  # one an episode, of the part that is being written
        self._data: pq.ParquetWriter | None = None  # likewise, a row group an episode
        self._videos: dict[str, VideoWriter] = {}  # likewise, by feature
        self._video_bytes: Counter[str] = Counter()
        self._points = 0  # of the videos' grid of frames
        self._fps = 0  # until there is an episode
        self._features: dict[str, dict[str, Any]] = {}
        self._tasks: dict[str, int] = {}
        self._episodes = self._frames = 0  # so far
        self._statistics: dict[str, Statistics] = {}  # by feature, of all episodes so far

    def __enter__(self) -> DatasetWriter:
        """Start the dataset.

        Raises:
            GenimaError: when the folder exists and may not be replaced, or another process writes it.
        """
        self._partial = self._output.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close_part()
            if kind is None:
                self._complete()
        except BaseException as failure:
            self._output.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._output.__exit__(kind, error, trace)

    def __len__(self) -> int:
        """Return the number of episodes so far."""
        return self._episodes

    def add(self, episode: Episode) -> int:
        """Append an episode; nothing of it remains when that fails.

        Returns:
            The number of its frames that LeRobot's default video reader does not find, with a jitter of more than a
            quarter of a period; see :mod:`genima.data.lerobot.video`.

        Raises:
            EpisodeError: for an episode that differs from the first, and an image that cannot be decoded.
        """
        fps = self._fps or max(1, round(1 / episode.period))
        self._check_rate(episode, fps)
        features = _features(episode, self._robot, fps)
        if self._episodes:
            self._check_shapes(episode, features)
        times = episode.stamps - episode.stamps[0]
        schedule = Schedule.of(times, fps, self._points)
        try:
            packets, images = self._encode(episode, features, schedule, fps)
        except BaseException:
            if not self._rows:
                self._close_part()
            raise
        self._fps, self._features, self._points = fps, features, schedule.end
        for key, video in self._videos.items():
            self._video_bytes[key] += video.write(packets[key], schedule)

        task = self._tasks.setdefault(episode.instruction, len(self._tasks))
        columns = self._columns(episode, times, task)
        table = pa.table({name: _column(values) for name, values in columns.items()})
        if self._data is None:
            self._data = pq.ParquetWriter(self._path_of(layout.DATA), table.schema)
        self._data.write_table(table)
        each = {
            name: statistics.row_statistics(values.reshape(len(episode), -1)) for name, values in columns.items()
        } | images
        self._rows.append(self._episode_row(episode, schedule, each))
        before = self._statistics
        self._statistics = {
            name: statistics.pool_statistics([before[name], of]) if before else of for name, of in each.items()
        }
        self._episodes += 1
        self._frames += len(episode)
        if max(self._video_bytes.values()) > _VIDEO_MB * 2**20:
            self._close_part()
        return schedule.missed

    def _check_rate(self, episode: Episode, fps: int) -> None:
        rate = 1 / episode.period
        if abs(rate / fps - 1) > _RATE_TOLERANCE:
            other = f"the dataset at {fps} Hz" if self._fps else "a LeRobot dataset has a whole number"
            raise EpisodeError(episode.folder, f"runs at {rate:.1f} Hz, {other}")

    def _check_shapes(self, episode: Episode, features: Mapping[str, Any]) -> None:
        for name in self._features.keys() | features.keys():
            shape, wanted = (each[name]["shape"] if name in each else "none" for each in (features, self._features))
            if shape != wanted:
                raise EpisodeError(episode.folder, f"{name} is {shape}, in the dataset {wanted}")

    def _columns(self, episode: Episode, times: NDArray[np.float64], task: int) -> dict[str, NDArray[Any]]:
        """Return the features of an episode that are not videos: (T,) or (T, d)."""
        length = len(episode)
        frame = np.arange(length)
        success = (frame == length - 1) & bool(episode.success)
        return {
            layout.STATE: np.column_stack([episode.positions, episode.gripper]).astype(np.float32),
            layout.ACTION: np.column_stack([episode.command_positions, episode.command_gripper]).astype(np.float32),
            **({} if episode.success is None else {layout.SUCCESS: success}),
            layout.TIMESTAMP: times.astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(length, self._episodes),
            "index": self._frames + frame,
            "task_index": np.full(length, task),
        }

    def _episode_row(self, episode: Episode, schedule: Schedule, each: Mapping[str, Statistics]) -> dict[str, Any]:
        """Return the location of an episode, and its statistics by feature."""
        chunk, file = divmod(self._parts, layout.CHUNK_SIZE)
        place = {"chunk_index": chunk, "file_index": file}
        end = schedule.start + float(episode.stamps[-1] - episode.stamps[0]) + 1 / self._fps
        row: dict[str, Any] = {"episode_index": self._episodes, "tasks": [episode.instruction], "length": len(episode)}
        row |= {f"data/{part}": number for part, number in place.items()}
        row |= {"dataset_from_index": self._frames, "dataset_to_index": self._frames + len(episode)}
        for key in self._videos:
            times = {"from_timestamp": schedule.start, "to_timestamp": end}
            row |= {f"videos/{key}/{part}": number for part, number in (place | times).items()}
        row |= {f"stats/{name}/{kind}": value.tolist() for name, of in each.items() for kind, value in of.items()}
        return row | {f"meta/episodes/{part}": number for part, number in place.items()}

    def _encode(
        self, episode: Episode, features: Mapping[str, Any], schedule: Schedule, fps: int
    ) -> tuple[dict[str, list[av.Packet]], dict[str, Statistics]]:
        """Encode all views in parallel: frames and image statistics by feature."""
        keys = {view: layout.IMAGES + view for view in episode.views}
        counts = {key: np.zeros((3, 256), np.int64) for key in keys.values()}

        def images(view: str) -> Iterator[Image]:
            for t in range(len(episode)):
                image = episode.image(view, t)
                for channel, count in enumerate(counts[keys[view]]):
                    count += np.bincount(image[..., channel].ravel(), minlength=256)
                yield image

        for view, key in keys.items():
            if key not in self._videos:
                height, width, _ = features[key]["shape"]
                try:
                    self._videos[key] = VideoWriter(self._path_of(layout.VIDEO, key), (height, width), fps)
                except GenimaError as error:
                    raise EpisodeError(episode.folder, f"view {view}: {error}") from None
        with ThreadPoolExecutor() as pool:
            encoded = pool.map(lambda view: self._videos[keys[view]].encode(images(view), schedule), keys)
            packets = dict(zip(keys.values(), encoded, strict=True))
        return packets, {key: statistics.image_statistics(count, len(episode)) for key, count in counts.items()}

    def _close_part(self) -> None:
        """Complete the files of a part, if it has episodes."""
        for key, video in self._videos.items():
            video.close()
            if not self._rows:
                self._path_of(layout.VIDEO, key).unlink(missing_ok=True)
        if self._data is not None:
            self._data.close()
        if self._rows:
            pq.write_table(pa.Table.from_pylist(self._rows), self._path_of(layout.EPISODES))
            self._parts += 1
        self._rows, self._data, self._videos, self._points = [], None, {}, 0
        self._video_bytes.clear()

    def _complete(self) -> None:
        """Write the metadata of the whole dataset."""
        if not self._episodes:
            raise GenimaError("LeRobot dataset: no episode was added to it")
        tasks = pd.DataFrame({"task_index": list(self._tasks.values())}, index=pd.Index(list(self._tasks), name="task"))
        tasks.to_parquet(self._path_of(layout.TASKS))
        self._write_json(
            layout.STATS,
            {name: {kind: value.tolist() for kind, value in of.items()} for name, of in self._statistics.items()},
        )
        self._write_json(
            layout.INFO,
            {
                "codebase_version": layout.VERSION,
                "robot_type": self._robot.name,
                "total_episodes": self._episodes,
                "total_frames": self._frames,
                "total_tasks": len(self._tasks),
                "chunks_size": layout.CHUNK_SIZE,
                "data_files_size_in_mb": 100,  # LeRobot's default: ours end with the videos
                "video_files_size_in_mb": _VIDEO_MB,
                "fps": self._fps,
                "splits": {"train": f"0:{self._episodes}"},
                "data_path": layout.DATA,
                "video_path": layout.VIDEO,
                "features": self._features,
            },
        )

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        self._path_of(name).write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")

    def _path_of(self, pattern: str, key: str = "") -> Path:
        """Return the path of a file of the current part, with its folder created."""
        chunk, file = divmod(self._parts, layout.CHUNK_SIZE)
        path = self._partial / pattern.format(chunk_index=chunk, file_index=file, video_key=key)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def is_dataset(folder: Path) -> bool:
    """Return whether a folder is a LeRobot dataset and nothing else."""
    try:
        read_info(folder)
    except GenimaError:
        return False
    return {path.name for path in folder.iterdir()} <= {
        "meta",
        "data",
        "videos",
        "images",
        "README.md",
        ".gitattributes",
    }


def _column(values: NDArray[Any]) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _features(episode: Episode, robot: RobotModel, fps: int) -> dict[str, dict[str, Any]]:
    joints = [*robot.joint_names, layout.GRIPPER]
    video = {
        "video.codec": CODEC,
        "video.pix_fmt": PIXEL_FORMAT,
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }
    features: dict[str, dict[str, Any]] = {
        name: {"dtype": "float32", "shape": [len(joints)], "names": joints} for name in (layout.STATE, layout.ACTION)
    }
    for view in episode.views:
        height, width, channels = episode.image(view, 0).shape
        features[layout.IMAGES + view] = {
            "dtype": "video",
            "shape": [height, width, channels],
            "names": ["height", "width", "channels"],
            "info": {"video.height": height, "video.width": width, **video},
        }
    if episode.success is not None:  # unjudged episodes are not marked as failed
        features[layout.SUCCESS] = {"dtype": "bool", "shape": [1], "names": None}
    features[layout.TIMESTAMP] = {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "int64", "shape": [1], "names": None}
    return features
