"""``./genima render``: demos to a dataset of drawn targets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from genima.checkpoint import DrawingSpec
from genima.datasets.render import RenderPlan, render
from genima.episodes import EpisodeError, find_episodes
from genima.episodes.cameras import RecordedCameras
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.targets.appearance import DEFAULT, Appearance
from genima.views.camera import VIRTUAL, Camera, load_cameras
from genima.views.virtual import virtual_camera


@dataclass
class Render:
    """Draw the target spheres of every moment of every demo, and write them with the observations as parquet shards.

    Shards that are there already are kept: interrupted, the same command goes on. On several machines that share the
    folder, run it on each with its --rank of --machines.
    """

    demos: tuple[Path, ...] = (Path("data/demos"),)
    """Folders of demos (rosbag2)."""
    out: Path = Path("data/targets")
    """Folder of the dataset."""
    cameras: Path | None = None
    """Folder of camera calibrations, or its name in calibration/; without it those that the demos were recorded with,
    or the simulator's where they hold none. They must be the same in all."""
    robot: str = "panda"
    """Robot model: a name in config/robots, where trainings and checkpoints find it again."""
    views: tuple[str, ...] = DrawingSpec.views
    """Four views in tile order, row by row."""
    virtual: bool = False
    """Render a fifth view without a camera: the robot alone in its measured state."""
    view_size: int = 256
    """Side of a view in px."""
    horizon: int = 20
    """Steps from an observation to its target."""
    rate: float = 20.0
    """The demos' rate in Hz."""
    appearance: str = DEFAULT
    """The spheres' look: wide_stripes, genima_release (the stripes of the authors' code), or a YAML file."""
    renderer: Literal["moderngl", "pyrender", "raycast"] = "raycast"
    """What draws the spheres; they differ in single pixels at the borders of spheres and stripes."""
    on_fault: Literal["skip", "refuse"] = "skip"
    """Whether a demo with a fault is left out or ends the command."""
    unjudged: Literal["skip", "keep"] = "skip"
    """Whether a demo in which nobody has said if it succeeded (no /success) is left out or taken."""
    episodes_per_shard: int = 8
    """Demos in one shard."""
    processes: int = os.cpu_count() or 1
    """Processes on this machine."""
    rank: int = 0
    """Which of the machines this is."""
    machines: int = 1
    """How many machines share the work."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima render``."""
    options = tyro.cli(Render, prog="genima render", args=list(argv))
    if min(options.view_size, options.horizon, options.episodes_per_shard, options.processes) < 1 or options.rate <= 0:
        raise GenimaError("--view-size, --horizon, --rate, --episodes-per-shard and --processes must be positive")
    if options.view_size % 4:
        raise GenimaError(f"--view-size {options.view_size} is not a multiple of 4, as the networks need")
    if not 0 <= options.rank < options.machines:
        raise GenimaError(f"--rank {options.rank} is not one of 0 to {options.machines - 1} (--machines)")
    episodes = sorted({path for folder in options.demos for path in find_episodes(folder)})
    summary = render(make_plan(options, episodes), options.out, options.processes, options.rank, options.machines)
    print(f"{options.out}: {summary}")
    if summary.missing:
        print(f"{summary.missing} shards are still to come from other machines; the last one to finish completes it")
    return 0


def make_plan(options: Render, episodes: Sequence[Path]) -> RenderPlan:
    """What is to be rendered from these episodes.

    Raises:
        GenimaError: for unknown views, cameras of different sizes, two demos of one name or a bad appearance file.
    """
    names = [folder.name for folder in episodes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise GenimaError(f"two demos are called {twice[0]}; rename one, as the dataset tells them apart by name")
    robot = RobotModel.load(options.robot)
    if robot.name != options.robot:
        raise GenimaError(f"--robot {options.robot}: put it into config/robots as {robot.name}.yaml and say its name")
    recorded = _recorded(episodes) if options.cameras is None else {}
    every = {**load_cameras(options.cameras or "sim"), **recorded, VIRTUAL: virtual_camera()}
    wanted = (*options.views, *([VIRTUAL] if options.virtual and VIRTUAL not in options.views else []))
    if unknown := [view for view in wanted if view not in every]:
        raise GenimaError(f"there is no camera calibration of view {', '.join(unknown)}; there is {', '.join(every)}")
    if len(options.views) != 4 or len(set(options.views)) != 4:
        raise GenimaError(f"--views takes four different views, not {', '.join(options.views)}")
    appearance = Appearance.load(options.appearance)
    if unknown := [view for view in wanted if view not in appearance.radii]:
        raise GenimaError(f"the appearance has no sphere radius for view {', '.join(unknown)}")
    appearance.require_frames(robot)
    cameras: dict[str, Camera] = {view: every[view] for view in wanted}
    sizes = {(camera.width, camera.height) for view, camera in cameras.items() if view != VIRTUAL}
    if len(sizes) != 1:
        raise GenimaError(f"the cameras' images differ in size: {', '.join(f'{w}x{h}' for w, h in sorted(sizes))}")
    spec = DrawingSpec(
        robot.name, robot.joint_names, tuple(options.views), sizes.pop(), options.view_size, options.horizon,
        options.rate, appearance,
    )  # fmt: skip
    return RenderPlan(
        tuple(episodes), spec, cameras, options.cameras is None, options.episodes_per_shard, options.renderer,
        options.on_fault, options.unjudged,
    )  # fmt: skip


def _recorded(episodes: Sequence[Path]) -> Mapping[str, Camera]:
    """The calibrations that the first readable demo holds."""
    for folder in episodes:
        with contextlib.suppress(EpisodeError):  # it is named when it is rendered
            return RecordedCameras.of(folder).calibrated
    return {}
