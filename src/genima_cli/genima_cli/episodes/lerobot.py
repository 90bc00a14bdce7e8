"""``./genima episodes export`` and ``import``: convert demos to LeRobot datasets and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from genima.errors import GenimaError
from genima.system.command_line import parse_options
from genima_cli.episodes.robot_option import DemoRobot


@dataclass
class Export(DemoRobot):
    """Write demos of one robot as a LeRobotDataset (v3.0) with their own timestamps.

    An interrupted export leaves no dataset.
    """

    demos: tyro.conf.Positional[Path]
    """Folder of demos (rosbag2)."""
    out: Path
    """Folder of the dataset; it must not exist."""
    overwrite: bool = False
    """Replace a LeRobot dataset that is there; nothing else is ever replaced."""
    on_fault: Literal["skip", "refuse"] = "skip"
    """Leave out a demo with a fault, or end the command."""


@dataclass
class Import:
    """Write the episodes of a LeRobotDataset (v3.0) as demos; those already there are kept and not made again."""

    dataset: tyro.conf.Positional[Path]
    """Folder of the dataset."""
    out: Path
    """Folder for the demos (rosbag2)."""
    views: tuple[str, ...] = ()
    """Images to import, each with its view, as observation.images.cam_high=front; without it all in colour,
    called as after observation.images."""
    joints: tuple[str, ...] = ()
    """The robot's joint, or gripper_open_fraction, by the name in the dataset where they differ, as
    joint_0=panda_joint1; a dimension may be named by its number, from 0, as well."""
    gripper_range: Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="CLOSED OPEN")] = None
    """The dataset's gripper values when closed and when open; needed unless the dataset itself calls the gripper
    gripper_open_fraction."""
    cameras: Path | None = None
    """Folder of camera calibrations by view, for images of their shape. Without it the demos hold none, and commands
    that need one ask for it."""
    on_fault: Literal["skip", "refuse"] = "skip"
    """Leave out an episode with a fault, or end the command."""
    robot: str = ""
    """Robot model, which the demos hold: a name in config/robots or a YAML file; default: the one that the dataset
    names."""


def export_lerobot(argv: Sequence[str]) -> int:
    """Entry point of ``./genima episodes export``."""
    options = parse_options(
        Export, "genima episodes export", argv, example="./genima episodes export data/demos --out data/lerobot"
    )
    from tqdm import tqdm  # imported here and below: takes seconds

    from genima.data.episodes import Episode, find_episodes
    from genima.data.episodes.robot import load_common_robot
    from genima.data.lerobot import DatasetWriter
    from genima_cli.episodes.each import for_each

    folders = find_episodes(options.demos)
    robot = load_common_robot(folders, options.default_robot())
    with DatasetWriter(options.out, robot, options.overwrite) as dataset:

        def add(folder: Path) -> None:
            episode = Episode.load(folder, robot)
            episode.require_robot(robot)
            if missed := dataset.add(episode):
                tqdm.write(
                    f"genima: {folder}: the stamps of {missed} frames are too uneven for LeRobot's default video "
                    'reader; give LeRobotDataset video_backend="pyav"'
                )

        skipped = for_each(folders, add, options.on_fault, "export")
        if not len(dataset):
            raise GenimaError(f"none of the {len(folders)} demos in {options.demos} could be exported")
    print(f"{len(folders) - skipped} episodes in {options.out}; {skipped} skipped")
    return 0


def import_lerobot(argv: Sequence[str]) -> int:
    """Entry point of ``./genima episodes import``."""
    example = "./genima episodes import data/lerobot --out data/imported --cameras calibration/mine"
    options = parse_options(Import, "genima episodes import", argv, example=example)
    if options.gripper_range and options.gripper_range[0] == options.gripper_range[1]:
        raise GenimaError("--gripper-range: closed and open must differ")
    views, joints = _pairs("--views", options.views), _pairs("--joints", options.joints)

    from genima.cameras.calibration_file import load_cameras
    from genima.data.lerobot import DatasetReader
    from genima.robot.model import RobotModel
    from genima.system.terminal import printable
    from genima_cli.episodes.each import import_episodes

    cameras = None if options.cameras is None else load_cameras(options.cameras)
    robot = RobotModel.load(options.robot or _named_robot(options.dataset))
    reader = DatasetReader(options.dataset, robot, cameras, views or None, joints, options.gripper_range)
    for note in reader.notes:
        print(f"genima: {printable(note)}")
    if cameras is None:
        print("genima: calibration: unknown; give --cameras FOLDER, here or to ./genima render")
    names = [reader.name(index) for index in range(len(reader))]
    folders = [options.out / name for name in names]
    import_episodes(
        names,
        options.out,
        lambda i: reader.write_episode(i, folders[i]),
        lambda i: reader.is_written(i, folders[i]),
        options.on_fault,
        options.dataset,
    )
    return 0


def _named_robot(dataset: Path) -> str:
    """Return the name of the robot of a dataset, one of config/robots.

    Raises:
        GenimaError: where it names none that is there.
    """
    from genima.data.lerobot.description import read_info
    from genima.io import paths
    from genima.io.files import shorten

    kind = read_info(dataset).robot_type
    known = [path.stem for path in paths.yaml_files("config", "robots")]
    if kind not in known:
        named = f"robot {shorten(kind)} is none of {', '.join(known)}" if kind else "names no robot"
        raise GenimaError(f"dataset {dataset}: {named}; give --robot, a name of these or a YAML file")
    return kind


def _pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Return {theirs: ours} of texts ``theirs=ours``."""
    pairs: dict[str, str] = {}
    for text in texts:
        theirs, equals, ours = text.rpartition("=")
        if not (theirs and equals and ours):
            raise GenimaError(f"{option} takes THEIRS=OURS, not {text!r}")
        if theirs in pairs:
            raise GenimaError(f"{option} names {theirs} twice")
        pairs[theirs] = ours
    if twice := sorted({ours for ours in pairs.values() if list(pairs.values()).count(ours) > 1}):
        raise GenimaError(f"{option} gives {', '.join(twice)} twice")
    return pairs
