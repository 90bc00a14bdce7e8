"""``./genima calibrate robot``: pose of a fixed camera without a board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import Field

from genima.errors import GenimaError
from genima.io.files import require_writable
from genima.system.command_line import parse_options
from genima.system.ros_names import RosName
from genima_calibration.commands.options import RobotOptions

if TYPE_CHECKING:  # OpenCV and SciPy are loaded after the arguments are parsed
    from genima.robot.model import RobotModel
    from genima_calibration.markerless import MarkerlessResult
    from genima_calibration.sample_folder import RawSample


@dataclass
class FromRobot(RobotOptions):
    """Calibrate a camera on the base without a board, from images of the arm at rest in three or more poses."""

    folder: tyro.conf.Positional[Path]
    """Demo (rosbag2) with images, camera_info and joint_states, or folder of samples (NAME.png with NAME.yaml)."""
    view: RosName | None = None
    """View of the camera; a folder of samples defines it."""
    guess: Path | None = None
    """Calibration of the camera that is right to about 10 cm and 10 deg, such as the former one; without it, upright
    cameras all around the robot are tried."""
    out: Path = Path("calibration/mine")
    """Folder for VIEW.yaml; one that is there is kept, with a date to its name."""
    images: Annotated[int, Field(ge=3, le=100)] = 8
    """Of a demo: so many poses, far from each other, are taken."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima calibrate robot``."""
    options = parse_options(
        FromRobot,
        "genima calibrate robot",
        argv,
        "./genima calibrate robot data/demos/poses --view front --cell mine.yaml",
    )
    from genima.cameras.calibration_file import CameraCalibration, Frames
    from genima_calibration.markerless import RobotImage, locate_camera, to_calibration

    robot = options.load_robot(options.folder)
    samples = load_stationary_poses(options.folder, options.view or "", robot, options.images)
    view, info = samples[0].view, samples[0].info
    if options.view not in (None, view):
        raise GenimaError(f"samples {options.folder}: of {view}, not of {options.view}; correct --view")
    photos = [RobotImage.of(sample, robot) for sample in samples]
    require_writable(options.out / f"{view}.yaml")
    guess = None
    if options.guess:
        camera = CameraCalibration.load(options.guess, view).camera
        if camera.parent != "base":
            raise GenimaError(
                f"--guess {options.guess}: camera on the flange, whose pose the robot's outline does not determine; "
                "calibrate it with a board"
            )
        guess = camera.T_parent_camera
    found = locate_camera(photos, info.intrinsics, robot, guess)
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    frames = Frames.of(robot, "base", info.frame_id, options.base_frame)
    result = to_calibration(found, view, info.intrinsics, date, frames)
    print(*_format_report(found, guess), sep="\n")
    print(f"{result.save(options.out)} is written; a board shows more: ./genima calibrate FOLDER")
    return 0


def load_stationary_poses(folder: Path, view: str, robot: RobotModel, most: int) -> list[RawSample]:
    """Return the stationary poses of a demo or a folder of samples.

    Raises:
        GenimaError: when there is none.
    """
    from genima.data.episodes.folders import is_demo
    from genima_calibration.bag_samples import BagSamples
    from genima_calibration.sample_folder import load_samples, sample_names

    if not is_demo(folder):
        return list(load_samples(folder, sample_names(folder)))
    if not view:
        raise GenimaError("--view: missing; name one of the demo's cameras")
    bag = BagSamples.find(folder, view, robot, most)
    if not len(bag):
        raise GenimaError(f"demo {folder}: the arm never rests; hold it still for half a second in each of 6 poses")
    return list(bag)


def _format_report(found: MarkerlessResult, guess: Any) -> list[str]:
    """Return the lines of a report; ``guess`` (4, 4) is the initial pose, or None."""
    import numpy as np

    from genima.robot.rigid_transforms import pose_distance

    metres, angle = found.sigma
    x, y, z = (float(value) for value in found.T_base_camera[:3, 3])
    lines = [
        f"T_base_camera: at {x:.4f}, {y:.4f}, {z:.4f} m; standard deviation {1e3 * metres:.1f} mm and "
        f"{np.degrees(angle):.2f} deg",
        f"{found.points} points of outlines, {found.found:.0%} of the visible ones, fit to {found.pixels:.1f} px",
    ]
    for name, (shift, turn) in zip(found.names, found.left_out, strict=True):
        lines.append(f"  without {name}: {1e3 * shift:.1f} mm, {np.degrees(turn):.2f} deg elsewhere")
    if guess is not None:
        shift, turn = pose_distance(found.T_base_camera, guess)
        lines.append(f"{1e3 * shift:.0f} mm and {np.degrees(turn):.1f} deg from the guess")
    return lines
