"""``./genima calibrate import``: convert a calibration of easy_handeye2, or of easy_handeye for ROS 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import tyro

from genima.errors import GenimaError
from genima.system.command_line import parse_options
from genima.system.ros_names import RosName
from genima.system.terminal import printable
from genima_calibration.commands.options import RobotOptions

if TYPE_CHECKING:  # OpenCV and SciPy are loaded after the arguments are parsed
    from genima.robot.model import RobotModel
    from genima_calibration.sample_folder import CameraInfo

# As `ros2 run tf2_ros tf2_echo PARENT CHILD` prints it: metres, and roll, pitch, yaw in degrees.
Transform: TypeAlias = Annotated[
    tuple[float, float, float, float, float, float] | None, tyro.conf.arg(metavar="X Y Z ROLL PITCH YAW")
]


@dataclass
class Import(RobotOptions):
    """Convert a calibration of easy_handeye2 or easy_handeye (ROS 1); intrinsics are read from images."""

    file: tyro.conf.Positional[Path]
    """.calib file, usually of ~/.ros2/easy_handeye2/calibrations; or .yaml file of ~/.ros/easy_handeye."""
    view: RosName
    """View of the camera."""
    lens: Path
    """Demo, or folder of samples, of the same camera at the same resolution: with its camera_info."""
    optical: Transform = None
    """The optical frame in the file's tracking_base_frame (m, deg); needed unless that is the optical frame itself."""
    effector: Transform = None
    """The file's robot_effector_frame on the flange (m, deg); needed for a camera on it, unless that is the flange."""
    base: Transform = None
    """The file's robot_base_frame on the robot's base (m, deg); needed for a camera on it, unless that is the base."""
    out: Path = Path("calibration/mine")
    """Folder for VIEW.yaml; one that is there is kept, with a date to its name."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima calibrate import``."""
    options = parse_options(
        Import, "genima calibrate import", argv,
        "./genima calibrate import front.calib --view front --lens data/demos/board --cell mine.yaml",
    )  # fmt: skip
    from genima.cameras.calibration_file import CameraCalibration, Frames
    from genima.cameras.plausibility import require_plausible, view_doubt, view_problem
    from genima_calibration.easy_handeye2 import Calib

    robot, calib = options.load_robot(options.lens), Calib.load(options.file)
    info, parameters = _camera_info(options, robot), calib.parameters
    base, flange = (
        Frames.of(robot, parent, "", options.base_frame, options.flange_frame).parent for parent in ("base", "flange")
    )
    if calib.parent == "base":
        base = _own_name(parameters.robot_base_frame, base, options.base_frame)
        T_parent_robot = _fixed(options.base, "--base", base, parameters.robot_base_frame)
    else:
        flange = _own_name(parameters.robot_effector_frame, flange, options.flange_frame)
        T_parent_robot = _fixed(options.effector, "--effector", flange, parameters.robot_effector_frame)
    T_tracking_optical = _fixed(options.optical, "--optical", parameters.tracking_base_frame, info.frame_id)
    frames = Frames.of(robot, calib.parent, info.frame_id, base, flange)
    date = datetime.fromtimestamp(options.file.stat().st_mtime).astimezone().isoformat(timespec="seconds")
    T = T_parent_robot @ calib.T_robot_tracking @ T_tracking_optical
    camera = info.intrinsics.camera(options.view, calib.parent, T)
    require_plausible(camera, f"{options.file} as the view {options.view}")
    path = CameraCalibration(camera, frames, date, "easy_handeye2").save(options.out)
    print(f"{path} is written; its accuracy is unknown; ./genima calibrate check shows whether it fits")
    if problem := view_problem(camera, robot) or view_doubt(camera, robot):
        print(printable(f"WARNING: {options.view}: {problem}"))
    return 0


def _own_name(theirs: str, usual: str, given: str) -> str:
    """Return the robot model's frame for a frame with the prefix of a namespaced robot."""
    return theirs if not given and theirs.endswith(f"_{usual}") else usual


def _camera_info(options: Import, robot: RobotModel) -> CameraInfo:
    from genima.data.episodes.folders import is_demo
    from genima_calibration.bag_samples import BagSamples
    from genima_calibration.sample_folder import load_samples, sample_names

    if is_demo(options.lens):
        return BagSamples.find(options.lens, options.view, robot, 1).info
    sample = next(load_samples(options.lens, sample_names(options.lens)))
    if sample.view != options.view:
        raise GenimaError(f"samples {options.lens}: of {sample.view}, not of {options.view}; correct --view")
    return sample.info


def _fixed(given: Transform, option: str, parent: str, child: str) -> Any:
    """Return the fixed pose (4, 4) of one frame in another."""
    import numpy as np
    from scipy.spatial.transform import Rotation

    from genima.robot.rigid_transforms import pose

    if given is None:
        if parent != child:
            raise GenimaError(
                f"{option} is missing; give the pose of {child or 'the other frame'} in {parent}, as printed by `ros2 "
                f"run tf2_ros tf2_echo {parent} {child}`; for one frame with two names, {option} 0 0 0 0 0 0"
            )
        return np.eye(4)
    return pose(Rotation.from_euler("xyz", given[3:], degrees=True).as_matrix(), np.array(given[:3]))
