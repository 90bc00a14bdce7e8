"""Outlier samples: a moved board, or a false detection.

The initial estimate tolerates 30 % of outliers: of closed-form solutions of many small random sets, the one with the
smallest trimmed misfit (least trimmed squares: Rousseeuw and Van Driessen, Computing LTS regression for large data
sets, Data Mining and Knowledge Discovery 12, 2006). Then every sample is compared with the most likely poses from the
*other* samples, in units of pixel noise, joint noise and the uncertainty of the poses, and is rejected or accepted
until nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtri

from genima.cameras.camera import Parent
from genima.robot.rigid_transforms import inverse, mean_pose, pose_distance, transform
from genima_calibration.bundle_adjustment import (
    Fit,
    FreeParameters,
    at_measured_joints,
    derivatives,
    marginal_system,
    refine,
)
from genima_calibration.closed_form import HandEye, misfit, solve_closed
from genima_calibration.samples import SampleStack

Array = NDArray[np.float64]

_SET, _SETS = 4, 150  # samples of a small set; maximum number of sets
_INLIERS = 0.7  # minimum fraction of the samples
_ROUNDS = 10
_SIGNIFICANCE = 1e-4  # probability that an inlier is rejected
_COMMON_ERROR = 0.03  # px: error of intrinsics and detector that all points of an image have in common
_POINT_LIMIT = 6.0  # standard deviations between a point and its own sample's board
_MAX_OUTLIER_POINTS = 0.2  # fraction of a sample's points; with more, the sample is an outlier
_MIN_NOISE = 0.1  # px: noise of corners seen at a slant, also in sharp images


@dataclass(frozen=True)
class InitialEstimate:
    """Initial estimate for the search of the most likely poses."""

    hand_eye: HandEye
    scale: float  # of the board
    misfit: float  # px, of the best samples
    best: NDArray[np.bool_]  # (N,) mask of the best samples


@dataclass(frozen=True)
class ConsistencyCheck:
    """Consistency of samples with the poses estimated from the others."""

    pixels: Array  # (N,) px, root-mean-square error of a point
    millimetres: Array  # (N,) between the expected and the detected centre of the board
    degrees: Array  # (N,) between its expected and its detected rotation
    outlier_points: Array  # (N,) fraction of points that do not fit the board
    fits: NDArray[np.bool_]  # (N,)


def robust_start(samples: SampleStack, parent: Parent, free_scale: bool = False) -> InitialEstimate:
    """Return a robust closed-form solution, for up to three outliers in ten samples."""
    N = len(samples)
    A, B = samples.T_parent_carrier(parent), samples.T_camera_board
    if comb(N, _SET) <= _SETS:
        sets = np.array(list(combinations(range(N), _SET)))
    else:
        sets = np.random.default_rng(0).random((_SETS, N)).argsort(1)[:, :_SET]
    inliers = max(min(N, _SET + 1), int(np.ceil(_INLIERS * N)))
    found: InitialEstimate | None = None
    X, Y, scale = solve_closed(A[sets], B[sets], free_scale)
    for _ in range(_ROUNDS):
        off = misfit(X, Y, scale, samples, parent)
        score = np.sqrt(np.mean(np.sort(off, axis=-1)[:, :inliers] ** 2, axis=-1))
        k = int(np.argmin(score))
        if found is not None and score[k] >= found.misfit:
            break
        best = np.zeros(N, bool)
        best[np.argsort(off[k])[:inliers]] = True
        found = InitialEstimate(HandEye(parent, X[k], Y[k]), float(scale[k]), float(score[k]), best)
        X, Y, scale = solve_closed(A[best][None], B[best][None], free_scale)
    assert found is not None
    return found


def find_consistent(
    samples: SampleStack,
    start: InitialEstimate,
    free: FreeParameters = FreeParameters(),  # noqa: B008
) -> tuple[Fit, NDArray[np.bool_]]:
    """Return the most likely poses from the consistent samples, and the mask (N,) of these."""
    good, hand_eye, scale = start.best, start.hand_eye, start.scale if free.scale else 1.0
    for i in range(_ROUNDS):
        fit = refine(samples.take(good), hand_eye, free, scale)
        fits = check_samples(samples, fit, good).fits
        if i >= _ROUNDS // 2:  # rejected samples are not accepted again
            fits &= good
        if np.array_equal(fits, good) or fits.sum() < _SET:
            break
        good, hand_eye, scale = fits, fit.hand_eye, fit.scale
    return fit, good


def check_samples(samples: SampleStack, fit: Fit, good: NDArray[np.bool_]) -> ConsistencyCheck:
    """Compare every sample with a fit to the ``good`` ones (N,), without its own part in it (to first order)."""
    everywhere = replace(fit, joints=samples.joints.copy())
    everywhere.joints[good] = fit.joints
    d = at_measured_joints(samples, everywhere, derivatives(samples, everywhere))
    right = _consistent_points(samples, fit)
    weights = right.astype(float)
    weights[good] = fit.weights
    S, h, _ = marginal_system(d, weights, fit.noise.joints / fit.noise.pixels)
    S, h = np.where(good[:, None, None], S, 0.0), np.where(good[:, None], h, 0.0)
    others = fit.information * fit.noise.pixels**2 - S
    covariance = np.linalg.pinv(others, hermitian=True)
    step = (covariance @ (h.sum(0) - h)[..., None])[..., 0]
    ahead = d.residuals - (d.unknowns @ step[..., None])[..., 0]
    w = np.repeat(right, 2, axis=1)[..., None]
    board_t = np.swapaxes(w * d.board, 1, 2)
    own = np.linalg.pinv(board_t @ d.board, hermitian=True)  # (N, 6, 6), of the board's pose by one image, in px
    off = own @ (board_t @ ahead[..., None])
    by_unknowns, by_joints = own @ (board_t @ d.unknowns), own @ (board_t @ d.joints)
    count = np.maximum(right.sum(1), 1)
    by_image = fit.noise.pixels**2 + _COMMON_ERROR**2 * count[:, None, None]
    expected = (
        by_image * own
        + fit.noise.pixels**2 * by_unknowns @ covariance @ np.swapaxes(by_unknowns, 1, 2)
        + fit.noise.joints**2 * by_joints @ np.swapaxes(by_joints, 1, 2)
    )
    statistic = (np.swapaxes(off, 1, 2) @ np.linalg.pinv(expected, hermitian=True) @ off)[:, 0, 0] / 6
    limit = fdtri(6, max(6 * int(good.sum()) - d.unknowns.shape[2], 1), 1 - _SIGNIFICANCE)
    wrong = 1 - right.sum(1) / samples.seen.sum(1)
    return ConsistencyCheck(
        pixels=np.sqrt((w[..., 0] * ahead**2).sum(1) / count),
        millimetres=1e3 * np.linalg.norm(off[:, :3, 0], axis=1),
        degrees=np.degrees(np.linalg.norm(off[:, 3:, 0], axis=1)),
        outlier_points=wrong,
        fits=(statistic < limit) & (wrong <= _MAX_OUTLIER_POINTS) & np.all(np.isfinite(ahead), axis=1),
    )


def outlier_reasons(samples: SampleStack, fit: Fit, good: NDArray[np.bool_]) -> Mapping[str, str]:
    """Return the reason for each sample that is not ``good`` (N,), by name."""
    at = fit.hand_eye
    outlier_points = check_samples(samples, fit, good).outlier_points
    seen = inverse(samples.T_parent_carrier(at.parent)) @ at.T_parent_camera @ samples.T_camera_board  # T_carrier_board
    reasons: dict[str, str] = {}
    moved: list[int] = []
    for i in map(int, np.flatnonzero(~good)):
        if outlier_points[i] > _MAX_OUTLIER_POINTS:
            share = f"{outlier_points[i]:.0%}"
            reasons[samples.names[i]] = f"{share} of its points do not fit the board; false or blurred detection"
            continue
        metres, angle = pose_distance(seen[i], at.T_carrier_board)
        reasons[samples.names[i]] = (
            f"board {1e3 * metres:.1f} mm and {np.degrees(angle):.2f} deg from its pose in the other samples"
        )
        moved.append(i)
    for group in _agreeing_groups(seen, moved, at.T_carrier_board):
        names = ", ".join(samples.names[i] for i in group)
        for i in group:
            reasons[samples.names[i]] += f"; {names} agree with each other, so the board or the camera was moved"
    return reasons


def _agreeing_groups(T: Array, which: list[int], usual: Array) -> list[list[int]]:
    """Return groups of poses T (N, 4, 4) that are much nearer to each other than to the ``usual`` one (4, 4)."""
    groups: list[list[int]] = []
    for i in which:
        for group in groups:
            middle = mean_pose(T[group])
            near, far = pose_distance(T[i], middle), pose_distance(middle, usual)
            if near[0] < max(far[0] / 3, 1e-3) and near[1] < max(far[1] / 3, np.radians(0.5)):
                group.append(i)
                break
        else:
            groups.append([i])
    return [group for group in groups if len(group) > 1]


def _consistent_points(samples: SampleStack, fit: Fit) -> NDArray[np.bool_]:
    """Return the mask (N, M) of points that are consistent with the board in their own image."""
    noise = max(fit.noise.pixels, image_noise(samples), _MIN_NOISE)
    return samples.seen & (_off_in_image(samples).max(-1) < _POINT_LIMIT * noise)


def image_noise(samples: SampleStack) -> float:
    """Return the pixel noise in px, from the distance of points to the board in their own image."""
    return 1.4826 * float(np.median(_off_in_image(samples)[samples.seen]))


def _off_in_image(samples: SampleStack) -> Array:
    expected = samples.intrinsics.project(transform(samples.T_camera_board, samples.points))
    return np.nan_to_num(np.abs(samples.pixels - expected), nan=np.inf)  # (N, M, 2)
