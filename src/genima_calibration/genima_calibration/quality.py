"""Checks of hand-eye samples (number, rotation, parent, robot, board size) and their quality."""

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

FEWEST = 5  # samples: three fix the poses, two more tell whether they are right
_LITTLE = 10.0  # deg
_STILL, _ONE_AXIS = np.radians(3.0), np.radians(2.0)
_BLIND = (5e-3, np.radians(0.5))  # m and rad, standard deviation: worse is no calibration
_WISHED = (1e-3, np.radians(0.1))  # m and rad, standard deviation
_SHAKY = np.radians(0.5)  # noise of joint readings that no arm has
_AGREE = 0.6  # of the samples
_BLURRED, _SHARP = 2.0, 0.5  # times what each image alone has, and px
_MUCH_BETTER, _BAD = 3.0, 3.0  # times, and px
_WRONG_SIZE = 0.01  # of the board: no print and no ruler is so far off
_NOTICEABLE = 0.001  # of the board: prints and rulers are no better
_CLEARLY, _CHANCE = 4.0, 2.0  # standard deviations


@dataclass(frozen=True)
class BoardSize:
    """Estimated scale of the printed board relative to its file."""

    square: float  # m, as the file says
    scale: float  # of the board: 1.005 is 0.5 % larger than said
    sigma: float  # standard deviation of the scale
    shift: Array  # (6,) twist in the camera's frame by which the size moves the camera

    @property
    def problem(self) -> str:
        """Return the problem with the board's size and its remedy; empty where it is within its uncertainty."""
        off = abs(self.scale - 1)
        if off <= max(_NOTICEABLE, _CLEARLY * self.sigma):
            return ""
        measured = self.square * self.scale
        return (
            f"the board is {off:.1%} {'larger' if self.scale > 1 else 'smaller'} than said: its squares are likely "
            f"{1e3 * measured:.2f} mm (+- {1e3 * self.square * self.sigma:.2f}), not {1e3 * self.square:.2f}. Measure "
            f"the print over many squares and write square: {measured:.5f}, or what you measure, and the marker "
            "likewise, in the board's file; if its file is right, the intrinsics are off or of another resolution"
        )

    @property
    def bias(self) -> Array:
        """Return (6, 6) to add to the covariance of the camera's twist for a wrong size.

        The shift's square without what chance explains of it: nothing up to two standard deviations.
        """
        share = max(0.0, 1 - (_CHANCE * self.sigma / max(abs(self.scale - 1), 1e-12)) ** 2)
        return share * np.outer(self.shift, self.shift)


@dataclass(frozen=True)
class Quality:
    """Quality measures of samples."""

    turns: Array  # (3,) deg, rising: how much the flange turns across the least, the middle and the best seen direction
    condition: float  # how much less sure the camera is in its worst direction than in its best
    left_out: Mapping[str, tuple[float, float, float]]  # px, mm, deg of each used sample against the others alone
    size: BoardSize

    def advice(self) -> str:
        """Return the next steps as text; empty without any."""
        if self.size.problem:
            return self.size.problem
        if self.turns[0] < _LITTLE:
            return f"turn the flange more, about all axes: across one direction it turns {self.turns[0]:.0f} deg only"
        if self.condition > 10:
            return "one direction is much less sure than the others: take the recommended next pose"
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
    """Return the flange's rotation about three axes (3,) rad, rising, and these axes (3, 3) as rows.

    A turn by an angle about an axis moves what lies along the axis not at all, and what lies across it by that angle:
    the camera's distance along a direction is seen by turns across it. Directions are in the base's frame for a
    camera on the base, else in the flange's. Source: Tsai and Lenz, A new technique for fully autonomous and efficient
    3D robotics hand/eye calibration, IEEE Trans. Robotics and Automation 5(3), 1989, section IV.
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
    if count < FEWEST:
        raise GenimaError(f"{count} samples are too few: take at least {FEWEST}, better 15, from different directions")


def require_turns(samples: SampleStack, parent: Parent) -> None:
    """Raise a GenimaError where the flange does not rotate, or about one axis only."""
    turns, directions = flange_rotation(samples, parent)
    if turns[2] < _STILL:
        raise GenimaError(
            f"the flange hardly turns between samples ({np.degrees(turns[2]):.1f} deg), and shifts alone do not tell "
            "where the camera is: turn it by 20 deg or more about two or more axes"
        )
    if turns[0] < _ONE_AXIS:
        axis, frame = np.round(directions[0], 2).tolist(), "base" if parent == "base" else "flange"
        raise GenimaError(
            f"the flange turns about one axis only ({axis} in the {frame}'s frame), so where the camera is along that "
            "axis is not seen: turn it by 20 deg or more about another one, too"
        )


def require_parent(asked: InitialEstimate, other: InitialEstimate) -> None:
    """Raise a GenimaError where the samples fit a camera on the other parent."""
    if asked.misfit > _BAD and asked.misfit > _MUCH_BETTER * other.misfit:
        here, there = asked.hand_eye.parent, other.hand_eye.parent
        raise GenimaError(
            f"these samples fit a camera on the {there} ({other.misfit:.1f} px), not one on the {here} "
            f"({asked.misfit:.0f} px): are two cameras' names swapped, or is the camera's parent wrong?"
        )


def estimate_board_size(fit: Fit, resized: Fit, square: float) -> BoardSize:
    """Return the board's size by a fit with free scale, besides one with the given ``square`` in m."""
    T = inverse(fit.hand_eye.T_parent_camera) @ resized.hand_eye.T_parent_camera
    sigma = float(np.sqrt(resized.covariance[SCALE, SCALE]))
    return BoardSize(square, resized.scale, sigma, np.concatenate([T[:3, 3], rotation_vector(T[:3, :3])]))


def require_size(size: BoardSize) -> None:
    """Raise a GenimaError where the board's size differs from its file by more than printing explains."""
    if size.problem and abs(size.scale - 1) > _WRONG_SIZE:
        raise GenimaError(size.problem)


def require_agreement(samples: SampleStack, fit: Fit, good: NDArray[np.bool_]) -> None:
    """Raise a GenimaError where no place of camera and board explains most samples (N,) that were taken."""
    blurred = fit.noise.pixels > _BLURRED * image_noise(samples) + _SHARP
    if good.mean() < _AGREE or fit.noise.joints > _SHAKY or blurred:
        raise GenimaError(
            f"no fixed place of camera and board explains these samples ({good.sum()} of {len(good)} agree, and only "
            f"if joints were read {np.degrees(fit.noise.joints):.2f} deg and points {fit.noise.pixels:.1f} px wrong): "
            f"are the joints those of {samples.robot.name}, at the time of the images? Is the board firmly fixed? Are "
            "the intrinsics this camera's?"
        )


def require_certain(fit: Fit) -> None:
    """Raise a GenimaError where a fit leaves open where the camera is."""
    C = fit.covariance[CAMERA, CAMERA]
    blocks = ((C[:3, :3], _BLIND[0], 1e3, "mm"), (C[3:, 3:], _BLIND[1], np.degrees(1.0), "deg"))
    for block, limit, unit, name in blocks:
        variances, directions = np.linalg.eigh(block)
        if not variances[-1] < limit**2:
            raise GenimaError(
                f"the samples leave the camera uncertain by {unit * np.sqrt(variances[-1]):.1f} {name} along or about "
                f"{np.round(directions[:, -1], 2).tolist()} of its own frame: take more samples, from more directions "
                "and nearer to the board"
            )
