"""``./genima calibrate import``: a calibration of easy_handeye2 as one of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.errors import GenimaError
from genima.handeye import Calibration, Frames
from genima.handeye.bag import BagSamples
from genima.handeye.easy_handeye2 import Calib
from genima.handeye.folder import CameraInfo, load_samples, sample_names
from genima.handeye.poses import pose
from genima.robot.model import RobotModel

# As `ros2 run tf2_ros tf2_echo PARENT CHILD` prints it: metres, and roll, pitch, yaw in degrees.
Transform: TypeAlias = Annotated[
    tuple[float, float, float, float, float, float] | None, tyro.conf.arg(metavar="X Y Z ROLL PITCH YAW")
]


@dataclass
class Import:
    """Write a .calib file of easy_handeye2 as a calibration of ours: the pose from there, the lens from images."""

    file: tyro.conf.Positional[Path]
    """.calib file, usually of ~/.ros2/easy_handeye2/calibrations."""
    view: str
    """Which camera."""
    lens: Path
    """Demo, or folder of samples, of the same camera at the same resolution: its camera_info tells the lens."""
    optical: Transform = None
    """The optical frame in the file's tracking_base_frame (m, deg); needed unless that is the optical frame itself."""
    effector: Transform = None
    """The file's robot_effector_frame on the flange (m, deg); needed for a camera on it, unless that is the flange."""
    robot: str = "panda"
    """Robot model: a name in config/robots or a YAML file."""
    out: Path = Path("calibration/mine")
    """Folder for VIEW.yaml; one that is there is kept, with a date to its name."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima calibrate import``."""
    options = tyro.cli(Import, prog="genima calibrate import", args=list(argv))
    robot, calib = RobotModel.load(options.robot), Calib.load(options.file)
    info, parameters = _camera_info(options, robot), calib.parameters
    base, flange = (Frames.of(robot, parent, "").parent for parent in ("base", "flange"))
    if calib.parent == "base" and parameters.robot_base_frame != base:
        raise GenimaError(f"{options.file} is on {parameters.robot_base_frame}, not on {base}, {robot.name}'s base")
    T_flange_effector = np.eye(4)
    if calib.parent == "flange":
        T_flange_effector = _fixed(options.effector, "--effector", flange, parameters.robot_effector_frame)
    T_tracking_optical = _fixed(options.optical, "--optical", parameters.tracking_base_frame, info.frame_id)
    T = calib.T_parent_camera(T_tracking_optical, T_flange_effector)
    frames = Frames.of(robot, calib.parent, info.frame_id)
    date = datetime.fromtimestamp(options.file.stat().st_mtime).astimezone().isoformat(timespec="seconds")
    camera = info.intrinsics.camera(options.view, calib.parent, T)
    path = Calibration(camera, frames, date, "easy_handeye2").save(options.out)
    print(f"{path} is written; how sure it is was not said: ./genima calibrate check shows whether it fits")
    return 0


def _camera_info(options: Import, robot: RobotModel) -> CameraInfo:
    if (options.lens / "metadata.yaml").exists():
        return BagSamples.find(options.lens, options.view, robot, 1).info
    sample = next(load_samples(options.lens, sample_names(options.lens)))
    if sample.view != options.view:
        raise GenimaError(f"{options.lens} holds samples of {sample.view}, not of {options.view}")
    return sample.info


def _fixed(given: Transform, option: str, parent: str, child: str) -> NDArray[np.float64]:
    """Where one frame is in another (4, 4)."""
    if given is None:
        if parent != child:
            raise GenimaError(
                f"{option} is missing: where is {child} in {parent}? `ros2 run tf2_ros tf2_echo {parent} {child}` tells"
            )
        return np.eye(4)
    return pose(Rotation.from_euler("xyz", given[3:], degrees=True).as_matrix(), np.array(given[:3]))
