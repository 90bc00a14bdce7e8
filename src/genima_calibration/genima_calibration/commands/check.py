"""``./genima calibrate check``: draw the robot model over camera images."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from genima.errors import GenimaError
from genima.io.files import require_writable
from genima.io.outputs import require_free
from genima.system.command_line import parse_options
from genima.system.ros_names import RosName
from genima.system.terminal import printable
from genima_calibration.commands.options import CellOptions
from genima_calibration.commands.robot import load_stationary_poses

if TYPE_CHECKING:  # OpenCV and SciPy are loaded after the arguments are parsed
    from genima.cameras.camera import Camera
    from genima.robot.model import RobotModel
    from genima.types import Image
    from genima_calibration.markerless import RobotImage
    from genima_calibration.pose_check import PoseCheck, PoseVerdict

_NAMED = 4  # pictures in the sheet


@dataclass
class Check(CellOptions):
    """Print the distance between the robot in images and in the calibration; exit code 1 when a camera has moved."""

    folder: tyro.conf.Positional[Path | None] = None
    """Demo (rosbag2), or folder of samples (NAME.png with NAME.yaml)."""
    live: bool = False
    """Instead check the running robot, by its topics cameras/VIEW/color/image_raw and joint_states."""
    calibration: str | None = None
    """Folder of camera calibrations, or its name in calibration/; default: those that the demo holds; for a folder of
    samples and with --live, those of --cell."""
    view: tuple[RosName, ...] = ()
    """Views to check; default: all calibrated views with images."""
    images: Annotated[int, Field(ge=1, le=1000)] = 5
    """Of a demo: how many of each camera."""
    out: Path | None = None
    """.png file for a picture with the robot's joints and outline drawn in."""
    overwrite: bool = False
    """Replace a picture that exists."""
    namespace: str = ""
    """With --live: of the robot's nodes."""
    dds: str = "shared_memory"
    """With --live: as in the robot's launch; two_machines where they are."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima calibrate check``."""
    options = parse_options(
        Check, "genima calibrate check", argv,
        "./genima calibrate check data/demos/push_button-100000 --calibration mine --out check.png",
    )  # fmt: skip
    if options.live == (options.folder is not None):
        raise GenimaError("give a demo or a folder of samples, or --live")
    if options.out:
        if options.out.suffix.lower() != ".png":
            raise GenimaError(f"--out {options.out}: the picture is a .png file")
        from genima.inspection.sheet import is_picture  # imported here and below: takes seconds

        require_free(options.out, "picture", options.overwrite, is_picture)
        require_writable(options.out)
    from genima.inspection.sheet import grid, write_picture
    from genima_calibration.pose_check import PoseVerdict

    robot, cameras = options.load_robot(options.folder), _cameras(options)
    wanted = options.view or tuple(cameras)
    if options.folder is None:
        from genima_calibration.snapshots import take_snapshots  # only here: it needs ROS

        photos = take_snapshots(wanted, robot, options.namespace, options.dds)
    else:
        photos = _recorded_images(options.folder, options.view, cameras, robot, options.images)
    verdicts: list[PoseVerdict] = []
    pictures: list[Image] = []
    for view, each in photos.items():
        checks, drawn = _check(cameras[view], robot, each, _NAMED if len(photos) == 1 else 1)
        verdicts.append(_print_verdict(view, checks))
        pictures += drawn
    if options.out:
        write_picture(options.out, grid(pictures))
        print(f"picture: {options.out}")
    return int(PoseVerdict.MOVED in verdicts)


def _cameras(options: Check) -> Mapping[str, Camera]:
    """Return the calibrations to check: those that are named, those of the demo, or those of the cell.

    Raises:
        GenimaError: when they are unknown, or have no calibration of a requested view.
    """
    from genima.cameras.calibration_file import load_cameras
    from genima.data.episodes.cameras import EpisodeCameras
    from genima.data.episodes.folders import is_demo

    source: str
    cameras: Mapping[str, Camera]
    if options.calibration is not None:
        source, cameras = options.calibration, load_cameras(options.calibration)
    elif options.folder is not None and is_demo(options.folder):
        source, cameras = str(options.folder), EpisodeCameras.of(options.folder).calibrated
        if not cameras:
            raise GenimaError(f"demo {options.folder}: its calibration is unknown; give --calibration FOLDER")
    elif options.named_cell is not None:
        source, cameras = f"cell {options.cell}", options.named_cell.load_cameras()
    else:
        raise GenimaError("calibration: unknown; give --cell, or --calibration FOLDER")
    if unknown := [view for view in options.view if view not in cameras]:
        raise GenimaError(f"{source} has no calibration of {', '.join(unknown)}; it has {', '.join(cameras)}")
    return cameras


def _check(
    camera: Camera, robot: RobotModel, photos: Sequence[RobotImage], pictures: int
) -> tuple[list[PoseCheck], list[Image]]:
    """Check all images of one view; return some of them with the robot drawn in."""
    from tqdm import tqdm

    from genima_calibration.pose_check import CalibrationChecker
    from genima_calibration.robot_overlay import draw_check

    height, width = photos[0].image.shape[:2]
    checker = CalibrationChecker.for_images(camera, robot, width, height)
    try:
        checks = [
            checker.check(photo.image, photo.joints)
            for photo in tqdm(photos, desc=camera.view, unit="image", disable=None, leave=False)
        ]
        drawn = [
            draw_check(checker, robot, photo.image, photo.joints, checked)
            for photo, checked in list(zip(photos, checks, strict=True))[:pictures]
        ]
    finally:
        checker.close()
    return checks, drawn


def _print_verdict(view: str, checks: Sequence[PoseCheck]) -> PoseVerdict:
    """Print the verdict of most images."""
    import numpy as np

    from genima_calibration.pose_check import PoseVerdict

    decided = [checked for checked in checks if checked.verdict is not PoseVerdict.UNKNOWN]
    if not decided:
        print(printable(f"{view:<16}unknown   {checks[0].reason}"))
        return PoseVerdict.UNKNOWN
    moved = [checked for checked in decided if checked.verdict is PoseVerdict.MOVED]
    verdict = PoseVerdict.MOVED if 2 * len(moved) > len(decided) else PoseVerdict.FINE
    agreeing = [checked for checked in decided if checked.verdict is verdict]
    pixels, uncertain, share = (
        float(np.median([getattr(checked, name) for checked in agreeing])) for name in ("pixels", "uncertain", "share")
    )
    print(
        f"{view:<16}{verdict.value:<10}{pixels:.1f} +- {uncertain:.1f} px off, {share:.0%} of the outline found, "
        f"in {len(agreeing)} of {len(checks)} images"
        + (": it has moved since it was calibrated, calibrate again" if verdict is PoseVerdict.MOVED else "")
    )
    return verdict


def _recorded_images(
    folder: Path, views: Sequence[str], cameras: Mapping[str, Camera], robot: RobotModel, most: int
) -> Mapping[str, Sequence[RobotImage]]:
    """Return recorded images by view."""
    import numpy as np

    from genima.data.episodes import Episode
    from genima.data.episodes.bag import BagReader, view_of
    from genima.data.episodes.folders import is_demo
    from genima.types import Joints
    from genima_calibration.markerless import RobotImage

    if not is_demo(folder):
        samples = load_stationary_poses(folder, "", robot, most)
        view = samples[0].view
        if view not in (views or cameras):
            raise GenimaError(f"samples {folder}: of {view}, which is not asked for or not calibrated; correct --view")
        return {view: [RobotImage.of(sample, robot) for sample in samples]}
    with BagReader(folder) as bag:
        recorded = {view_of(topic) for topic in bag.types}
    wanted = views or [view for view in cameras if view in recorded]
    photos: dict[str, Sequence[RobotImage]] = {}
    with contextlib.suppress(GenimaError):  # images of an arm that moves may be of another moment than its joints
        for view in wanted:
            photos[view] = [RobotImage.of(sample, robot) for sample in load_stationary_poses(folder, view, robot, most)]
    if photos and len(photos) == len(wanted):
        return photos
    demo = Episode.load(folder, robot, views or None)
    moments = np.linspace(0, len(demo) - 1, most + 2).astype(int)[1:-1]
    if not (there := [view for view in demo.views if view in cameras]):
        raise GenimaError(f"{folder} has images of {', '.join(demo.views)}, of which none is calibrated")
    print(f"the arm rests too little in {folder}: images of the moving arm are taken, which may lag behind the joints")
    return {
        view: [
            RobotImage(f"{view} {t}", demo.image(view, t), Joints(0.0, demo.positions[t], float(demo.gripper[t])))
            for t in moments
        ]
        for view in there
    }
