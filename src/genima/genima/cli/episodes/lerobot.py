"""Demos to LeRobot datasets and back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from genima.cli.episodes.each import OnFault, for_each, tell_imported
from genima.episodes import Episode, find_episodes
from genima.episodes.lerobot import DatasetReader, DatasetWriter
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.views import load_cameras


def export_lerobot(
    demos: tyro.conf.Positional[Path], out: Path, on_fault: OnFault = "skip", robot: str = "panda"
) -> None:
    """Write demos as a LeRobotDataset (v3.0) with their own timestamps.

    An interrupted export leaves no dataset.

    Args:
        demos: Folder of demos (rosbag2).
        out: Folder of the dataset; it must not exist.
        on_fault: Whether a demo with a fault is left out or ends the command.
        robot: Robot model: a name in config/robots or a YAML file.
    """
    model = RobotModel.load(robot)
    folders = find_episodes(demos)
    with DatasetWriter(out, model) as dataset:

        def add(folder: Path) -> None:
            if missed := dataset.add(Episode.load(folder, model)):
                tqdm.write(
                    f"genima: {folder}: the stamps of {missed} frames are too uneven for LeRobot's default video "
                    'reader; give LeRobotDataset video_backend="pyav"'
                )

        skipped = for_each(folders, add, on_fault, "export")
        if not len(dataset):
            raise GenimaError(f"none of the {len(folders)} demos in {demos} could be exported")
    print(f"{len(folders) - skipped} episodes in {out}; {skipped} skipped")


def import_lerobot(
    dataset: tyro.conf.Positional[Path],
    out: Path,
    views: tuple[str, ...] = (),
    joints: tuple[str, ...] = (),
    gripper_range: Annotated[tuple[float, float], tyro.conf.arg(metavar="CLOSED OPEN")] = (0.0, 1.0),
    cameras: Path | None = None,
    on_fault: OnFault = "skip",
    robot: str = "panda",
) -> None:
    """Write the episodes of a LeRobotDataset (v3.0) as demos; those already there are kept and not made again.

    Args:
        dataset: Folder of the dataset.
        out: Folder for the demos (rosbag2).
        views: Which images to take and the view that each is, as observation.images.cam_high=front; default: all,
            called as after observation.images.
        joints: The robot's joint, or gripper_open_fraction, by the name in the dataset where they differ, as
            joint_0=panda_joint1; dimensions without names are called 0, 1, ...
        gripper_range: The dataset's gripper values when closed and when open.
        cameras: Folder of camera calibrations, for the demos' camera_info; default: the simulator's.
        on_fault: Whether an episode with a fault is left out or ends the command.
        robot: Robot model: a name in config/robots or a YAML file.
    """
    if gripper_range[0] == gripper_range[1]:
        raise GenimaError("--gripper-range: closed and open must differ")
    calibration = load_cameras(cameras or "sim")
    reader = DatasetReader(
        dataset, RobotModel.load(robot), calibration, _pairs("--views", views) or None, _pairs("--joints", joints),
        gripper_range,
    )  # fmt: skip
    todo = [index for index in range(len(reader)) if not (out / reader.name(index)).exists()]
    skipped = for_each(todo, lambda index: reader.write_episode(index, out / reader.name(index)), on_fault, "import")
    tell_imported(len(reader), len(todo), skipped, out, dataset)


def _pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """{theirs: ours} of texts theirs=ours."""
    pairs = {}
    for text in texts:
        theirs, equals, ours = text.partition("=")
        if not (theirs and equals and ours):
            raise GenimaError(f"{option} takes THEIRS=OURS, not {text!r}")
        pairs[theirs] = ours
    if twice := sorted({ours for ours in pairs.values() if list(pairs.values()).count(ours) > 1}):
        raise GenimaError(f"{option} gives {', '.join(twice)} twice")
    return pairs
