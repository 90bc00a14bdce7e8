"""Check hand-eye samples (number, rotation, parent, robot, board size) and measure their quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera import Parent
from genima.errors import GenimaError
from genima.robot.rigid_transforms import inverse, rotation_vector
from genima_calibration.bundle_adjustment import CAMERA, SCALE, Fit
from genima_calibration.outliers import InitialEstimate, check_samples, image_noise
from genima_calibration.samples import SampleStack

Array = NDArray[np.float64]

MIN_SAMPLES = 5  # three determine the poses, two more verify them
_SMALL_ROTATION = 10.0  # deg
_MIN_ROTATION, _ONE_AXIS = np.radians(3.0), np.radians(2.0)
_MAX_SIGMA = (5e-3, np.radians(0.5))  # m and rad, standard deviation of an accepted calibration
_MAX_JOINT_NOISE = np.radians(0.5)  # of joint readings
_MIN_AGREEMENT = 0.6  # fraction of the samples
_NOISE_RATIO, _NOISE_OFFSET = 2.0, 0.5  # limit of the pixel noise: times that of single images, plus px
_PARENT_RATIO, _PARENT_MISFIT = 3.0, 3.0  # ratio of the misfits of both parents; px
_MAX_SIZE_ERROR = 0.01  # of the board: more than errors of print and ruler
_MIN_SIZE_ERROR = 0.001  # of the board: accuracy of prints and rulers
_SIGNIFICANCE, _CHANCE = 4.0, 2.0  # standard deviations


@dataclass(frozen=True)
class BoardSize:
    """Estimated scale of the printed board relative to its file."""

    square: float  # m, in the board's file
    scale: float  # of the board: 1.005 is 0.5 % larger than in the file
    sigma: float  # standard deviation of the scale
    shift: Array  # (6,) twist in the camera's frame by the change of the size

    @property
    def problem(self) -> str:
        """Problem with the board's size and its remedy; empty if the size is within its uncertainty."""
        off = abs(self.scale - 1)
        if off <= max(_MIN_SIZE_ERROR, _SIGNIFICANCE * self.sigma):
            return ""
        measured = self.square * self.scale
        return (
            f"board: {off:.1%} {'larger' if self.scale > 1 else 'smaller'} than in its file (squares of "
            f"{1e3 * measured:.2f} +- {1e3 * self.square * self.sigma:.2f} mm, not {1e3 * self.square:.2f}); measure "
            f"the print over many squares, write square: {measured:.5f}, or the measured value, and the marker in the "
            "board's file; if the file is right, check the intrinsics and their resolution"
        )

    @property
    def bias(self) -> Array:
        """Contribution (6, 6) of a wrong size to the covariance of the camera's twist.

        The squared shift without the part explained by noise: zero up to two standard deviations.
        """
        share = max(0.0, 1 - (_CHANCE * self.sigma / max(abs(self.scale - 1), 1e-12)) ** 2)
        return share * np.outer(self.shift, self.shift)


@dataclass(frozen=True)
class Quality:
    """Quality measures of samples."""

    turns: Array  # (3,) deg, increasing: rotation of the flange across the worst, the middle and the best direction
    condition: float  # ratio of the camera's standard deviations in its worst and its best direction
    left_out: Mapping[str, tuple[float, float, float]]  # px, mm, deg of each used sample against the others
    size: BoardSize

    def advice(self) -> str:
        """Return the next steps as text; empty without any."""
        if self.size.problem:
            return self.size.problem
        if self.turns[0] < _SMALL_ROTATION:
            return f"rotate the flange more, about all axes (across one direction only {self.turns[0]:.0f} deg)"
        if self.condition > 10:
            return "one direction is much less certain than the others; take the recommended next pose"
        return ""


def quality(samples: SampleStack, fit: Fit, size: BoardSize) -> Quality:
    """Return the quality of a fit's samples for a board of that size."""
    each = check_samples(samples, fit, np.ones(len(samples), bool))
    left_out = dict(
        zip(samples.names, zip(each.pixels.tolist(), each.millimetres.tolist(), each.degrees.tolist(), strict=True),
            strict=True)
    )  # fmt: skip
    distance = float(np.median(samples.T_camera_board[:, 2, 3]))
    C = fit.covariance[CAMERA, CAMERA]
    as_lengths = np.diag([1.0] * 3 + [distance] * 3)
    variances = np.linalg.eigvalsh(as_lengths @ C @ as_lengths)
    turns, _ = flange_rotation(samples, fit.hand_eye.parent)
    return Quality(np.degrees(turns), float(np.sqrt(variances[-1] / variances[0])), left_out, size)


def flange_rotation(samples: SampleStack, parent: Parent) -> tuple[Array, Array]:
    """Return the flange's rotation across three directions (3,) rad, increasing, and these directions (3, 3) as rows.

    A rotation about an axis does not move points on the axis: the camera's position along a direction is determined by
    rotations about axes across it. Directions are in the base's frame for a camera on the base, else in the flange's.

    Source: Tsai and Lenz, A new technique for fully autonomous and efficient 3D robotics hand/eye calibration, IEEE
    Trans. Robotics and Automation 5(3), 1989, section IV.
    """
    R = samples.T_base_flange[:, :3, :3]
    if parent == "flange":
        R = np.swapaxes(R, 1, 2)
    i, j = np.triu_indices(len(R), 1)
    off = R[i] @ np.swapaxes(R[j], 1, 2) - np.eye(3)
    squared, directions = np.linalg.eigh((np.swapaxes(off, 1, 2) @ off).mean(0))
    return 2 * np.arcsin(np.clip(np.sqrt(np.maximum(squared, 0)) / 2, 0, 1)), directions.T


def require_enough(count: int) -> None:
    """Raise a GenimaError for too few samples."""
    if count < MIN_SAMPLES:
        raise GenimaError(
            f"samples: too few ({count}); take at least {MIN_SAMPLES}, better 15, from different directions"
        )


def require_rotation(samples: SampleStack, parent: Parent) -> None:
    """Raise a GenimaError if the flange does not rotate, or about one axis only."""
    turns, directions = flange_rotation(samples, parent)
    if turns[2] < _MIN_ROTATION:
        raise GenimaError(
            f"samples: the flange hardly rotates ({np.degrees(turns[2]):.1f} deg), and translations alone do not "
            "determine the pose; rotate it by 20 deg or more about two or more axes"
        )
    if turns[0] < _ONE_AXIS:
        axis, frame = np.round(directions[0], 2).tolist(), "base" if parent == "base" else "flange"
        raise GenimaError(
            f"samples: the flange rotates about one axis only ({axis} in the {frame}'s frame), which leaves the "
            "camera's position along it open; rotate it by 20 deg or more about another axis, too"
        )


def require_parent(asked: InitialEstimate, other: InitialEstimate) -> None:
    """Raise a GenimaError if the samples fit a camera on the other parent."""
    if asked.misfit > _PARENT_MISFIT and asked.misfit > _PARENT_RATIO * other.misfit:
        here, there = asked.hand_eye.parent, other.hand_eye.parent
        raise GenimaError(
            f"samples: of a camera on the {there} ({other.misfit:.1f} px), not on the {here} ({asked.misfit:.0f} px); "
            "check the camera's parent, and that two cameras' names are not swapped"
        )


def estimate_board_size(fit: Fit, resized: Fit, square: float) -> BoardSize:
    """Return the board's size from a fit with free scale and one with the given ``square`` in m."""
    T = inverse(fit.hand_eye.T_parent_camera) @ resized.hand_eye.T_parent_camera
    sigma = float(np.sqrt(resized.covariance[SCALE, SCALE]))
    return BoardSize(square, resized.scale, sigma, np.concatenate([T[:3, 3], rotation_vector(T[:3, :3])]))


def require_size(size: BoardSize) -> None:
    """Raise a GenimaError if the board's size differs from its file by more than printing explains."""
    if size.problem and abs(size.scale - 1) > _MAX_SIZE_ERROR:
        raise GenimaError(size.problem)


def require_agreement(samples: SampleStack, fit: Fit, good: NDArray[np.bool_]) -> None:
    """Raise a GenimaError if no poses of camera and board explain most of the samples (N,)."""
    is_noisy = fit.noise.pixels > _NOISE_RATIO * image_noise(samples) + _NOISE_OFFSET
    if good.mean() < _MIN_AGREEMENT or fit.noise.joints > _MAX_JOINT_NOISE or is_noisy:
        raise GenimaError(
            f"samples: not consistent ({good.sum()} of {len(good)} agree, with noise of "
            f"{np.degrees(fit.noise.joints):.2f} deg and {fit.noise.pixels:.1f} px); check that the joints are those "
            f"of {samples.robot.name} at the images' stamps, that the board is fixed, and the camera's intrinsics"
        )


def require_certain(fit: Fit) -> None:
    """Raise a GenimaError if a fit leaves the camera's pose uncertain."""
    C = fit.covariance[CAMERA, CAMERA]
    blocks = ((C[:3, :3], _MAX_SIGMA[0], 1e3, "mm"), (C[3:, 3:], _MAX_SIGMA[1], np.degrees(1.0), "deg"))
    for block, limit, unit, name in blocks:
        variances, directions = np.linalg.eigh(block)
        if not variances[-1] < limit**2:
            raise GenimaError(
                f"camera: pose uncertain by {unit * np.sqrt(variances[-1]):.1f} {name} along or about "
                f"{np.round(directions[:, -1], 2).tolist()} of its own frame; take more samples, from more directions "
                "and nearer to the board"
            )
