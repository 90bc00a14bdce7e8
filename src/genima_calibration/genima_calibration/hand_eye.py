"""Hand-eye calibration of a camera from samples, with checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.calibration_file import CameraCalibration, Frames, Residuals
from genima.cameras.camera import Parent
from genima.cameras.intrinsics import CameraIntrinsics
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose_distance
from genima_calibration.bundle_adjustment import CAMERA, Fit, FreeParameters, refine
from genima_calibration.closed_form import OPENCV, HandEye, misfit, solve_opencv
from genima_calibration.outliers import find_consistent, outlier_reasons, robust_start
from genima_calibration.quality import (
    MIN_SAMPLES,
    Quality,
    estimate_board_size,
    quality,
    require_agreement,
    require_certain,
    require_enough,
    require_parent,
    require_rotation,
    require_size,
)
from genima_calibration.samples import Sample, SampleStack, stack_samples

_METHOD = "bundle adjustment with noisy joints"
_SCALED_MISFIT = 0.5  # ratio of the misfit with free board scale, below which the board's size is wrong
_MIN_MISFIT = 1.5  # px: a smaller misfit needs no check of the board's size


@dataclass(frozen=True)
class HandEyeResult:
    """Result of a hand-eye calibration."""

    fit: Fit
    samples: SampleStack  # used samples
    outliers: Mapping[str, str]  # reason for each sample that was not used
    quality: Quality

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Return the covariance (6, 6) of the camera's twist in its own frame, m and rad, board size error included."""
        return self.fit.covariance[CAMERA, CAMERA] + self.quality.size.bias


def calibrate(
    samples: Sequence[Sample],
    board: CalibrationBoard,
    intrinsics: CameraIntrinsics,
    robot: RobotModel,
    parent: Parent,
    refine_intrinsics: bool = False,
) -> HandEyeResult:
    """Estimate the pose of a camera on ``parent`` from images of a board while the robot moved.

    Raises:
        GenimaError: for samples that do not determine the pose; names the remedy.
    """
    require_enough(len(samples))
    stack = stack_samples(samples, intrinsics, robot)
    require_rotation(stack, parent)
    start = robust_start(stack, parent)
    require_parent(start, robust_start(stack, "flange" if parent == "base" else "base"))
    resized = robust_start(stack, parent, free_scale=True)
    if start.misfit > _MIN_MISFIT and resized.misfit < _SCALED_MISFIT * start.misfit:
        fit, good = find_consistent(stack, resized, FreeParameters(scale=True))
        require_agreement(stack, fit, good)
        require_size(estimate_board_size(replace(fit, hand_eye=start.hand_eye), fit, board.square))
    fit, good = find_consistent(stack, start, FreeParameters(intrinsics=refine_intrinsics))
    require_agreement(stack, fit, good)
    used = stack.take(good)
    if len(used) < MIN_SAMPLES:
        raise GenimaError(f"samples: only {len(used)} are consistent; take at least {MIN_SAMPLES} consistent ones")
    require_rotation(used, parent)
    require_certain(fit)
    resized_fit = refine(used, fit.hand_eye, FreeParameters(scale=True, intrinsics=refine_intrinsics))
    size = estimate_board_size(fit, resized_fit, board.square)
    require_size(size)
    return HandEyeResult(fit, used, outlier_reasons(stack, fit, good), quality(used, fit, size))


def calibration(
    outcome: HandEyeResult, view: str, board: CalibrationBoard, date: str, frames: Frames | None = None
) -> CameraCalibration:
    """Return the result as a calibration file; ``date`` in ISO 8601."""
    fit, at = outcome.fit, outcome.fit.hand_eye
    turned = np.kron(np.eye(2), at.T_parent_camera[:3, :3])
    pixels, millimetres, degrees = np.sqrt(np.mean(np.square(list(outcome.quality.left_out.values())), axis=0)).tolist()
    return CameraCalibration(
        fit.intrinsics.camera(view, at.parent, at.T_parent_camera),
        frames,
        date,
        _METHOD + (", intrinsics refined" if fit.free.intrinsics else ""),
        Residuals(pixels, millimetres, degrees),
        turned @ outcome.covariance @ turned.T,
        board,
        outcome.samples.names,
        outcome.outliers,
    )


@dataclass(frozen=True)
class Comparison:
    """Result of one of OpenCV's solvers on the same samples."""

    misfit: float  # px, median of the samples' medians
    millimetres: float  # distance to this project's result
    degrees: float


def compare(outcome: HandEyeResult) -> Mapping[str, Comparison]:
    """Return the results of OpenCV's solvers by name, best fit first, without those that found no solution."""
    at = outcome.fit.hand_eye
    found: dict[str, Comparison] = {}
    for method in OPENCV:
        if hand_eye := solve_opencv(outcome.samples, at.parent, method):
            metres, angle = pose_distance(hand_eye.T_parent_camera, at.T_parent_camera)
            found[method] = Comparison(_misfit(hand_eye, outcome.samples), 1e3 * metres, float(np.degrees(angle)))
    return dict(sorted(found.items(), key=lambda item: item[1].misfit))


def _misfit(hand_eye: HandEye, samples: SampleStack) -> float:
    T = (hand_eye.T_parent_camera, hand_eye.T_carrier_board)
    off: NDArray[np.float64] = misfit(*T, np.array(1.0), samples, hand_eye.parent)
    return float(np.median(off))
