"""``./genima calibrate FOLDER``: a camera's calibration from recorded images of a board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from tqdm import tqdm

from genima import paths
from genima.errors import GenimaError
from genima.files import require_writable
from genima.handeye import Board, Calibration, Frames, Sample, calibrate, calibration
from genima.handeye.bag import BagSamples
from genima.handeye.easy_handeye2 import Calib, Parameters
from genima.handeye.folder import CameraInfo, load_samples, sample_names
from genima.handeye.outliers import robust_start
from genima.handeye.quality import require_enough
from genima.handeye.report import report
from genima.handeye.samples import Parent, stack
from genima.robot.model import RobotModel


@dataclass
class Offline:
    """Find where a camera is from a demo in which the arm rested in many poses, or from a folder of samples."""

    folder: tyro.conf.Positional[Path]
    """Demo (rosbag2) with images, camera_info and joint_states, or folder of samples (NAME.png with NAME.yaml)."""
    view: str = ""
    """Which camera; a folder of samples says so itself."""
    board: Path | None = None
    """YAML file of the board; without it calibration/boards/charuco_7x5_a4.yaml."""
    parent: Literal["base", "flange"] | None = None
    """What carries the camera; without it what fits the samples."""
    robot: str = "panda"
    """Robot model: a name in config/robots or a YAML file."""
    out: Path = Path("calibration/mine")
    """Folder for VIEW.yaml; one that is there is kept, with a date to its name."""
    refine_intrinsics: bool = False
    """Also estimate focal lengths, principal point and distortion; needs 20 or more samples all over the image."""
    max_samples: int = 30
    """Of a demo: so many poses, far from each other, are taken."""
    easy_handeye2: Path | None = None
    """Also write the pose as a .calib file of easy_handeye2."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima calibrate FOLDER``."""
    options = tyro.cli(Offline, prog="genima calibrate", args=list(argv))
    if options.max_samples < 1:
        raise GenimaError(f"--max-samples {options.max_samples}: give a number of samples")
    robot = RobotModel.load(options.robot)
    board = Board.load(options.board or paths.shared("calibration", "boards", "charuco_7x5_a4.yaml"))
    view, info, samples, unseen = _detect(options, board, robot)
    file = options.out / f"{view}.yaml"
    for path in filter(None, (file, options.easy_handeye2)):
        require_writable(path)
    for name, why in unseen.items():
        print(f"{name} is left out: {why}")
    require_enough(len(samples))
    parent = options.parent or _likely_parent(samples, info, robot)
    _require_as_before(file, parent)
    outcome = calibrate(samples, board, info.intrinsics, robot, parent, options.refine_intrinsics)
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    result = calibration(outcome, view, board, date, Frames.of(robot, parent, info.frame_id))
    print(*report(outcome, result, board), sep="\n")
    former = file.exists()
    result.save(options.out)
    print(f"{file} is written{'; the former one is kept beside it' if former else ''}")
    if options.easy_handeye2:
        easy_handeye2(result, robot).save(options.easy_handeye2)
        print(f"{options.easy_handeye2} is written; easy_handeye2 reads it in ~/.ros2/easy_handeye2/calibrations")
    return 0


def easy_handeye2(result: Calibration, robot: RobotModel) -> Calib:
    """A calibration as easy_handeye2 has it: of the optical frame itself, on the base or the flange."""
    camera, frames = result.camera, result.frames or Frames.of(robot, result.camera.parent, result.camera.view)
    parameters = Parameters(
        camera.view,
        "eye_on_base" if camera.parent == "base" else "eye_in_hand",
        Frames.of(robot, "base", "").parent,
        Frames.of(robot, "flange", "").parent,
        frames.camera,
        "board",
    )
    return Calib.of(parameters, camera.T_parent_camera, np.eye(4), np.eye(4))


def _detect(
    options: Offline, board: Board, robot: RobotModel
) -> tuple[str, CameraInfo, list[Sample], dict[str, str]]:
    """View, camera, the samples in which the board is seen, and why it is not in others."""
    known = {path.stem for path in options.out.glob("*.yaml")}
    if (options.folder / "metadata.yaml").exists():
        if not options.view:
            raise GenimaError("--view is missing: which of the demo's cameras is to be calibrated?")
        bag = BagSamples.find(options.folder, options.view, robot, options.max_samples)
        if not len(bag):
            raise GenimaError(
                f"in {options.folder} the arm never rests: hold it still for half a second in each of 15 poses"
            )
        raw, count, known = iter(bag), len(bag), known | set(bag.views)
    else:
        names = sample_names(options.folder)
        raw, count = load_samples(options.folder, names), len(names)
    samples, unseen = list[Sample](), dict[str, str]()
    for sample in tqdm(raw, desc="detect", unit="image", total=count, dynamic_ncols=True, disable=None):
        if options.view not in ("", sample.view):
            raise GenimaError(f"{options.folder} holds samples of {sample.view}, not of {options.view}")
        view, info = sample.view, sample.info
        info.require_view(view, known)
        _ = sample.positions(robot), info.intrinsics  # what is wrong with these is wrong with all
        try:
            samples.append(sample.detected(board, robot))
        except GenimaError as error:
            unseen[sample.name] = str(error)
    if not samples:
        name, why = next(iter(unseen.items()))
        raise GenimaError(f"the board is found in none of {count} images of {options.folder}; in {name}: {why}")
    return view, info, samples, unseen


def _likely_parent(samples: Sequence[Sample], info: CameraInfo, robot: RobotModel) -> Parent:
    taken = stack(samples, info.intrinsics, robot)
    parents: tuple[Parent, Parent] = ("base", "flange")
    return min(parents, key=lambda parent: robust_start(taken, parent).misfit)


def _require_as_before(file: Path, parent: Parent) -> None:
    """Raise a GenimaError where a former calibration has the camera on something else."""
    try:
        before = Calibration.load(file).camera.parent
    except GenimaError:  # there is none, or a damaged one, which is kept beside the new one
        return
    if before != parent:
        raise GenimaError(
            f"{file} has {file.stem} on the {before}, but in these samples it is on the {parent}: are two cameras' "
            "names swapped? If it was mounted elsewhere, remove that file first"
        )
