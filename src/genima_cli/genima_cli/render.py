"""``./genima render``: render demos to a dataset of drawn targets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from genima.errors import GenimaError
from genima.system.command_line import Workers, parse_options
from genima.system.terminal import printable
from genima_cli.episodes.robot_option import DemoRobot

if TYPE_CHECKING:
    from genima.cameras.camera import Camera
    from genima.data.datasets.render import RenderPlan
    from genima.robot.model import RobotModel


@dataclass
class Render(DemoRobot):
    """Render the target spheres of every sample of every demo, with the observations, to parquet shards.

    Shards that are there already are kept: interrupted, the same command resumes. On several machines that share the
    folder, run it on each with its --rank of --machines.
    """

    demos: Annotated[tuple[Path, ...], Field(min_length=1)] = (Path("data/demos"),)
    """Folders of demos (rosbag2)."""
    out: Path = Path("data/targets")
    """Folder of the dataset."""
    cameras: Path | None = None
    """Folder of camera calibrations, or its name in calibration/; without it those that the demos hold, which must be
    the same in all."""
    views: tuple[str, ...] = ("wrist", "front", "right_shoulder", "left_shoulder")
    """One to six views in tile order, row by row."""
    virtual: bool = False
    """Render one more view without a camera: the robot alone in its measured state."""
    view_size: Annotated[int, Field(ge=16, le=2048, multiple_of=4)] = 256
    """Side of a view in px; a multiple of 4, as the networks need."""
    horizon: Annotated[int, Field(ge=1, le=1000)] = 20
    """Steps from an observation to its target."""
    rate: Annotated[float, Field(gt=0, le=1000)] = 20.0
    """The demos' rate in Hz."""
    appearance: str = "wide_stripes"
    """The spheres' look: wide_stripes, genima_release (the stripes of the authors' code), no_stripes (an ablation
    of the paper), or a YAML file."""
    renderer: Literal["pyrender", "raycast"] = "raycast"
    """Renderer of the spheres: exact, or meshes as in the paper; they differ in single pixels at borders."""
    images: Literal["jpeg", "png"] = "jpeg"
    """Format of the observations: jpeg (quality 95, full chroma) or png, without loss and twice as large or more."""
    on_fault: Literal["skip", "refuse"] = "skip"
    """Leave out a demo with a fault, or end the command."""
    unjudged: Literal["skip", "keep"] = "skip"
    """Skip or keep demos that are not judged (no /success)."""
    episodes_per_shard: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Demos in one shard."""
    processes: Workers = os.cpu_count() or 1
    """Processes on this machine."""
    rank: Annotated[int, Field(ge=0)] = 0
    """Which of the machines this is."""
    machines: Annotated[int, Field(ge=1, le=10_000)] = 1
    """How many machines share the work."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima render``."""
    example = "./genima render --demos data/demos --out data/targets --cameras calibration/mine"
    options = parse_options(Render, "genima render", argv, example)
    if options.rank >= options.machines:
        raise GenimaError(f"--rank {options.rank} is not one of 0 to {options.machines - 1} (--machines)")
    from genima.data.datasets.render import render  # imported here and below: takes seconds
    from genima.data.episodes import find_episodes

    episodes = sorted({path for folder in options.demos for path in find_episodes(folder)})
    summary = render(make_plan(options, episodes), options.out, options.processes, options.rank, options.machines)
    print(f"{printable(options.out)}: {summary}")
    if summary.missing:
        print(f"{summary.missing} shards are still to come from other machines; the last one to finish completes it")
    return 0


def make_plan(options: Render, episodes: Sequence[Path]) -> RenderPlan:
    """Return the rendering plan for these episodes, of the robot of the first one.

    Raises:
        GenimaError: for a robot that is not in config/robots, unknown views, views without a calibration, cameras of
            different sizes, two demos of one name and a bad appearance file.
    """
    from genima.cameras.calibration_file import load_cameras
    from genima.cameras.camera import VIRTUAL
    from genima.cameras.tiling import require_views
    from genima.cameras.virtual_view import virtual_camera
    from genima.data.datasets.render import RenderPlan
    from genima.data.episodes.robot import load_common_robot
    from genima.policy.spec import PolicySpec  # imported here: --help must be quick
    from genima.targets import Appearance

    names = [folder.name for folder in episodes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise GenimaError(f"demos: two are called {twice[0]}; rename one, as the dataset identifies them by name")
    robot = _known_robot(load_common_robot(episodes, options.default_robot()))
    require_views(options.views, "--views")
    wanted = (*options.views, *([VIRTUAL] if options.virtual and VIRTUAL not in options.views else []))
    real = [view for view in wanted if view != VIRTUAL]
    known = load_cameras(options.cameras) if options.cameras is not None else _recorded(episodes, real)
    every = {**known, VIRTUAL: virtual_camera()}
    if unknown := [view for view in real if view not in every]:
        held = ", ".join(known) or "none"
        where = f"the demos hold {held}; give" if options.cameras is None else f"{options.cameras} has {held}; choose"
        raise GenimaError(f"no camera calibration of view {', '.join(unknown)}: {where} --cameras FOLDER")
    appearance = Appearance.load(options.appearance)
    if unknown := [view for view in wanted if view not in appearance.radii]:
        raise GenimaError(f"the appearance has no sphere radius for view {', '.join(unknown)}")
    appearance.require_frames(robot)
    cameras: dict[str, Camera] = {view: every[view] for view in wanted}
    sizes = {(camera.width, camera.height) for view, camera in cameras.items() if view != VIRTUAL}
    if len(sizes) != 1:
        raise GenimaError(f"the cameras' images differ in size: {', '.join(f'{w}x{h}' for w, h in sorted(sizes))}")
    spec = PolicySpec(
        robot.name, robot.joint_names, tuple(options.views), sizes.pop(), options.view_size, options.horizon,
        options.rate, appearance,
    )  # fmt: skip
    return RenderPlan(
        tuple(episodes), spec, cameras, options.cameras is None, options.episodes_per_shard, options.renderer,
        options.on_fault, options.unjudged, options.images,
    )  # fmt: skip


def _known_robot(recorded: RobotModel) -> RobotModel:
    """Return the robot model of config/robots, where trainings and checkpoints find it, that demos were recorded with.

    Raises:
        GenimaError: where it is not there, or has other kinematics.
    """
    from genima.robot.model import RobotModel

    try:
        robot = RobotModel.load(recorded.name)
    except GenimaError:
        raise GenimaError(
            f"robot {recorded.name} of the demos: not in config/robots; put its file there as {recorded.name}.yaml"
        ) from None
    if not robot.has_kinematics(recorded):
        raise GenimaError(
            f"robot {recorded.name} of the demos: the one in config/robots has other joints or kinematics; put the "
            "file that they were recorded with there under a name of its own"
        )
    return robot


def _recorded(episodes: Sequence[Path], views: Sequence[str]) -> Mapping[str, Camera]:
    """Return the calibrations that the first demo with all of the ``views`` holds; where none does, the first's."""
    from genima.data.episodes import EpisodeError
    from genima.data.episodes.cameras import EpisodeCameras

    first: Mapping[str, Camera] = {}
    for folder in episodes:
        try:
            found = EpisodeCameras.of(folder).calibrated
        except EpisodeError:  # it is named when it is rendered
            continue
        if set(views) <= set(found):
            return found
        first = first or found
    return first
