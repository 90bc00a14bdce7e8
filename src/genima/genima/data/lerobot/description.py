"""Metadata of a LeRobotDataset: ``meta/info.json``, episodes, tasks and statistics.

Everything is validated: paths stay within the dataset, numbers have limits, texts are texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from genima.data.lerobot import layout
from genima.errors import GenimaError
from genima.io.files import FileSchema, Text, load_json, read_json, validate
from genima.io.tables import is_text, numbers, read_columns, texts

MAX_LENGTH = 1_000_000  # frames of an episode
_MAX_FILES = 100_000
_FIELD = re.compile(r"\{(\w*)(?::0?(\d)d)?\}")

_Number = Annotated[int, Field(ge=0, le=2**31 - 1)]


class _ForeignSchema(FileSchema):
    """Schema of files of other tools, which may have more fields."""

    model_config = ConfigDict(extra="ignore")


class Feature(_ForeignSchema):
    """Column of the data, or the frames of a video."""

    dtype: Text
    shape: Annotated[list[_Number], Field(max_length=8)]
    names: Any = None
    info: dict[str, Any] | None = None

    @property
    def is_image(self) -> bool:
        """Return whether the feature is images, of a camera or of anything else."""
        return self.dtype in ("image", "video")

    @property
    def is_colour(self) -> bool:
        """Return whether its images have three channels and are no depth map."""
        depth = any((self.info or {}).get(key) is True for key in ("video.is_depth_map", "is_depth_map"))
        return self.is_image and not depth and self._channels_last is not None

    @property
    def _channels_last(self) -> bool | None:
        if len(self.shape) != 3:
            return None
        if isinstance(self.names, list) and self.names and str(self.names[0]).startswith("channel"):
            return False if self.shape[0] == 3 else None
        return True if self.shape[2] == 3 else False if self.shape[0] == 3 else None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px of colour images, which are described as (h, w, 3) or (3, h, w)."""
        height, width = self.shape[:2] if self._channels_last else self.shape[1:]
        return width, height

    @property
    def labels(self) -> list[str]:
        """Names of the dimensions of a vector; their numbers where it has no names, or another count of them."""
        names = self.names
        if isinstance(names, Mapping):  # {"motors": [...]}
            names = [each for group in names.values() if isinstance(group, list) for each in group]
        if isinstance(names, list) and len(names) == self.width and all(isinstance(each, str) for each in names):
            return names
        return [str(i) for i in range(self.width)]

    @property
    def width(self) -> int:
        """Return the number of dimensions of a vector; 0 for other features."""
        return self.shape[0] if len(self.shape) == 1 and self.shape[0] <= 10_000 else 0


class Info(_ForeignSchema):
    """Content of ``meta/info.json``."""

    codebase_version: Text
    robot_type: str | None = None
    fps: Annotated[float, Field(gt=0, le=10_000)]  # Hz
    total_episodes: _Number
    total_frames: Annotated[int, Field(ge=0, le=2**62)]
    features: Annotated[dict[str, Feature], Field(max_length=10_000)]
    data_path: Text
    video_path: Text | None = None

    @property
    def colour_features(self) -> list[str]:
        """Names of the features that are colour images."""
        return [name for name, feature in self.features.items() if feature.is_colour]


@dataclass(frozen=True)
class EpisodeEntry:
    """Location of an episode."""

    index: int
    length: int  # frames
    data: Path  # parquet file
    videos: Mapping[str, tuple[Path, float]]  # by feature: file, and time of its first frame, s


def read_info(folder: Path) -> Info:
    """Read ``meta/info.json``.

    Raises:
        GenimaError: for a folder without, another version, and a malformed file.
    """
    path = folder / layout.INFO
    if not path.is_file():
        raise GenimaError(f"dataset {folder}: not a LeRobotDataset ({layout.INFO} is missing); name its root folder")
    data = read_json(path, "dataset description")
    version = data.get("codebase_version") if isinstance(data, Mapping) else None
    if isinstance(version, str) and version.split(".")[0] != layout.VERSION.split(".")[0]:
        raise GenimaError(
            f"dataset {folder} is {version[:20]}, {layout.VERSION} is needed; convert older ones with the lerobot "
            "library (python -m lerobot.datasets.v30.convert_dataset_v21_to_v30)"
        )
    info = validate(Info, data, f"dataset description {path}")
    for template, video in ((info.data_path, False), (info.video_path, True)):
        if template is not None:
            _expand_template(template, f"dataset description {path}", "x" if video else None, 0, 0)
    for name, feature in info.features.items():
        if feature.is_colour and not 1 <= min(feature.size) <= max(feature.size) <= 16384:
            width, height = feature.size
            raise GenimaError(f"dataset description {path}: images {name} are of {width}x{height} px")
    return info


def read_episodes(folder: Path, info: Info, videos: Sequence[str] | None = None) -> list[EpisodeEntry]:
    """Read the table of episodes, sorted.

    Args:
        folder: the dataset.
        info: its description.
        videos: features whose videos are wanted; None: all colour videos.

    Raises:
        GenimaError: for tables that are missing, damaged, or not as described.
    """
    what = "episodes table"
    if videos is None:
        videos = [name for name in info.colour_features if info.features[name].dtype == "video"]
    if videos and info.video_path is None:
        raise GenimaError(f"dataset {folder}: {layout.INFO} has videos, but no video_path")
    place = ("data/chunk_index", "data/file_index")
    places = [f"videos/{key}/{part}" for key in videos for part in ("chunk_index", "file_index")]
    whole = ["episode_index", "length", *place, *places]
    starts = [f"videos/{key}/from_timestamp" for key in videos]
    files = sorted((folder / "meta" / "episodes").rglob("*.parquet"))
    if not files:
        raise GenimaError(f"dataset {folder}: it has no episodes (meta/episodes/chunk-000/file-000.parquet)")
    entries = []
    for file in files[:_MAX_FILES]:
        table = read_columns(file, [*whole, *starts], what)
        columns = {}
        for name in (*whole, *starts):
            values = numbers(table, name, f"{what} {file}")
            if name in whole and values.dtype.kind not in "iu":
                raise GenimaError(f"{what} {file}: column {name} holds no integers")
            largest = MAX_LENGTH if name == "length" else 2**31 - 1
            if len(values) and not (0 <= values.min() and values.max() <= largest):
                raise GenimaError(f"{what} {file}: column {name} has values outside 0 to {largest}")
            columns[name] = values.tolist()
        for i in range(len(table)):
            row = {name: column[i] for name, column in columns.items()}
            data = folder / _expand_template(info.data_path, what, None, row[place[0]], row[place[1]])
            shown = {
                key: (
                    folder
                    / _expand_template(
                        info.video_path or "", what, key, row[f"videos/{key}/chunk_index"],
                        row[f"videos/{key}/file_index"],
                    ),
                    float(row[f"videos/{key}/from_timestamp"]),
                )
                for key in videos
            }  # fmt: skip
            entries.append(EpisodeEntry(row["episode_index"], row["length"], data, shown))
    if twice := [index for index, count in Counter(entry.index for entry in entries).items() if count > 1]:
        raise GenimaError(f"dataset {folder}: episode {twice[0]} appears twice")
    if len(entries) != info.total_episodes:
        raise GenimaError(
            f"dataset {folder}: {layout.INFO} lists {info.total_episodes} episodes, {len(entries)} are described in "
            "meta/episodes; fetch the whole meta folder again"
        )
    return sorted(entries, key=lambda entry: entry.index)


def read_tasks(folder: Path) -> dict[int, str]:
    """Return the tasks by their index; their texts are a column, or the index of a pandas table.

    Raises:
        GenimaError: for a table that is missing or damaged, or that has no column of texts, or several.
    """
    path, what = folder / layout.TASKS, "tasks table"
    table = read_columns(path, None, what)
    words = [field.name for field in table.schema if is_text(field.type)]
    if "task" in words:
        words = ["task"]
    if len(words) != 1 or "task_index" not in table.column_names:
        raise GenimaError(
            f"{what} {path}: it needs the columns task (text) and task_index; it has {', '.join(table.column_names)}"
        )
    indices = numbers(table, "task_index", f"{what} {path}")
    if indices.dtype.kind not in "iu" or len(set(indices.tolist())) != len(indices):
        raise GenimaError(f"{what} {path}: its task_index are not different integers")
    return dict(zip(indices.tolist(), texts(table, words[0], f"{what} {path}"), strict=True))


def value_range(folder: Path, feature: str, dimension: int) -> tuple[float, float] | None:
    """Return the smallest and the largest value of a dimension, by ``meta/stats.json``; None where unknown."""
    try:
        stats = load_json(dict[str, dict[str, Any]], folder / layout.STATS, "dataset statistics")
        low, high = (float(stats[feature][kind][dimension]) for kind in ("min", "max"))
    except (GenimaError, KeyError, IndexError, TypeError, ValueError, OverflowError):
        return None
    return low, high


def _expand_template(template: str, what: str, key: str | None, chunk: int, file: int) -> PurePosixPath:
    """Return the path, relative to the dataset, for a template of the metadata.

    Raises:
        GenimaError: for other fields than the format's, and for a path that leaves the dataset.
    """
    values: dict[str, int | str] = {"chunk_index": chunk, "file_index": file}
    if key is not None:
        values["video_key"] = key

    def fill(match: re.Match[str]) -> str:
        name, digits = match[1], match[2]
        if name not in values or (digits and name == "video_key"):
            raise GenimaError(f"{what}: path {template!r} has the field {match[0]}; known are {', '.join(values)}")
        return f"{values[name]:0{int(digits)}d}" if digits else str(values[name])

    if (rest := _FIELD.sub("", template)) and set(rest) & set("{}\0"):
        raise GenimaError(f"{what}: path {template!r} is malformed")
    filled = _FIELD.sub(fill, template)
    path = PurePosixPath(filled)
    if path.is_absolute() or ".." in path.parts or "\0" in filled or not path.name:
        raise GenimaError(f"{what}: path {filled!r} leaves the dataset")
    return path
