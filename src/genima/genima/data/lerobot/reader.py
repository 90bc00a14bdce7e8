"""Import of a LeRobotDataset v3.0 as rosbag2 demos."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from genima.cameras.camera import VIRTUAL, Camera
from genima.data.episodes.comparison import is_demo_of
from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.writer import EpisodeWriter
from genima.data.lerobot import layout
from genima.data.lerobot.description import EpisodeEntry, read_episodes, read_info, read_tasks, value_range
from genima.data.lerobot.video import frames_at
from genima.errors import GenimaError
from genima.io import paths
from genima.io.files import shorten
from genima.io.images import decode_colour
from genima.io.tables import numbers, read_columns, stream_column
from genima.robot.model import RobotModel
from genima.system.ros_names import require_ros_name
from genima.types import Command, Image, Joints

_OUTSIDE_ARM = 0.1  # rad beyond the robot's limits that pass as a measurement
_OUTSIDE_GRIPPER = 0.05  # of its range
_RATE_TOLERANCE = 0.1  # relative difference of the stamps' rate from the description's, beyond rounding


class DatasetReader:
    """Dataset on disk; stamps are seconds since the start of each episode.

    Args:
        folder: the dataset.
        robot: robot of the dataset.
        cameras: calibrations by view, of the images' aspect ratio; None: the demos are not calibrated.
        views: image features to import, and their views; None: all colour features, with the name after
            ``observation.images.``.
        joints: the robot's names (or ``gripper_open_fraction``) by the dataset's, where they differ; a dimension may
            be given by its number, from 0.
        gripper_range: the dataset's gripper values when closed and when open; None: open fractions, for a dimension
            named ``gripper_open_fraction``.

    Raises:
        GenimaError: for a folder that is no such dataset, and for joints, image features or views that do not fit.
    """

    def __init__(
        self,
        folder: Path,
        robot: RobotModel,
        cameras: Mapping[str, Camera] | None = None,
        views: Mapping[str, str] | None = None,
        joints: Mapping[str, str] | None = None,
        gripper_range: tuple[float, float] | None = None,
    ) -> None:
        self._folder, self._robot = folder, robot
        self._info = read_info(folder)
        self.notes: list[str] = []  # notes on the import for the user
        self._check_robot()
        self._views = self._choose_views(views)
        self._cameras = self._choose_cameras(cameras)
        self._columns = self._find_joints(joints or {}, named_range=gripper_range is None)
        self._gripper_range = gripper_range or (0.0, 1.0)
        videos = [key for key in self._views if self._info.features[key].dtype == "video"]
        self._episodes = read_episodes(folder, self._info, videos)
        self._tasks = read_tasks(folder)

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self._episodes)

    def name(self, index: int) -> str:
        """Return the demo name of an episode."""
        return f"{self._folder.resolve().name}-{self._episodes[index].index:06d}"

    def write_episode(self, index: int, folder: Path) -> None:
        """Write an episode as a demo; its success stays unknown where the dataset does not have it.

        Raises:
            GenimaError: for files that are missing, damaged or not as described, values that are not finite or out of
                range, and stamps that do not increase.
        """
        entry = self._episodes[index]
        try:
            frames = self._read_frames(entry)
            stamps = numbers(frames, layout.TIMESTAMP, "data").astype(float)
            self._check_stamps(stamps)
            state, action = (self._order_dimensions(name, frames) for name in (layout.STATE, layout.ACTION))
            has_success = layout.SUCCESS in frames.column_names
            success = has_success and bool(numbers(frames, layout.SUCCESS, "data").any())
            images = {view: self._images(key, entry, stamps) for key, view in self._views.items()}
            with EpisodeWriter(folder, self._robot, self._cameras, self._instruction(frames)) as episode:
                for stamp, measured, commanded in zip(stamps, state, action, strict=True):
                    joints = Joints(stamp, measured[:-1], measured[-1])
                    try:
                        seen = {view: next(image) for view, image in images.items()}
                    except StopIteration:
                        raise GenimaError("it has fewer images than frames") from None
                    episode.observe(stamp, seen, joints)
                    episode.command(Command(stamp, commanded[:-1], gripper=commanded[-1]))
                if has_success:
                    episode.judge(stamps[-1], success)
        except GenimaError as error:
            raise GenimaError(f"dataset {self._folder}, episode {entry.index}: {error}") from None

    def is_written(self, index: int, folder: Path) -> bool:
        """Return whether a demo is the conversion of an episode, by its task and joints.

        Raises:
            GenimaError: when the demo or the episode cannot be read.
        """
        entry = self._episodes[index]
        try:
            frames = self._read_frames(entry)
            state = self._order_dimensions(layout.STATE, frames)
            moments = [Joints(0.0, measured[:-1], measured[-1]) for measured in state]
            return is_demo_of(folder, self._robot, self._instruction(frames), moments)
        except EpisodeError:
            raise
        except GenimaError as error:
            raise GenimaError(f"dataset {self._folder}, episode {entry.index}: {error}") from None

    def _check_robot(self) -> None:
        """Reject a dataset of another known robot; note one of an unknown robot."""
        kind, robot = self._info.robot_type, self._robot.name
        if kind == robot:
            return
        if kind in {path.stem for path in paths.yaml_files("config", "robots")}:
            raise GenimaError(f"dataset {self._folder} is of robot {kind}, not {robot}; give --robot {kind}")
        dataset_robot = f"robot {shorten(kind)}" if kind else "no named robot"
        self.notes.append(f"the dataset is of {dataset_robot}; its joints are taken for those of {robot} (--robot)")

    def _choose_views(self, views: Mapping[str, str] | None) -> dict[str, str]:
        features = self._info.features
        images = [key for key, feature in features.items() if feature.is_image]
        colour = self._info.colour_features
        if not colour:
            raise GenimaError(f"dataset {self._folder} has no colour images")
        if views is None:
            if left := [key for key in images if key not in colour]:
                self.notes.append(f"not in colour, left out: {', '.join(left)}")
            views = {key: key.removeprefix(layout.IMAGES) for key in colour}
        if unknown := [key for key in views if key not in images]:
            raise GenimaError(f"dataset {self._folder} has no images {', '.join(unknown)}; it has {', '.join(images)}")
        if grey := [key for key in views if key not in colour]:
            shape = features[grey[0]].shape
            raise GenimaError(f"dataset {self._folder}: {grey[0]} is no colour image (shape {shape}, or depth)")
        for key, view in views.items():
            if view == VIRTUAL:
                raise GenimaError(f"dataset {self._folder}: {VIRTUAL} is the view without a camera; give --views")
            require_ros_name(view, f"dataset {self._folder}: {key} cannot be a view of this name (--views THEIRS=OURS)")
        if twice := sorted({view for view in views.values() if list(views.values()).count(view) > 1}):
            raise GenimaError(f"dataset {self._folder}: two image features would be view {twice[0]}; give --views")
        return dict(views)

    def _choose_cameras(self, cameras: Mapping[str, Camera] | None) -> dict[str, Camera]:
        if cameras is None:
            return {}
        if unknown := [view for view in self._views.values() if view not in cameras]:
            raise GenimaError(
                f"no camera is called {', '.join(unknown)}; there are {', '.join(cameras)}: "
                f"map them with --views, as {next(iter(self._views))}={next(iter(cameras))}"
            )
        return {view: cameras[view].resize(*self._info.features[key].size) for key, view in self._views.items()}

    def _find_joints(self, joints: Mapping[str, str], named_range: bool) -> dict[str, list[int]]:
        """Return where the robot's joints, and then the gripper, are in the state and in the action.

        Args:
            joints: our names by the dataset's.
            named_range: no range of the gripper was given: only its name shows which values are closed and open.
        """
        features, wanted = self._info.features, (*self._robot.joint_names, layout.GRIPPER)
        if unknown := [ours for ours in joints.values() if ours not in wanted]:
            raise GenimaError(f"--joints: the robot has no {', '.join(unknown)}; it has {', '.join(wanted)}")
        for name in (layout.STATE, layout.ACTION):
            if name not in features:
                raise GenimaError(f"dataset {self._folder} has no {name}; it has {shorten(', '.join(features), 500)}")
            if not features[name].width:
                raise GenimaError(f"dataset {self._folder}: {name} is no vector (shape {features[name].shape})")
        labels = {name: features[name].labels for name in (layout.STATE, layout.ACTION)}
        for theirs in joints:
            if not any(self._dimensions(theirs, each) for each in labels.values()):
                known = self._label_text(labels)
                raise GenimaError(f"--joints {theirs}={joints[theirs]}: there is no dimension {theirs!r}; {known}")
        found = {}
        for name, each in labels.items():
            places: dict[str, list[int]] = {ours: [] for ours in wanted}
            for theirs, ours in joints.items():
                places[ours] += self._dimensions(theirs, each)
            for ours in wanted:
                places[ours] = places[ours] or [i for i, label in enumerate(each) if label == ours]
            if missing := [ours for ours in wanted if not places[ours]]:
                known = self._label_text({name: each})
                raise GenimaError(
                    f"dataset {self._folder}: {name} does not have {', '.join(missing)}; {known}: map names or numbers "
                    "with --joints THEIRS=OURS"
                )
            for ours in wanted:
                if len(many := places[ours]) > 1:
                    raise GenimaError(
                        f"dataset {self._folder}: {name} has {ours} {len(many)} times, as numbers "
                        f"{', '.join(map(str, many))}; choose one by its number, as --joints {many[-1]}={ours}"
                    )
            found[name] = [places[ours][0] for ours in wanted]
            if len(set(found[name])) < len(wanted):
                raise GenimaError(f"dataset {self._folder}: --joints gives a dimension of {name} to two joints")
            gripper = found[name][-1]
            if named_range and each[gripper] != layout.GRIPPER:
                between = value_range(self._folder, name, gripper)
                values = f" ({between[0]:g} to {between[1]:g} in its statistics)" if between else ""
                raise GenimaError(
                    f"dataset {self._folder}: unknown range of the gripper ({name}'s "
                    f"{each[gripper]}{values}); give --gripper-range CLOSED OPEN, as 0 1 for open fractions"
                )
        return found

    @staticmethod
    def _dimensions(name: str, labels: list[str]) -> list[int]:
        """Return the dimensions with a name; without names, the dimension of that number."""
        found = [i for i, label in enumerate(labels) if label == name]
        if not found and re.fullmatch(r"[0-9]{1,5}", name) and int(name) < len(labels):
            return [int(name)]
        return found

    @staticmethod
    def _label_text(labels: Mapping[str, list[str]]) -> str:
        every = dict.fromkeys(shorten(", ".join(f"{i}: {each}" for i, each in enumerate(own)), 1000)
                              for own in labels.values())  # fmt: skip
        return f"it has {' and '.join(every)}"

    def _read_frames(self, entry: EpisodeEntry) -> pa.Table:
        wanted = [layout.STATE, layout.ACTION, layout.TIMESTAMP, "frame_index", "task_index"]
        wanted += [layout.SUCCESS] if layout.SUCCESS in self._info.features else []
        table = read_columns(entry.data, wanted, "data", ("episode_index", entry.index))
        if len(table) != entry.length or not entry.length:
            raise GenimaError(f"{len(table)} frames of {entry.length} are there")
        if not np.array_equal(numbers(table, "frame_index", "data"), np.arange(entry.length)):
            raise GenimaError("its frames are out of order, or some are missing (frame_index)")
        return table

    def _check_stamps(self, stamps: NDArray[np.float64]) -> None:
        if not np.isfinite(stamps).all() or stamps[0] < 0 or stamps[-1] > 1e7 or (np.diff(stamps) <= 0).any():
            raise GenimaError("its timestamps do not increase")
        fps = self._info.fps
        if len(stamps) > 1:
            rate = float(1 / np.median(np.diff(stamps)))
            if abs(rate / fps - 1) > _RATE_TOLERANCE + 0.5 / fps:
                raise GenimaError(f"its timestamps are of {rate:.4g} Hz, {layout.INFO} has {fps:g} fps")

    def _order_dimensions(self, name: str, frames: pa.Table) -> NDArray[np.float64]:
        """Return (T, n + 1): arm joints in rad and the gripper's open fraction."""
        vectors = numbers(frames, name, "data", self._info.features[name].width)
        values = vectors[:, self._columns[name]].astype(float)
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
        indices = set(numbers(frames, "task_index", "data").tolist())
        if unknown := [index for index in indices if index not in self._tasks]:
            raise GenimaError(f"{layout.TASKS} has no task {unknown[0]}")
        tasks = {self._tasks[index] for index in indices}
        if len(tasks) != 1 or not (instruction := tasks.pop()).strip():
            raise GenimaError("it has no single task")
        return instruction

    def _images(self, key: str, entry: EpisodeEntry, stamps: NDArray[np.float64]) -> Iterator[Image]:
        size = self._info.features[key].size
        if key not in entry.videos:
            return self._decoded(key, entry, size)
        path, start = entry.videos[key]
        return frames_at(path, start + stamps, 0.25 / self._info.fps, size)

    def _decoded(self, key: str, entry: EpisodeEntry, size: tuple[int, int]) -> Iterator[Image]:
        for stored in stream_column(entry.data, key, "data", ("episode_index", entry.index)):
            yield decode_table_image(stored, key, size)


def decode_table_image(stored: Any, what: str, size: tuple[int, int] | None = None) -> Image:
    """Return the (h, w, 3) rgb image that the datasets library keeps in a table, of a ``size`` (width, height) in px.

    Raises:
        GenimaError: for what is no such image.
    """
    if not isinstance(stored, Mapping) or not isinstance(stored.get("bytes"), bytes):
        raise GenimaError(f"{what}: an image is not in the table (its bytes are missing)")
    return decode_colour(stored["bytes"], what, size)
