"""``./genima calibrate FOLDER``: calibration of a camera from recorded images of a board."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import Field

from genima.errors import GenimaError
from genima.io import paths
from genima.io.files import backup, require_writable
from genima.system.command_line import parse_options
from genima.system.ros_names import RosName
from genima.system.terminal import printable
from genima_calibration.commands.options import RobotOptions

if TYPE_CHECKING:  # OpenCV and SciPy are loaded after the arguments are parsed
    from genima.cameras.calibration_board import CalibrationBoard
    from genima.cameras.calibration_file import CameraCalibration
    from genima.cameras.camera import Parent
    from genima.robot.model import RobotModel
    from genima_calibration.easy_handeye2 import Calib
    from genima_calibration.sample_folder import CameraInfo, RawSample
    from genima_calibration.samples import Sample

_MAX_FOREIGN = 3  # markers that are not on the board: as many may be false detections


@dataclass
class Offline(RobotOptions):
    """Calibrate a camera from a demo with many stationary poses, or from a folder of samples."""

    folder: tyro.conf.Positional[Path]
    """Demo (rosbag2) with images, camera_info and joint_states, or folder of samples (NAME.png with NAME.yaml)."""
    view: RosName | None = None
    """View of the camera; a folder of samples defines it."""
    board: Path | None = None
    """YAML file of the board; without it calibration/boards/charuco_7x5_a4.yaml."""
    parent: Literal["base", "flange"] | None = None
    """Mount of the camera; default: the one that fits the samples."""
    out: Path = Path("calibration/mine")
    """Folder for VIEW.yaml; one that is there is kept, with a date to its name."""
    refine_intrinsics: bool = False
    """Also estimate focal lengths, principal point and distortion; needs 20 or more samples all over the image."""
    max_samples: Annotated[int, Field(ge=5, le=1000)] = 30
    """Of a demo: so many poses, far from each other, are taken."""
    easy_handeye2: Path | None = None
    """Also write the pose as a .calib file of easy_handeye2; one that is there is kept, with a date to its name."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima calibrate FOLDER``."""
    options = parse_options(
        Offline, "genima calibrate", argv, "./genima calibrate data/demos/board --view front --cell mine.yaml"
    )
    from genima.cameras.calibration_board import CalibrationBoard
    from genima.cameras.calibration_file import Frames
    from genima_calibration.board_detection import detected_board
    from genima_calibration.hand_eye import calibrate, calibration
    from genima_calibration.quality import require_enough
    from genima_calibration.report import format_report

    robot = options.load_robot(options.folder)
    board = CalibrationBoard.load(options.board or paths.shared("calibration", "boards", "charuco_7x5_a4.yaml"))
    view, info, samples, unseen = _detect(options, board, robot)
    file = options.out / f"{view}.yaml"
    for path in filter(None, (file, options.easy_handeye2)):
        require_writable(path)
    _require_calib(options.easy_handeye2)
    for name, why in unseen.items():
        print(printable(f"{name} is left out: {why}"))
    require_enough(len(samples))
    described, board = board, detected_board(board, (sample.detection for sample in samples))
    parent = options.parent or _likely_parent(samples, info, robot)
    _require_same_parent(file, parent)
    outcome = calibrate(samples, board, info.intrinsics, robot, parent, options.refine_intrinsics)
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    result = calibration(
        outcome, view, board, date,
        Frames.of(robot, parent, info.frame_id, options.base_frame, options.flange_frame),
    )  # fmt: skip
    for line in format_report(outcome, result, described):
        print(printable(line))
    former = file.exists()
    result.save(options.out)
    print(f"{file} is written{'; the former one is kept, with a date to its name' if former else ''}")
    if options.easy_handeye2:
        backup(options.easy_handeye2)
        easy_handeye2(result, robot, options).save(options.easy_handeye2)
        print(f"{options.easy_handeye2} is written; easy_handeye2 reads it in ~/.ros2/easy_handeye2/calibrations")
    return 0


def easy_handeye2(result: CameraCalibration, robot: RobotModel, frames: RobotOptions) -> Calib:
    """Return a calibration as easy_handeye2's: of the optical frame, on the base or the flange."""
    import numpy as np

    from genima.cameras.calibration_file import Frames
    from genima_calibration.easy_handeye2 import Calib, Parameters

    camera = result.camera
    base, flange = (
        Frames.of(robot, parent, "", frames.base_frame, frames.flange_frame).parent for parent in ("base", "flange")
    )
    parameters = Parameters(
        name=camera.view,
        calibration_type="eye_on_base" if camera.parent == "base" else "eye_in_hand",
        robot_base_frame=base,
        robot_effector_frame=flange,
        tracking_base_frame=result.frames.camera if result.frames else camera.view,
        tracking_marker_frame="board",
    )
    return Calib.of(parameters, camera.T_parent_camera, np.eye(4), np.eye(4))


def _require_calib(path: Path | None) -> None:
    """Raise a GenimaError where another file than a calibration of easy_handeye2 exists."""
    from genima_calibration.easy_handeye2 import Calib

    if path is not None and path.exists():
        try:
            Calib.load(path)
        except GenimaError as error:
            raise GenimaError(f"--easy-handeye2 {path}: exists and is no such file ({error}); name another") from None


def _detect(
    options: Offline, board: CalibrationBoard, robot: RobotModel
) -> tuple[str, CameraInfo, list[Sample], dict[str, str]]:
    """Return view, camera, samples with a detected board, and the reasons for the others."""
    from tqdm import tqdm

    from genima.cameras.calibration_file import calibration_files
    from genima.data.episodes.folders import is_demo
    from genima_calibration.bag_samples import BagSamples
    from genima_calibration.detection_diagnosis import diagnose
    from genima_calibration.sample_folder import load_samples, sample_names

    known = {path.stem for path in calibration_files(options.out)}
    raw: Iterable[RawSample]
    if is_demo(options.folder):
        if not options.view:
            raise GenimaError("--view: missing; name one of the demo's cameras")
        bag = BagSamples.find(options.folder, options.view, robot, options.max_samples)
        if not len(bag):
            raise GenimaError(
                f"demo {options.folder}: the arm never rests; hold it still for half a second in each of 15 poses"
            )
        raw, count, known = bag, len(bag), known | set(bag.views)
    else:
        names = sample_names(options.folder)
        raw, count = load_samples(options.folder, names), len(names)
    samples: list[Sample] = []
    unseen: dict[str, str] = {}
    first_unseen: RawSample | None = None
    first_foreign: RawSample | None = None
    for sample in tqdm(raw, desc="detect", unit="image", total=count, dynamic_ncols=True, disable=None):
        if options.view not in (None, sample.view):
            raise GenimaError(f"samples {options.folder}: of {sample.view}, not of {options.view}; correct --view")
        view, info = sample.view, sample.info
        info.require_view(view, known)
        _ = sample.positions(robot), info.intrinsics  # what is wrong with these is wrong with all
        try:
            samples.append(sample.detected(board, robot))
            if samples[-1].detection.foreign_markers > _MAX_FOREIGN:
                first_foreign = first_foreign or sample
        except GenimaError as error:
            unseen[sample.name] = str(error)
            first_unseen = first_unseen or sample
    if first_unseen is not None and len(samples) < len(unseen):
        why = f"{unseen[first_unseen.name]}; {diagnose(first_unseen.image, board)}".removesuffix("; ")
        unseen[first_unseen.name] = why
        if not samples:
            raise GenimaError(
                f"samples {options.folder}: board not detected in any of {count} images; in {first_unseen.name}: {why}"
            )
    with_foreign = sum(sample.detection.foreign_markers > _MAX_FOREIGN for sample in samples)
    if first_foreign is not None and 2 * with_foreign > count:
        diagnosis = diagnose(first_foreign.image, board)
        print(printable(f"note: most images have markers that are not on the board; {diagnosis}"))
    return view, info, samples, unseen


def _likely_parent(samples: Sequence[Sample], info: CameraInfo, robot: RobotModel) -> Parent:
    from genima_calibration.outliers import robust_start
    from genima_calibration.samples import stack_samples

    taken = stack_samples(samples, info.intrinsics, robot)
    parents: tuple[Parent, Parent] = ("base", "flange")
    return min(parents, key=lambda parent: robust_start(taken, parent).misfit)


def _require_same_parent(file: Path, parent: Parent) -> None:
    """Raise a GenimaError if a former calibration has the camera on the other parent."""
    from genima.cameras.calibration_file import CameraCalibration

    try:
        before = CameraCalibration.load(file).camera.parent
    except GenimaError:  # missing, or damaged: such a file is kept, with a date to its name
        return
    if before != parent:
        raise GenimaError(
            f"{file}: {file.stem} on the {before}, but on the {parent} in these samples; check that two cameras' names "
            "are not swapped; if the camera was mounted elsewhere, remove that file first"
        )
