"""``./genima episodes import-rlbench``: convert RLBench's datasets to demos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from genima.system.command_line import parse_options
from genima_sim.rlbench.tasks import ROBOT


@dataclass
class ImportRLBench:
    """Write the episodes of a dataset of RLBench's generator as demos; those already there are kept.

    RLBench is not needed, and nothing that the files ask for is run.
    """

    dataset: tyro.conf.Positional[Path]
    """Folder of the dataset, or of a task or variation in it."""
    out: Path
    """Folder for the demos (rosbag2)."""
    cameras: Path | None = None
    """Folder of camera calibrations; default: those in the episodes."""
    on_fault: Literal["skip", "refuse"] = "skip"
    """Leave out an episode with a fault, or end the command."""
    robot: str = ROBOT
    """Robot model: a name in config/robots or a YAML file."""
    images: Literal["png", "jpeg"] = "png"
    """png: as they are in the dataset; jpeg: a fraction of the size, with loss (quality 95)."""


def import_rlbench(argv: Sequence[str]) -> int:
    """Entry point of ``./genima episodes import-rlbench``."""
    options = parse_options(
        ImportRLBench,
        "genima episodes import-rlbench",
        argv,
        example="./genima episodes import-rlbench /data/rlbench/open_box --out data/rlbench",
    )
    from genima.cameras.calibration_file import load_cameras
    from genima.data import rlbench
    from genima.robot.model import RobotModel
    from genima_cli.episodes.each import import_episodes  # imported here: takes seconds

    model = RobotModel.load(options.robot)
    cameras = None if options.cameras is None else load_cameras(options.cameras)
    episodes = rlbench.find_episodes(options.dataset)
    names = [rlbench.demo_name(episode) for episode in episodes]

    told = []  # of each new demo, whether its commands are those that were asked for

    def write(i: int) -> None:
        told.append(rlbench.write_demo(episodes[i], options.out / names[i], model, cameras, options.images))

    def is_written(i: int) -> bool:
        return rlbench.is_written(episodes[i], options.out / names[i], model)

    import_episodes(names, options.out, write, is_written, options.on_fault, options.dataset)
    if told.count(False):
        print(f"genima: {told.count(False)} episodes have no commands; their demos take the position of the next step")
    return 0
