"""Calibration session of one camera: samples, stored at once, and their current result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

import numpy as np

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.calibration_file import CameraCalibration, Frames
from genima.cameras.camera import Parent
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose_distance
from genima.types import Image, Joints
from genima_calibration.board_detection import Detection, detected_board
from genima_calibration.detection_diagnosis import diagnose
from genima_calibration.hand_eye import HandEyeResult, calibrate, calibration
from genima_calibration.image_feedback import coverage
from genima_calibration.pose_selection import NextPose, next_pose, sample_candidates
from genima_calibration.sample_folder import (
    CameraInfo,
    RawSample,
    drop_sample,
    load_samples,
    present_samples,
    sample_exists,
    save_sample,
)
from genima_calibration.samples import Sample

_SAME_POSE = 0.01, np.radians(3.0)  # m and rad of the flange between poses that count as equal
_CANDIDATES, _REACH = 300, 0.4  # candidates for the next pose; rad around the samples' poses


@dataclass(frozen=True)
class Result:
    """Calibration of samples, or the reason why there is none."""

    samples: tuple[str, ...]  # their names
    text: str
    outcome: HandEyeResult | None = None
    calibration: CameraCalibration | None = None
    next_pose: NextPose | None = None


class Session:
    """Samples of one view in a folder. Any thread may read; one thread at a time may take and drop samples."""

    def __init__(
        self,
        folder: Path,
        view: str,
        parent: Parent,
        board: CalibrationBoard,
        robot: RobotModel,
        base_frame: str = "",
        flange_frame: str = "",
    ) -> None:
        """Continue with the folder's samples.

        Args:
            folder: of the samples; created with the first.
            view: of the camera.
            parent: of the camera.
            board: calibration board.
            robot: model of the robot.
            base_frame: name of the base in tf, if different from franka_description.
            flange_frame: name of the flange in tf, if different from franka_description.

        Raises:
            GenimaError: for an invalid frame name, samples of another view, robot or board, and damaged samples.
        """
        self.folder, self.view, self.parent, self.board, self.robot = folder, view, parent, board, robot
        self._parent_frame = Frames.of(robot, parent, "", base_frame, flange_frame).parent
        self.info: CameraInfo | None = None  # of the camera that took the samples; None before the first
        self._samples: dict[str, Sample] = {}  # never changed in place
        for raw in load_samples(folder, present_samples(folder)):
            if raw.view != view:
                raise GenimaError(f"{folder}: samples of view {raw.view}, not {view}; use a folder for each")
            try:
                self._samples[raw.name] = raw.detected(board, robot)
            except GenimaError as error:
                diagnosis = f"; {text}" if (text := diagnose(raw.image, board)) else ""
                raise GenimaError(
                    f"sample {raw.name} in {folder}: cannot be used ({error}{diagnosis}); remove it, or use another "
                    "folder"
                ) from None
            self.info = raw.info

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Samples in the order of their names."""
        return tuple(sample for _, sample in sorted(self._samples.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the samples."""
        return tuple(sorted(self._samples))

    @property
    def coverage(self) -> float:
        """Fraction 0..1 of the image covered by samples."""
        return coverage([s.detection for s in self.samples], self.info.intrinsics) if self.info else 0.0

    def require_camera(self, info: CameraInfo) -> None:
        """Raise a GenimaError for a camera other than that of the samples."""
        if self.info is not None and info != self.info:
            raise GenimaError(
                f"{self.folder}: samples of another camera or resolution (camera_info differs); use another folder"
            )

    def find_same_pose(self, joints: Joints) -> str | None:
        """Return the name of a sample with nearly the same pose; None without one."""
        T_base_flange = self.robot.link_poses(joints.positions)[-2]
        for name, sample in self._samples.items():
            metres, angle = pose_distance(T_base_flange, self.robot.link_poses(sample.joints)[-2])
            if metres < _SAME_POSE[0] and angle < _SAME_POSE[1]:
                return name
        return None

    def take(self, image: Image, info: CameraInfo, joints: Joints, detection: Detection) -> str:
        """Save and add a sample; return its name.

        Raises:
            GenimaError: for a camera other than that of earlier samples, and when it cannot be written.
        """
        self.require_camera(info)
        last = max((int(name) for name in self._samples if name.isdecimal()), default=0)
        name = next(name for i in count(last + 1) if not sample_exists(self.folder, name := f"{i:04d}"))
        by_name = self.robot.joints_by_name(joints.positions, self.robot.gripper_position(joints.gripper))
        save_sample(self.folder, RawSample(name, self.view, image, by_name, info))
        self.info = info
        self._samples = {**self._samples, name: Sample(name, joints.positions, detection)}
        return name

    def drop(self, name: str = "") -> str:
        """Remove a sample, by default the last one; return its name.

        Raises:
            GenimaError: when it does not exist.
        """
        if not self._samples:
            raise GenimaError("samples: none to drop")
        name = name or self.names[-1]
        if name not in self._samples:
            raise GenimaError(f"sample {name}: does not exist; there are {', '.join(self.names)}")
        drop_sample(self.folder, name)
        self._samples = {other: sample for other, sample in self._samples.items() if other != name}
        self.info = self.info if self._samples else None
        return name

    def compute(self, samples: Sequence[Sample], info: CameraInfo) -> Result:
        """Compute the result of some of this session's samples with a camera."""
        names = tuple(sample.name for sample in samples)
        try:
            board = detected_board(self.board, (sample.detection for sample in samples))
            outcome = calibrate(samples, board, info.intrinsics, self.robot, self.parent)
        except GenimaError as error:
            return Result(names, str(error))
        frames = Frames(self._parent_frame, info.frame_id)
        date = datetime.now().astimezone().isoformat(timespec="seconds")
        found = calibration(outcome, self.view, board, date, frames)
        assert found.sigma is not None and found.residuals is not None
        millimetres, degrees = found.sigma
        left = found.residuals
        text = (
            f"standard deviation {millimetres:.2f} mm and {degrees:.3f} deg, {len(outcome.samples)} samples; residuals "
            f"{left.pixels:.2f} px, {left.millimetres:.2f} mm, {left.degrees:.3f} deg"
        )
        if board.legacy_pattern and not self.board.legacy_pattern:
            text += "; board: legacy pattern detected, write legacy_pattern: true in its file"
        if problem := outcome.quality.size.problem:
            text += f"; WARNING: {problem}"
        for name, why in outcome.outliers.items():
            text += f"; {name} not used: {why}"
        try:
            candidates = sample_candidates(outcome.samples, _CANDIDATES, _REACH, seed=len(names))
            recommended = next_pose(outcome.samples, outcome.fit, board, candidates)
        except GenimaError:  # no recommendation; the samples are valid
            recommended = None
        return Result(names, text, outcome, found, recommended)
