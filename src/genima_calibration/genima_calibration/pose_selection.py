"""Next best pose: joints whose sample reduces the uncertainty of the camera pose most.

Source: D-optimal design of experiments (Fedorov, Theory of optimal experiments, 1972): of the candidates, the one that
most reduces the determinant of the camera pose's covariance, to first order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from genima.cameras.calibration_board import CalibrationBoard
from genima.errors import GenimaError
from genima.robot.rigid_transforms import transform
from genima_calibration.bundle_adjustment import CAMERA, Fit, FreeParameters, derivatives, marginal_system
from genima_calibration.samples import SampleStack

Array = NDArray[np.float64]

_MARGIN = 10.0  # px from the image's edge
_MAX_TILT = np.radians(60.0)  # between the board's normal and the ray to its centre
_MIN_SQUARE = 12.0  # px, of a square's side: smaller markers are not detected


@dataclass(frozen=True)
class NextPose:
    """Recommended next pose."""

    joints: Array  # (n,) rad
    index: int  # of the candidate
    covariance: Array  # (6, 6) of the camera's twist in its own frame, predicted with that sample
    gain: float  # relative reduction of the geometric mean of the camera's standard deviations, 0..1


def sample_candidates(samples: SampleStack, count: int, reach: float, seed: int) -> Array:
    """Return random joints (count, n) within ``reach`` rad of the samples' joints and within the arm's range."""
    rng = np.random.default_rng(seed)
    q = samples.joints[rng.integers(len(samples), size=count)]
    q = q + rng.uniform(-reach, reach, q.shape)
    return np.clip(q, samples.robot.position_min, samples.robot.position_max)


def next_pose(samples: SampleStack, fit: Fit, board: CalibrationBoard, candidates: Array) -> NextPose:
    """Return the most informative of ``candidates`` (C, n) rad in which the camera sees the whole board.

    Collisions of the arm are not checked.

    Raises:
        GenimaError: when the board is in view from none of them.
    """
    T = fit.hand_eye.T_camera_board(samples.robot, candidates)
    seen = np.flatnonzero(in_view(T, fit, board))
    if not len(seen):
        raise GenimaError(
            f"pose: board not in view from {len(candidates)} candidates; use poses nearer to those of the samples"
        )
    q = candidates[seen]
    shape = (len(q), len(board.points))
    points = np.broadcast_to(board.points, (*shape, 3))
    there = replace(
        samples, names=tuple(map(str, seen)), joints=q, pixels=np.zeros((*shape, 2)), points=points,
        seen=np.ones(shape, bool), T_camera_board=T[seen],
    )  # fmt: skip
    poses_only = replace(fit, joints=q, free=FreeParameters(), weights=np.ones(shape))
    S, _, _ = marginal_system(derivatives(there, poses_only), poses_only.weights, fit.noise.joints / fit.noise.pixels)
    # other free parameters of the fit are not changed by the sample: they are eliminated from the poses' information
    g = fit.information
    known = g[:12, :12] - g[:12, 12:] @ np.linalg.solve(g[12:, 12:], g[12:, :12]) if len(g) > 12 else g
    covariances = np.linalg.inv(known + S / fit.noise.pixels**2)[:, CAMERA, CAMERA]
    volumes = np.linalg.slogdet(covariances)[1]
    best = int(np.argmin(volumes))
    before = np.linalg.slogdet(np.linalg.inv(known)[CAMERA, CAMERA])[1]
    return NextPose(q[best], int(seen[best]), covariances[best], 1 - float(np.exp((volumes[best] - before) / 12)))


def in_view(T_camera_board: Array, fit: Fit, board: CalibrationBoard) -> NDArray[np.bool_]:
    """Return whether cameras (C, 4, 4) can detect the whole board: in the image, from the front, large enough."""
    intrinsics, (width, height) = fit.intrinsics, board.size
    outline = np.array([[0, 0, 0], [width, 0, 0], [width, height, 0], [0, height, 0], [width / 2, height / 2, 0]])
    points = transform(T_camera_board, fit.scale * outline)
    size = np.array([intrinsics.width, intrinsics.height])
    # without distortion, too: it projects points far outside of the image back into it
    plain = replace(intrinsics, distortion=(0.0,) * 5)
    inside = np.ones(len(points), bool)
    for lens, margin in ((intrinsics, _MARGIN), (plain, -0.3 * float(size.max()))):
        pixels = lens.project(points)
        inside &= np.all((pixels > margin) & (pixels < size - margin), axis=(1, 2))
    middle = points[:, 4]
    distance = np.linalg.norm(middle, axis=1)
    facing = np.sum(middle * T_camera_board[:, :3, 2], axis=1) / distance
    side = intrinsics.fx * board.square * facing / distance
    return inside & (facing > np.cos(_MAX_TILT)) & (side > _MIN_SQUARE)
