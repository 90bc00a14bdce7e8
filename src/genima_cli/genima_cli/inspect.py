"""``./genima inspect``: content of a checkpoint or a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from genima.errors import GenimaError
from genima.io.files import require_writable
from genima.io.outputs import require_free
from genima.system.command_line import parse_options
from genima.system.terminal import printable
from genima_cli.episodes.robot_option import DemoRobot

if TYPE_CHECKING:
    from genima.inspection.report import Report
    from genima.robot.model import RobotModel


@dataclass
class Inspect(DemoRobot):
    """Print the content of a checkpoint or a dataset; --picture FILE writes a contact sheet."""

    path: tyro.conf.Positional[Path]
    """Folder of a pair of models, a checkpoint, a training, rendered targets, demos, or a LeRobot dataset."""
    picture: Path | None = None
    """PNG file for the contact sheet; without it none is written."""
    overwrite: bool = False
    """Replace a contact sheet that is there; no other file is ever replaced."""
    verify: bool = False
    """Read everything once: compare the shards of rendered targets with their checksums, decode all images of demos."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima inspect``."""
    options = parse_options(
        Inspect, "genima inspect", argv, example="./genima inspect data/demos --verify --picture demos.png"
    )
    picture = options.picture
    if picture is not None:
        if picture.suffix.lower() != ".png":
            raise GenimaError(f"--picture {picture}: the contact sheet is a .png file")
        from genima.inspection.sheet import is_picture, write_picture  # imported here: takes seconds

        require_free(picture, "contact sheet", options.overwrite, is_picture)
        require_writable(picture)
    report = inspect(options.path, options.verify, options.default_robot())
    print(report)
    if report.picture is None:
        return 0
    if picture is None:
        print("\n--picture FILE.png draws a contact sheet of it")
        return 0
    require_free(picture, "contact sheet", options.overwrite, is_picture)  # it may have been made in the meantime
    write_picture(picture, report.picture)
    print(f"\ncontact sheet: {printable(picture)}")
    return 0


def inspect(path: Path, verify: bool = False, robot: RobotModel | None = None) -> Report:
    """Report the content of a folder of any kind; ``robot`` is that of demos that hold no model.

    Raises:
        GenimaError: when it is of no known kind, or damaged.
    """
    if not path.is_dir():
        raise GenimaError(f"{path} is no folder; name one with a checkpoint or a dataset in it")
    from genima.inspection import checkpoints  # imported here and below: takes seconds

    if checkpoints.is_checkpoint(path):
        return checkpoints.inspect_checkpoint(path)
    if checkpoints.is_pair(path):
        return checkpoints.inspect_pair(path)
    from genima.inspection import datasets

    if datasets.is_target_dataset(path):
        return datasets.inspect_targets(path, verify)
    if datasets.is_lerobot_dataset(path):
        return datasets.inspect_lerobot(path)
    from genima.data.episodes.folders import find_episodes

    try:
        find_episodes(path)
    except GenimaError as error:
        nothing = str(error)
    else:
        return datasets.inspect_demos(path, robot, verify)
    if "(rosbag2 folders)" not in nothing:  # something in it cannot be read
        raise GenimaError(nothing)
    raise GenimaError(
        f"{path}: nothing to inspect; neither a finished checkpoint (genima.json), nor rendered targets "
        "(manifest.json), a LeRobot dataset (meta/info.json) or demos (rosbag2 folders)"
    )
