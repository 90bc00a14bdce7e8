"""``./genima inspect``: what is inside a checkpoint or a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import tyro

from genima.errors import GenimaError
from genima.files import atomic_write, require_writable
from genima.inspection.report import Report
from genima.robot.model import RobotModel


@dataclass
class Inspect:
    """Print what is inside a checkpoint or a dataset, and draw a contact sheet of it."""

    path: tyro.conf.Positional[Path]
    """Folder of a pair of models, a checkpoint, a training, rendered targets, demos, or a LeRobot dataset."""
    picture: Path | None = None
    """PNG file for the contact sheet; without it named after the folder, in the current one."""
    verify: bool = False
    """Read everything once: compare the shards of rendered targets with their checksums, decode all images of demos."""
    robot: str = "panda"
    """Robot model of demos: a name in config/robots or a YAML file."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima inspect``."""
    options = tyro.cli(Inspect, prog="genima inspect", args=list(argv))
    picture = options.picture or Path(f"{options.path.resolve().name}.png")
    if picture.suffix.lower() != ".png":
        raise GenimaError(f"--picture {picture}: the contact sheet is a .png file")
    require_writable(picture)
    report = inspect(options.path, options.verify, options.robot)
    print(report)
    if report.picture is not None:
        atomic_write(picture, cv2.imencode(".png", report.picture[..., ::-1])[1].tobytes())
        print(f"\ncontact sheet: {picture}")
    return 0


def inspect(path: Path, verify: bool = False, robot: str = "panda") -> Report:
    """What is inside a folder; it finds out by itself what kind of folder it is.

    Raises:
        GenimaError: when it is of no known kind, or damaged.
    """
    if not path.is_dir():
        raise GenimaError(f"{path} is no folder; name one with a checkpoint or a dataset in it")
    from genima.inspection import checkpoints  # only here, as below: these bring libraries that take seconds

    if checkpoints.is_checkpoint(path):
        return checkpoints.inspect_checkpoint(path)
    if checkpoints.is_pair(path):
        return checkpoints.inspect_pair(path)
    from genima.inspection import datasets

    if datasets.is_targets(path):
        return datasets.inspect_targets(path, verify)
    if datasets.is_lerobot(path):
        return datasets.inspect_lerobot(path)
    if any(path.rglob("metadata.yaml")):
        return datasets.inspect_demos(path, RobotModel.load(robot), verify)
    raise GenimaError(
        f"there is nothing to inspect in {path}: neither a finished checkpoint (genima.json), nor rendered targets "
        "(manifest.json), a LeRobot dataset (meta/info.json) or demos (rosbag2 folders)"
    )
