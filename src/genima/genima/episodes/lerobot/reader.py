"""Read a LeRobotDataset v3.0, ours or another's, and write its episodes as rosbag2 demos."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genima.episodes.lerobot import layout
from genima.episodes.lerobot.video import frames_at
from genima.episodes.writer import EpisodeWriter
from genima.errors import GenimaError
from genima.observation import Command, Image, Joints
from genima.robot.model import RobotModel
from genima.views.camera import Camera

_OUTSIDE_ARM = 0.1  # rad beyond the robot's limits that pass as a measurement
_OUTSIDE_GRIPPER = 0.05  # of its range


class DatasetReader:
    """A dataset on disk. Stamps of its episodes are seconds since each one's beginning.

    Args:
        folder: the dataset.
        robot: whose joints its names must fit.
        cameras: calibrations by view; they are scaled to the images' sizes.
        views: which image features to take, and the view that each is; without it all, called as after
            ``observation.images.``.
        joints: the robot's names (or ``gripper_open_fraction``) by the dataset's, where they differ; dimensions without
            names are called 0, 1, ...
        gripper_range: the dataset's gripper values when closed and when open.

    Raises:
        GenimaError: for a folder that is no such dataset, and for joints, image features or views that do not fit.
    """

    def __init__(
        self,
        folder: Path,
        robot: RobotModel,
        cameras: Mapping[str, Camera],
        views: Mapping[str, str] | None = None,
        joints: Mapping[str, str] | None = None,
        gripper_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self._folder, self._robot, self._gripper_range = folder, robot, gripper_range
        info = read_info(folder)
        self._info, features = info, info["features"]
        keys = [key for key, feature in features.items() if feature["dtype"] in ("image", "video")]
        if not keys:
            raise GenimaError(f"dataset {folder} has no images")
        self._views = {key: key.removeprefix(layout.IMAGES) for key in keys} if views is None else dict(views)
        if unknown := [key for key in self._views if key not in keys]:
            raise GenimaError(f"dataset {folder} has no images {', '.join(unknown)}; it has {', '.join(keys)}")
        if unknown := [view for view in self._views.values() if view not in cameras]:
            raise GenimaError(
                f"no camera is called {', '.join(unknown)}; there are {', '.join(cameras)}: "
                f"say which is which with --views, as {next(iter(self._views))}={next(iter(cameras))}"
            )
        self._cameras = {
            view: cameras[view].scaled(*_image_size(features[key]["shape"])) for key, view in self._views.items()
        }
        self._columns = {name: self._find_joints(name, joints or {}) for name in (layout.STATE, layout.ACTION)}
        try:
            table = pa.dataset.dataset(folder / "meta" / "episodes")
            wanted = [name for name in table.schema.names if not name.startswith("stats/")]
            self._episodes = table.to_table(columns=wanted).sort_by("episode_index").to_pylist()
            tasks = pd.read_parquet(folder / layout.TASKS)
            self._tasks = dict(zip(tasks["task_index"], tasks.index, strict=True))
        except (OSError, KeyError, pa.ArrowException) as error:
            raise GenimaError(f"dataset {folder}: its tables of episodes and tasks cannot be read: {error}") from None

    def __len__(self) -> int:
        """How many episodes there are."""
        return len(self._episodes)

    def name(self, index: int) -> str:
        """What the demo of an episode is called."""
        return f"{self._folder.resolve().name}-{self._episodes[index]['episode_index']:06d}"

    def write_episode(self, index: int, folder: Path) -> None:
        """Write an episode as a demo; whether it succeeded stays open where the dataset does not say.

        Raises:
            GenimaError: for files that are missing or damaged, values that are not finite or out of range, and stamps
                that do not increase.
        """
        row = self._episodes[index]
        try:
            frames = self._read_frames(row)
            stamps = np.array(frames[layout.TIMESTAMP], float)
            self._check_stamps(stamps, row["length"])
            state, action = (self._in_order(name, frames[name].to_pylist()) for name in (layout.STATE, layout.ACTION))
            judged = layout.SUCCESS in frames.column_names
            images = {view: self._images(key, row, frames, stamps) for key, view in self._views.items()}
            with EpisodeWriter(folder, self._robot, self._cameras, self._instruction(frames)) as episode:
                for stamp, measured, commanded in zip(stamps, state, action, strict=True):
                    joints = Joints(stamp, measured[:-1], measured[-1])
                    episode.observe(stamp, {view: next(image) for view, image in images.items()}, joints)
                    episode.command(Command(stamp, commanded[:-1], gripper=commanded[-1]))
                if judged:
                    episode.judge(stamps[-1], any(frames[layout.SUCCESS].to_pylist()))
        except (GenimaError, KeyError, FileNotFoundError, pa.ArrowException) as error:
            what = f"{error!r} is missing" if isinstance(error, KeyError) else str(error)
            raise GenimaError(f"dataset {self._folder}, episode {row['episode_index']}: {what}") from None

    def _find_joints(self, name: str, joints: Mapping[str, str]) -> list[int]:
        """Where the robot's joints, and then the gripper, are in a feature."""
        features = self._info["features"]
        if name not in features:
            raise GenimaError(f"dataset {self._folder} has no {name}; it has {', '.join(features)}")
        names = [joints.get(each, each) for each in _names(features[name])]
        wanted = (*self._robot.joint_names, layout.GRIPPER)
        if missing := [each for each in wanted if names.count(each) != 1]:
            raise GenimaError(
                f"dataset {self._folder}: {name} does not have {', '.join(missing)} once; it has {', '.join(names)}: "
                "say which is which with --joints THEIRS=OURS"
            )
        return [names.index(each) for each in wanted]

    def _read_frames(self, row: Mapping[str, Any]) -> pa.Table:
        path = self._info["data_path"].format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        features = self._info["features"]
        wanted = [layout.STATE, layout.ACTION, layout.TIMESTAMP, "frame_index", "task_index"]
        wanted += [layout.SUCCESS] if layout.SUCCESS in features else []
        wanted += [key for key in self._views if features[key]["dtype"] == "image"]
        only = [("episode_index", "==", row["episode_index"])]
        return pq.read_table(self._folder / path, columns=wanted, filters=only).sort_by("frame_index")

    def _check_stamps(self, stamps: NDArray[np.float64], length: int) -> None:
        if len(stamps) != length or not length:
            raise GenimaError(f"{len(stamps)} frames of {length} are there")
        if not np.isfinite(stamps).all() or (np.diff(stamps) <= 0).any():
            raise GenimaError("its timestamps do not increase")

    def _in_order(self, name: str, rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
        """(T, n + 1): the arm's joints in rad and the gripper's open fraction."""
        values = np.array(rows, float)[:, self._columns[name]]
        if not np.isfinite(values).all():
            raise GenimaError(f"{name} is not finite")
        robot = self._robot
        arm = values[:, :-1]
        beyond = np.maximum(robot.position_min - arm, arm - robot.position_max).max(0)
        for i in np.flatnonzero(beyond > _OUTSIDE_ARM)[:1]:
            joint = robot.joint_names[i]
            raise GenimaError(f"{name}: {joint} exceeds its limits by {beyond[i]:.2f}; radians are needed")
        closed, open_ = self._gripper_range
        gripper = (values[:, -1] - closed) / (open_ - closed)
        if np.abs(gripper - 0.5).max() > 0.5 + _OUTSIDE_GRIPPER:
            low, high = values[:, -1].min(), values[:, -1].max()
            raise GenimaError(f"{name}: the gripper goes from {low:g} to {high:g}; give --gripper-range CLOSED OPEN")
        return np.column_stack([arm, np.clip(gripper, 0, 1)])

    def _instruction(self, frames: pa.Table) -> str:
        tasks = {self._tasks[index] for index in frames["task_index"].to_pylist()}
        if len(tasks) != 1 or not (instruction := str(tasks.pop())).strip():
            raise GenimaError("it has no single task")
        return instruction

    def _images(
        self, key: str, row: Mapping[str, Any], frames: pa.Table, stamps: NDArray[np.float64]
    ) -> Iterator[Image]:
        if self._info["features"][key]["dtype"] == "image":
            return map(_decode, frames[key].to_pylist())
        place = {part: row[f"videos/{key}/{part}"] for part in ("chunk_index", "file_index", "from_timestamp")}
        path = self._folder / self._info["video_path"].format(video_key=key, **place)
        return frames_at(path, place["from_timestamp"] + stamps, tolerance=0.25 / self._info["fps"])


def read_info(folder: Path) -> dict[str, Any]:
    path = folder / layout.INFO
    try:
        info: dict[str, Any] = json.loads(path.read_text())
        version = str(info["codebase_version"])
        shapes = [(feature["dtype"], list(feature["shape"])) for feature in info["features"].values()]
    except OSError as error:
        raise GenimaError(f"{folder} is no LeRobotDataset: cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GenimaError(f"{path} is damaged: {error!r}") from None
    if version.split(".")[0] != layout.VERSION.split(".")[0] or not shapes:
        raise GenimaError(f"dataset {folder} is {version}, {layout.VERSION} is needed; lerobot converts older ones")
    return info


def _names(feature: Mapping[str, Any]) -> list[str]:
    names = feature.get("names")
    if isinstance(names, Mapping):  # {"motors": [...]}
        names = [each for group in names.values() for each in group]
    size = feature["shape"][0]
    return [str(each) for each in names] if names and len(names) == size else [str(i) for i in range(size)]


def _image_size(shape: Sequence[int]) -> tuple[int, int]:
    """Width and height of images that are (h, w, 3) or (3, h, w)."""
    height, width = shape[1:] if shape[0] == 3 else shape[:2]
    return width, height


def _decode(stored: Mapping[str, Any]) -> Image:
    """An image as the datasets library keeps it in a table."""
    data = np.frombuffer(stored["bytes"] or b"", np.uint8)
    bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if bgr is None:
        raise GenimaError("an image cannot be decoded")
    return np.ascontiguousarray(bgr[..., ::-1])
