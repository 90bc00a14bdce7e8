"""RLBench's datasets to demos."""

from __future__ import annotations

from pathlib import Path

import tyro

from genima.cli.episodes.each import OnFault, for_each, tell_imported
from genima.episodes import rlbench
from genima.robot.model import RobotModel
from genima.views import load_cameras


def import_rlbench(
    dataset: tyro.conf.Positional[Path],
    out: Path,
    cameras: Path | None = None,
    on_fault: OnFault = "skip",
    robot: str = "panda_franka_hand",
) -> None:
    """Write the episodes of a dataset of RLBench's generator as demos; those already there are kept.

    RLBench is not needed, and nothing that the files ask for is run.

    Args:
        dataset: Folder of the dataset, or of a task or variation in it.
        out: Folder for the demos (rosbag2).
        cameras: Folder of camera calibrations; without it those that the episodes tell.
        on_fault: Whether an episode with a fault is left out or ends the command.
        robot: Robot model: a name in config/robots or a YAML file.
    """
    model = RobotModel.load(robot)
    known = None if cameras is None else load_cameras(cameras)
    episodes = rlbench.find_episodes(dataset)
    todo = [episode for episode in episodes if not (out / rlbench.demo_name(episode)).exists()]

    def write(episode: Path) -> None:
        rlbench.write_demo(episode, out / rlbench.demo_name(episode), model, known)

    skipped = for_each(todo, write, on_fault, "import")
    tell_imported(len(episodes), len(todo), skipped, out, dataset)
