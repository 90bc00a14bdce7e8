"""Maximum-likelihood camera and board poses from noisy pixels and joint readings.

A sample's pixels z_i (2M,) and joint readings q_i (n,) are modelled as

    z_i = project(inv(X) A(q*_i) Y p) + e_i,    q_i = q*_i - b_i,    e ~ N(0, s_z^2),  b ~ N(0, s_q^2)

with X ``T_parent_camera``, Y ``T_carrier_board``, A ``T_parent_carrier`` by forward kinematics and the true joints q*.
The maximum-likelihood estimate minimises

    J(X, Y, q*) = sum |z_i - project(...)|^2 / s_z^2 + sum |q*_i - q_i|^2 / s_q^2

a bundle adjustment in which every sample has its own joints. Their elimination (Schur complement) weights a sample's
pixels by the inverse of s_z^2 I + s_q^2 J_q J_q^T: directions with joint noise have a small weight, others, such as the
relative positions of the board's corners, their full weight. Closed-form solvers assume equal noise in all directions.

Both noises are estimated from the same samples by restricted maximum likelihood (Patterson and Thompson, Recovery of
inter-block information when block sizes are unequal, Biometrika 58, 1971): the unrestricted estimate would be too low,
as the 12 unknowns and the samples' joints reduce the residuals.

Constant zero offsets of the joints are not estimated: targets are rendered with the same readings later, and a camera
pose that absorbs part of the offsets renders them nearer to the visible robot than the true pose.

Poses are updated by twists in their own frames. All sums over samples are of small blocks: a step takes about a
millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from genima.cameras.intrinsics import CameraIntrinsics
from genima.errors import GenimaError
from genima.robot.rigid_transforms import apply_twist, inverse, skew, transform
from genima_calibration.closed_form import HandEye
from genima_calibration.samples import SampleStack

Array = NDArray[np.float64]
CAMERA, BOARD = slice(0, 6), slice(6, 12)  # of the unknowns
SCALE = 12

_TYPICAL_JOINT_NOISE = np.radians(0.005)  # of joint readings, an encoder's repeatability
_PSEUDO_READINGS = 1.0  # weight of that prior, in readings: small, but it keeps the noise of few samples above 0
_JOINT_NOISE_RANGE = np.radians([1e-4, 20.0])  # of the search
_HUBER, _OUTLIER = 3.0, 6.0  # standard deviations beyond which a point has less weight, and none
_ROUNDS, _STEPS = 8, 20
_STEP_TOLERANCE = 1e-3  # standard deviations
_NOISE_TOLERANCE = 0.01  # relative change of the noises


@dataclass(frozen=True)
class Noise:
    """Standard deviations of the measurements."""

    pixels: float  # px, of a coordinate
    joints: float  # rad, of a reading


@dataclass(frozen=True)
class FreeParameters:
    """Unknowns besides the two poses."""

    scale: bool = False  # of the board, relative to its file
    intrinsics: bool = False


@dataclass(frozen=True)
class Fit:
    """Estimate for a set of samples."""

    hand_eye: HandEye
    intrinsics: CameraIntrinsics
    scale: float
    joints: Array  # (N, n) rad, most likely true joints
    noise: Noise
    weights: Array  # (N, M) of the points; 0: not used
    information: Array  # (g, g) of camera twist, board twist, then the scale or the intrinsics if they were free
    free: FreeParameters

    @property
    def covariance(self) -> Array:
        """Return the covariance (g, g) of the unknowns."""
        return np.asarray(np.linalg.inv(self.information), float)


@dataclass(frozen=True)
class Derivatives:
    """Derivatives of all samples' pixels."""

    residuals: Array  # (N, 2M) px, measured minus expected
    unknowns: Array  # (N, 2M, g) of the expected pixels, with respect to the unknowns
    joints: Array  # (N, 2M, n), with respect to the joints
    board: Array  # (N, 2M, 6), with respect to a twist of the board about the centre of its points, in its own frame


def derivatives(samples: SampleStack, fit: Fit) -> Derivatives:
    """Return derivatives at a fit; geometric Jacobian as in Craig, Introduction to Robotics, section 5.7."""
    at, robot, intrinsics = fit.hand_eye, samples.robot, fit.intrinsics
    links = robot.link_poses(fit.joints)
    flange = links[:, -2]
    on_base = at.parent == "base"
    identity = np.broadcast_to(np.eye(4), flange.shape)
    T_camera_base = inverse(at.T_parent_camera) @ (identity if on_base else inverse(flange))
    T_base_board = (flange if on_base else identity) @ at.T_carrier_board
    p_board = fit.scale * samples.points
    p_base = transform(T_base_board, p_board)
    p_camera = transform(T_camera_base, p_base)
    R_camera_board = (T_camera_base @ T_base_board)[:, None, :3, :3]
    n = fit.joints.shape[1]
    axes, origins = links[:, None, :n, :3, 2], links[:, None, :n, :3, 3]
    sweep = np.cross(axes, p_base[:, :, None] - origins)  # (N, M, n, 3)
    turn = T_camera_base[:, None, None, :3, :3] @ sweep[..., None]
    by_point, by_intrinsics = intrinsics.jacobians(p_camera)
    eye = np.broadcast_to(np.eye(3), (*p_camera.shape, 3))
    columns = [
        by_point @ np.concatenate([-eye, skew(p_camera)], -1),
        by_point @ R_camera_board @ np.concatenate([eye, -skew(p_board)], -1),
    ]
    if fit.free.scale:
        columns.append(by_point @ R_camera_board @ samples.points[..., None])
    if fit.free.intrinsics:
        columns.append(by_intrinsics)
    N, M = samples.seen.shape
    count = np.maximum(samples.seen.sum(-1), 1)[:, None, None]
    middle = (p_board * samples.seen[..., None]).sum(1, keepdims=True) / count
    return Derivatives(
        residuals=(samples.pixels - intrinsics.project(p_camera)).reshape(N, 2 * M),
        unknowns=np.concatenate(columns, -1).reshape(N, 2 * M, -1),
        joints=((1 if on_base else -1) * by_point @ np.swapaxes(turn[..., 0], -1, -2)).reshape(N, 2 * M, n),
        board=(by_point @ R_camera_board @ np.concatenate([eye, -skew(p_board - middle)], -1)).reshape(N, 2 * M, 6),
    )


def refine(samples: SampleStack, start: HandEye, free: FreeParameters = FreeParameters(), scale: float = 1.0) -> Fit:  # noqa: B008
    """Return the most likely poses near a start, with the noise of pixels and joints.

    Outlier points have less weight (Huber's loss) or none (beyond six standard deviations); outlier samples must have
    been removed.

    Raises:
        GenimaError: when no minimum is found near the start.
    """
    fit = Fit(
        start, samples.intrinsics, scale, samples.joints.copy(), Noise(1.0, float(_TYPICAL_JOINT_NOISE)),
        samples.seen.astype(float), np.eye(12), free,
    )  # fmt: skip
    prior = _prior(samples.intrinsics, free)
    for _ in range(_ROUNDS):
        before = fit
        fit = _minimize(samples, fit, prior)
        d = derivatives(samples, fit)
        fit = replace(fit, weights=_weights(samples, d))
        fit = _estimate_noise(samples, fit, d, prior)
        change = np.abs(np.log([fit.noise.pixels / before.noise.pixels, fit.noise.joints / before.noise.joints]))
        if change.max() < _NOISE_TOLERANCE:
            break
    return _minimize(samples, fit, prior)


def marginal_system(d: Derivatives, weights: Array, ratio: float) -> tuple[Array, Array, Array]:
    """Return the system per sample with its joints eliminated.

    Args:
        d: derivatives, with residuals at the joints' readings.
        weights: (N, M) of the points.
        ratio: of the joints' to the pixels' noise, rad/px.

    Returns:
        Normal matrices (N, g, g), right sides (N, g) and squared residuals (N,), in px.
    """
    w = np.repeat(weights, 2, axis=1)[..., None]
    Jt_w = np.swapaxes(w * d.unknowns, 1, 2)
    Qt_w = np.swapaxes(w * d.joints, 1, 2)
    V = Qt_w @ d.joints + np.eye(d.joints.shape[2]) / ratio**2
    r = d.residuals[..., None]
    W, v = Qt_w @ d.unknowns, Qt_w @ r
    eliminated = np.linalg.solve(V, np.concatenate([W, v], -1))
    W_t = np.swapaxes(W, 1, 2)
    S = Jt_w @ d.unknowns - W_t @ eliminated[..., :-1]
    h = Jt_w @ r - W_t @ eliminated[..., -1:]
    squared = (w * r * r).sum((1, 2)) - (v * eliminated[..., -1:]).sum((1, 2))
    return S, h[..., 0], squared


def at_measured_joints(samples: SampleStack, fit: Fit, d: Derivatives) -> Derivatives:
    """Return the same with residuals at the measured joints, to first order."""
    off = (d.joints @ (fit.joints - samples.joints)[..., None])[..., 0]
    return replace(d, residuals=d.residuals + off)


def _minimize(samples: SampleStack, fit: Fit, prior: Array) -> Fit:
    """Minimise by Levenberg-Marquardt at fixed weights and noise."""
    noise = fit.noise
    ratio = noise.joints / noise.pixels
    cost = _cost(samples, fit, prior)
    damping = 1e-6
    for _ in range(_STEPS):
        d = derivatives(samples, fit)
        S, h, _ = marginal_system(at_measured_joints(samples, fit, d), fit.weights, ratio)
        normal = S.sum(0) + np.diag(prior) * noise.pixels**2
        right = h.sum(0) - prior * noise.pixels**2 * _prior_offset(samples, fit)
        for _ in range(12):
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), right)
            trial = _apply_step(samples, fit, d, step, ratio)
            trial_cost = _cost(samples, trial, prior)
            if trial_cost <= cost * (1 + 1e-12):
                break
            damping = max(damping, 1e-9) * 10
        else:
            return fit
        damping /= 10
        fit, cost = trial, trial_cost
        if step @ normal @ step < (_STEP_TOLERANCE * noise.pixels) ** 2:
            return fit
    return fit


def _apply_step(samples: SampleStack, fit: Fit, d: Derivatives, step: Array, ratio: float) -> Fit:
    """Return the unknowns after a step, with the most likely joints to first order."""
    w = np.repeat(fit.weights, 2, axis=1)[..., None]
    Qt_w = np.swapaxes(w * d.joints, 1, 2)
    V = Qt_w @ d.joints + np.eye(d.joints.shape[2]) / ratio**2
    r = at_measured_joints(samples, fit, d).residuals - d.unknowns @ step
    off = np.linalg.solve(V, Qt_w @ r[..., None])[..., 0]
    at = fit.hand_eye
    hand_eye = HandEye(
        at.parent, apply_twist(at.T_parent_camera, step[CAMERA]), apply_twist(at.T_carrier_board, step[BOARD])
    )
    scale, intrinsics, rest = fit.scale, fit.intrinsics, step[12:]
    if fit.free.scale:
        scale, rest = scale + float(rest[0]), rest[1:]
    if fit.free.intrinsics:
        intrinsics = intrinsics.with_parameters(intrinsics.parameters + rest)
    return replace(fit, hand_eye=hand_eye, scale=scale, intrinsics=intrinsics, joints=samples.joints + off)


def _cost(samples: SampleStack, fit: Fit, prior: Array) -> float:
    T = fit.hand_eye.T_camera_board(samples.robot, fit.joints)
    off = samples.pixels - fit.intrinsics.project(transform(T, fit.scale * samples.points))
    pixels = np.sum(fit.weights[..., None] * off**2) / fit.noise.pixels**2
    joints = np.sum((fit.joints - samples.joints) ** 2) / fit.noise.joints**2
    cost = float(pixels + joints + np.sum(prior * _prior_offset(samples, fit) ** 2))
    return cost if np.isfinite(cost) else np.inf


def _weights(samples: SampleStack, d: Derivatives) -> Array:
    """Return point weights (N, M): 1, less for outliers of their own sample's fit, 0 for wrong or padded points."""
    off = np.abs(d.residuals.reshape(*samples.seen.shape, 2))
    noise = max(1.4826 * float(np.median(off[samples.seen])), 1e-3)
    far = off.max(-1) / noise
    return np.where(samples.seen & (far < _OUTLIER), np.minimum(1.0, _HUBER / np.maximum(far, 1e-9)), 0.0)


def _estimate_noise(samples: SampleStack, fit: Fit, d: Derivatives, prior: Array) -> Fit:
    """Return the fit with its most likely noise (restricted maximum likelihood) and information matrix."""
    d = at_measured_joints(samples, fit, d)
    w = np.repeat(fit.weights, 2, axis=1)[..., None]
    QtQ = np.swapaxes(w * d.joints, 1, 2) @ d.joints
    readings = 2 * np.count_nonzero(fit.weights) - d.unknowns.shape[2]
    if readings <= 0:
        raise GenimaError("samples: fewer points than unknowns; take more samples with more of the board in view")

    def pixels_and_information(ratio: float) -> tuple[float, Array]:
        S, h, squared = marginal_system(d, fit.weights, ratio)
        total, right = S.sum(0), h.sum(0)
        total = total + np.diag(prior) * fit.noise.pixels**2
        left = float(squared.sum() - right @ np.linalg.lstsq(total, right)[0])
        return max(left, 1e-9) / readings, total

    def negative_log_likelihood(log_ratio: float) -> float:
        ratio = float(np.exp(log_ratio))
        variance, total = pixels_and_information(ratio)
        spread = np.linalg.slogdet(np.eye(QtQ.shape[1]) + ratio**2 * QtQ)[1].sum() + np.linalg.slogdet(total)[1]
        joints = ratio**2 * variance
        prior_term = _PSEUDO_READINGS * (np.log(joints) + _TYPICAL_JOINT_NOISE**2 / joints)
        return float(readings * np.log(variance) + spread + prior_term)

    low, high = np.log(_JOINT_NOISE_RANGE / np.sqrt(pixels_and_information(fit.noise.joints / fit.noise.pixels)[0]))
    best = minimize_scalar(negative_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 0.01})
    ratio = float(np.exp(best.x))
    variance, total = pixels_and_information(ratio)
    pixels = float(np.sqrt(variance))
    return replace(fit, noise=Noise(pixels, ratio * pixels), information=total / variance)


def _prior(intrinsics: CameraIntrinsics, free: FreeParameters) -> Array:
    """Return inverse variances (g,) of the prior: finite for intrinsics, zero for poses."""
    known = np.zeros(12 + free.scale)
    if not free.intrinsics:
        return known
    size, focal = max(intrinsics.width, intrinsics.height), max(intrinsics.fx, intrinsics.fy)
    sigma = np.array([0.05 * focal, 0.05 * focal, 0.05 * size, 0.05 * size, 0.3, 0.3, 0.01, 0.01, 0.3])
    return np.append(known, 1 / sigma**2)


def _prior_offset(samples: SampleStack, fit: Fit) -> Array:
    """Return the difference (g,) of the unknowns from their prior; 0 without one."""
    off = np.zeros(12 + fit.free.scale)
    if not fit.free.intrinsics:
        return off
    return np.append(off, fit.intrinsics.parameters - samples.intrinsics.parameters)
