"""Pose of a fixed camera from images of the moving robot, without a board.

::

    images ──► undistorted, equal exposure ──► motion, coarse ──► robot model shifted onto the motion
                                                                              │
               outline found against the background, within a few px ◄────────┘
               ──► camera pose that aligns rendered and found outline ──► again, in a smaller range

No marking of the robot is needed: everything that moves is the robot, and the background behind it is known from other
images. The outline is where an image differs from that background, so that edges within the robot or the scene are not
confused with it. Learned key points (Lee et al., DREAM, ICRA 2020) need a network trained for each robot; the outline
needs only its model, is visible along hundreds of pixels, and is accurate enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from genima.cameras.calibration_file import CameraCalibration, Frames, Residuals
from genima.cameras.camera import Camera
from genima.cameras.intrinsics import CameraIntrinsics
from genima.cameras.robot_depth import RobotDepth
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import apply_twist, inverse, pose, rotation_vector
from genima.types import Image, Joints
from genima_calibration.background_image import (
    estimate_background,
    expected_motion,
    motion_probability,
    normalize_exposure,
)
from genima_calibration.image_undistortion import ImageUndistorter
from genima_calibration.robot_outline import Outline, along_normals
from genima_calibration.sample_folder import RawSample

Array = NDArray[np.float64]
Grey = NDArray[np.float32]

MIN_IMAGES = 3
METHOD = "outlines of the robot"
_COARSE_WIDTH = 80  # px
# Blur in px of the coarse images, free components of the camera's twist, weight of the guess
_COARSE = ((8.0, (3, 4), 0.02), (6.0, (2, 3, 4, 5), 0.02), (4.0, (0, 1, 2, 3, 4, 5), 0.02), (2.0, range(6), 0.01))
_GUESS = 0.1  # m, rad: error of a guess
_WIDTH = 640.0  # px: image width to which the following distances refer
_FINE = ((36, 3), (16, 3), (6, 3), (3, 3))  # px of the search range along the normals, iterations
_BLUR = 0.7  # px
_SPACING = 0.5  # px between samples along a normal
_SLACK = 3  # px beyond the search range
_FAINT, _NOISES = 5.0, 4.0  # levels, standard deviations of noise: minimum difference to the background
_TUKEY = 4.685
_GROWTH = 0.5  # px: prior of a constant offset of the outline, by blooming, paint or covers
_BLOCK = 32  # px: errors of outline points nearer to each other are correlated
_COMMON_ERRORS = 2.0  # factor for errors that all points have in common, measured on rendered images
_EDGE = 4  # px at the image's border that are not used
# Without a guess: cameras around the robot that look at the hand's workspace.
_AZIMUTHS, _ELEVATIONS, _DISTANCES = np.arange(0.0, 360.0, 22.5), (10.0, 30.0, 50.0), (0.8, 1.2, 1.7)  # deg, m
_LOOKED_AT = np.array([0.4, 0.0, 0.35])  # m in the base frame
_STARTS, _TRIED = 6, 2  # numbers of initial poses: shifted onto the motion; fitted
_MIN_ROTATION = np.radians(3.0)  # between poses of the arm
_MIN_MOTION = 0.005  # fraction of the image
_CERTAIN = 0.8  # fraction of an outline that is found, above which no other start is tried
_FOUND, _NOISE, _DISTURBED = 0.6, 1.0, 0.05  # limits: fraction of the outline, px, fraction of the background
_EACH = 0.4  # minimum fraction of the outline in each image
_FOCAL_ERROR, _SIGNIFICANCE = 0.02, 4.0  # of the focal length; standard deviations
_OTHER_POSES = "take more of them, with the arm in view, nearer to the camera and in more different poses"
_MIN_POINTS = 100  # of outlines
_MAX_SIGMA = 0.015, np.radians(1.5)  # m, rad, standard deviation of an accepted calibration


@dataclass(frozen=True)
class RobotImage:
    """Image with the joint positions at its stamp."""

    name: str
    image: Image  # (h, w, 3)
    joints: Joints

    @classmethod
    def of(cls, sample: RawSample, robot: RobotModel) -> RobotImage:
        """Return image and joints of a recorded sample.

        Raises:
            GenimaError: for joints of another robot, and if the gripper's joint is missing.
        """
        positions = sample.positions(robot)
        if robot.gripper_joint not in sample.joints:
            raise GenimaError(
                f"sample {sample.name}: gripper joint missing ({robot.gripper_joint}), on which the outline depends; "
                f"add its position to the sample's joints (open: {robot.gripper_open:g}, closed: "
                f"{robot.gripper_closed:g}), or record joint_states that have it"
            )
        gripper = robot.open_fraction(sample.joints[robot.gripper_joint])
        return cls(sample.name, sample.image, Joints(0.0, positions, gripper))


@dataclass(frozen=True)
class MarkerlessResult:
    """Camera pose and its uncertainty."""

    T_base_camera: Array  # (4, 4)
    covariance: Array  # (6, 6) of the camera's twist in its own frame
    names: tuple[str, ...]  # of the images
    points: int  # found outline points
    found: float  # fraction of the visible outline points that were found
    found_each: Array  # (N,) the same by image
    focal: tuple[float, float]  # relative error of the focal length, and its standard deviation
    pixels: float  # robust standard deviation of the outline points
    left_out: Array  # (N, 2) change of the pose in m and rad without each image
    disturbed: float  # fraction of the background that differs between the images
    moved: float  # fraction of the pixels that the robot covers in some images, but not in all

    @property
    def sigma(self) -> tuple[float, float]:
        """Return the standard deviations in m and rad, in their worst directions."""
        t, r = (np.linalg.eigvalsh(self.covariance[part, part])[-1] for part in (slice(0, 3), slice(3, 6)))
        return float(np.sqrt(t)), float(np.sqrt(r))


class RobotMatcher:
    """Matcher of images of one fixed camera with the robot model.

    Its OpenGL contexts belong to the thread that created it.
    """

    def __init__(self, photos: Sequence[RobotImage], intrinsics: CameraIntrinsics, robot: RobotModel) -> None:
        """Raise a GenimaError for too few different poses, or images of another size."""
        _require_photos(photos, robot)
        undistort = ImageUndistorter(intrinsics.camera("camera", "base", np.eye(4)))
        self.photos, self.camera = photos, undistort.camera
        self._light = normalize_exposure(np.stack([undistort(photo.image) for photo in photos]).astype(np.float32))
        self._smooth = np.stack([cv2.GaussianBlur(image, (0, 0), _BLUR) for image in self._light])
        width, height = _COARSE_WIDTH, round(_COARSE_WIDTH * self.camera.height / self.camera.width)
        self._moving = motion_probability(self._light, width, height)
        self._coarse = RobotDepth(robot, self.camera.scale(width, height))
        self._fine = RobotDepth(robot, self.camera)

    def close(self) -> None:
        """Free the OpenGL contexts."""
        self._coarse.close()
        self._fine.close()

    # Coarse: motion.

    def overlap(self, T_base_camera: Array) -> float:
        """Return the agreement of predicted and observed motion in the images, 0..1."""
        expected = self._expected(T_base_camera)
        return float(np.minimum(expected, self._moving).sum() / max(np.maximum(expected, self._moving).sum(), 1e-9))

    def shift_onto_motion(self, guess: Array) -> Array:
        """Return a pose (4, 4) near a guess that puts the robot onto the motion in the images."""
        T = guess
        for blur, free, belief in _COARSE:
            T = self._coarse_step(T, blur, list(free), belief)
        return T

    def center_on_motion(self, T_base_camera: Array) -> Array:
        """Return the pose (4, 4), rotated so that the centres of expected and observed motion coincide."""
        seen, expected = self._moving.sum(0), self._expected(T_base_camera).sum(0)
        if not expected.any() or not seen.any():
            return T_base_camera
        rays = [_center_ray(image, self._coarse.camera) for image in (expected, seen)]
        rotation = Rotation.align_vectors(rays[0], rays[1])[0].as_matrix()
        return T_base_camera @ pose(rotation, np.zeros(3))

    def _expected(self, T: Array) -> Grey:
        joints = [photo.joints for photo in self.photos]
        masks = [np.isfinite(self._coarse.render(T, each.positions, each.gripper)) for each in joints]
        return expected_motion(np.stack(masks))

    def _coarse_step(self, guess: Array, blur: float, free: list[int], belief: float) -> Array:
        """Take a Levenberg-Marquardt step on blurred images, by finite differences."""
        seen = _blur(self._moving, blur)
        weight = np.sqrt(belief * np.sum(seen**2)) / _GUESS

        def residuals(T: Array) -> Array:
            off = inverse(guess) @ T
            prior = np.append(off[:3, 3], rotation_vector(off[:3, :3]))
            return np.append(_blur(self._expected(T), blur) - seen, weight * prior)

        step = 0.02 * max(blur / 2, 1.0)  # m, rad
        T, r, damping = guess, residuals(guess), 1e-3
        for _ in range(8):
            J = np.column_stack([(residuals(apply_twist(T, step * np.eye(6)[i])) - r) / step for i in free])
            normal = J.T @ J
            for _ in range(4):
                twist = np.zeros(6)
                twist[free] = -np.linalg.solve(normal + damping * np.diag(np.diag(normal)) + 1e-9, J.T @ r)
                trial = apply_twist(T, twist)
                trial_r = residuals(trial)
                if trial_r @ trial_r < r @ r:
                    break
                damping *= 10
            else:
                break
            improvement = 1 - trial_r @ trial_r / (r @ r)
            T, r, damping = trial, trial_r, damping / 10
            if improvement < 1e-3:
                break
        return T

    # Fine: outline.

    def fit_outline(self, start: Array) -> MarkerlessResult | None:
        """Return the pose by the outlines, from a start that is some tens of pixels off; None without convergence."""
        T, scale = start, self.camera.width / _WIDTH
        for reach, steps in _FINE:
            reach = max(2, round(reach * scale))
            for i in range(steps):
                masks, outlines = self._outlines(T)
                if i == 0:
                    behind, known, free, faint = self._background(masks, reach)
                seen = [
                    _find_outline(image, behind, known, mask, outline, reach, faint, self.camera.width)
                    for image, mask, outline in zip(self._smooth, masks, outlines, strict=True)
                ]
                if sum(each.found.sum() for each in seen) < _MIN_POINTS:
                    return None
                system = _System.of(outlines, seen, self.camera)
                T = apply_twist(T, system.twist)
        robot = np.stack(masks)
        others = free & known
        off = np.abs(self._smooth - behind).max(-1)[others & (free.sum(0) > 1)]
        disturbed = float((off > faint).mean()) if off.size else 0.0
        return MarkerlessResult(
            T, system.covariance, tuple(photo.name for photo in self.photos), len(system.off), system.found,
            system.found_each, system.focal(), system.noise, system.left_out(), disturbed,
            float((robot.any(0) & ~robot.all(0)).mean()),
        )  # fmt: skip

    def _outlines(self, T: Array) -> tuple[list[NDArray[np.bool_]], list[Outline]]:
        depths = [self._fine.render(T, photo.joints.positions, photo.joints.gripper) for photo in self.photos]
        return [np.isfinite(depth) for depth in depths], [Outline.of(depth, self.camera) for depth in depths]

    def _background(
        self, masks: Sequence[NDArray[np.bool_]], reach: int
    ) -> tuple[Grey, NDArray[np.bool_], NDArray[np.bool_], float]:
        """Return the background, its validity, its mask in each image, and the noise threshold."""
        around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * (reach + _SLACK) + 1,) * 2)
        free = np.stack([cv2.dilate(mask.astype(np.uint8), around) == 0 for mask in masks])
        behind, known = estimate_background(self._smooth, free)
        noise = 1.4826 * float(np.median(np.abs(self._smooth - behind)[free][::7])) if free.any() else 0.0
        return behind, known, free, max(_FAINT, _NOISES * noise)


def locate_camera(
    photos: Sequence[RobotImage], intrinsics: CameraIntrinsics, robot: RobotModel, guess: Array | None = None
) -> MarkerlessResult:
    """Estimate the pose of a fixed camera from images of the robot in different poses.

    Args:
        photos: at least three, better six to ten, with arm and hand in view in different poses.
        intrinsics: of the camera.
        robot: model of the robot.
        guess: ``T_base_camera`` (4, 4) to about 10 cm and 10 degrees; without it, or if it does not converge, upright
            cameras all around the robot that look down on its hand are tried.

    Raises:
        GenimaError: for images that do not determine the pose; names the remedy.
    """
    matcher = RobotMatcher(photos, intrinsics, robot)
    try:
        found: MarkerlessResult | None = None
        starts, most = _initial_poses(matcher, guess), _TRIED + (guess is not None)
        enough = _CERTAIN if guess is None else _FOUND  # an outline found near a guess is the robot's
        for start in tqdm(starts, desc="outlines", unit="start", total=most, disable=None, leave=False):
            result = matcher.fit_outline(start)
            if result is not None and (found is None or result.found > found.found):
                found = result
            if found is not None and found.found > enough:
                break
        return _require_accurate(found, guess is not None, robot)
    finally:
        matcher.close()


def to_calibration(
    located: MarkerlessResult, view: str, intrinsics: CameraIntrinsics, date: str, frames: Frames | None = None
) -> CameraCalibration:
    """Return the result as a calibration file; ``date`` in ISO 8601."""
    turned = np.kron(np.eye(2), located.T_base_camera[:3, :3])
    metres, angle = np.sqrt(np.mean(located.left_out**2, axis=0)).tolist()
    return CameraCalibration(
        intrinsics.camera(view, "base", located.T_base_camera),
        frames,
        date,
        METHOD,
        Residuals(located.pixels, 1e3 * metres, float(np.degrees(angle))),
        turned @ located.covariance @ turned.T,
        None,
        located.names,
    )


def _initial_poses(matcher: RobotMatcher, guess: Array | None) -> Iterator[Array]:
    """Yield initial poses (4, 4) that put the robot onto the motion, by decreasing overlap.

    A guess may be outside the optimiser's basin, so it is also tried rotated towards the motion.
    """
    if guess is not None:
        yield max((matcher.shift_onto_motion(T) for T in (guess, matcher.center_on_motion(guess))), key=matcher.overlap)
    around = tqdm(_poses_around(matcher), desc="match", unit="start", disable=None, leave=False)
    yield from sorted((matcher.shift_onto_motion(T) for T in around), key=matcher.overlap, reverse=True)[:_TRIED]


def _poses_around(matcher: RobotMatcher) -> list[Array]:
    """Return initial poses without a guess, by decreasing overlap."""
    tried: list[Array] = []
    grid = [(a, e, d) for a in np.radians(_AZIMUTHS) for e in np.radians(_ELEVATIONS) for d in _DISTANCES]
    for azimuth, elevation, distance in tqdm(grid, desc="look from all around", disable=None, leave=False):
        away = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
        z, x = -away, np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        tried.append(
            matcher.center_on_motion(pose(np.column_stack([x, np.cross(z, x), z]), _LOOKED_AT + distance * away))
        )
    return sorted(tried, key=matcher.overlap, reverse=True)[:_STARTS]


def _require_photos(photos: Sequence[RobotImage], robot: RobotModel) -> None:
    if len(photos) < MIN_IMAGES:
        raise GenimaError(
            f"images: too few ({len(photos)}); take at least {MIN_IMAGES}, better six to ten, with the arm in "
            "different poses"
        )
    positions = np.array([photo.joints.positions for photo in photos])
    slack = np.radians(1.0)
    if np.any((positions < robot.position_min - slack) | (positions > robot.position_max + slack)):
        raise GenimaError(f"joints: outside the ranges of {robot.name}; check the robot model and the unit (rad)")
    apart = np.abs(positions[:, None] - positions[None]).max(-1)
    if np.all(apart < _MIN_ROTATION):
        raise GenimaError(
            f"images: the arm hardly moves ({np.degrees(apart.max()):.1f} deg); take them in clearly different poses, "
            "which separate the arm from the background"
        )


def _require_accurate(found: MarkerlessResult | None, guessed: bool, robot: RobotModel) -> MarkerlessResult:
    if found is not None and found.moved < _MIN_MOTION:
        raise GenimaError(f"images: the arm hardly moves, or is hardly in view; {_OTHER_POSES}")
    if found is None or found.found < _FOUND or found.pixels > _NOISE:
        off = f" ({found.found:.0%} of its outline found, {found.pixels:.1f} px off)" if found else ""
        raise GenimaError(
            f"robot: not found in the images{off}; check that the joints are those of {robot.name} at the images' "
            "stamps, the intrinsics, and "
            + ("that the guess is right to 10 cm and 10 deg" if guessed else "give a rough pose with --guess")
        )
    others = [name for name, share in zip(found.names, found.found_each, strict=True) if share < _EACH]
    if others:
        raise GenimaError(
            f"images: {', '.join(others)} do not agree with the others; remove them, or take all again with camera and "
            "arm stationary"
        )
    if found.disturbed > _DISTURBED:
        raise GenimaError(
            f"images: {found.disturbed:.0%} of the background changes; take them again without moving the camera, "
            "without people in view and in constant light"
        )
    error, sigma = found.focal
    if abs(error) > _FOCAL_ERROR and abs(error) > _SIGNIFICANCE * sigma:
        raise GenimaError(
            f"robot: {abs(error):.0%} too {'large' if error > 0 else 'small'} for the intrinsics (+- {sigma:.1%}); "
            "check that they are of this camera at this resolution"
        )
    metres, angle = found.sigma
    if metres > _MAX_SIGMA[0] or angle > _MAX_SIGMA[1]:
        raise GenimaError(
            f"camera: pose uncertain by {1e3 * metres:.0f} mm and {np.degrees(angle):.1f} deg; " + _OTHER_POSES
        )
    return found


@dataclass(frozen=True)
class _OutlineSearch:
    """Outline points found in an image."""

    offsets: Array  # (M,) px along the normals
    found: NDArray[np.bool_]  # (M,)
    possible: NDArray[np.bool_]  # (M,): the background is known there


def _find_outline(
    image: Grey, behind: Grey, known: NDArray[np.bool_], mask: NDArray[np.bool_], outline: Outline, reach: int,
    faint: float, width: int,
) -> _OutlineSearch:  # fmt: skip
    """Find along each normal the border between the robot and the background in an image (h, w, 3).

    Samples inside should differ from the background and samples outside should not: the border with the fewest
    contradictions is used (as the region terms of Bibby and Reid, Robust real-time visual tracking using pixel-wise
    posteriors, ECCV 2008), then the centre of the slope there.
    """
    s = np.arange(-reach - _SLACK, reach + _SLACK + _SPACING / 2, _SPACING)
    M, S, middle, slack = len(outline), len(s), len(s) // 2, round(_SLACK / _SPACING)
    difference = along_normals((image - behind) * known[..., None], outline, s)
    is_known = along_normals(known.astype(np.float32), outline, s) > 0.99
    drawn = along_normals(mask.astype(np.float32), outline, s) > 0.5
    differs = np.where(is_known, np.clip(np.abs(difference).max(-1) / faint - 1, -1, 1), 0)
    # at thin parts, and near other parts, only the samples up to the next rendered border are used
    one_side = np.ones((M, S), bool)
    one_side[:, : middle - 1] = np.logical_and.accumulate(drawn[:, middle - 2 :: -1], axis=1)[:, ::-1]
    one_side[:, middle + 2 :] = np.logical_and.accumulate(~drawn[:, middle + 2 :], axis=1)
    differs = np.where(one_side, differs, 0)
    none = np.zeros((M, 1))
    # limited to -0.3, as the background may have the robot's colour
    within = np.concatenate([none, np.cumsum(np.maximum(differs, -0.3), axis=1)], axis=1)
    beyond = np.concatenate([none, np.cumsum(-differs, axis=1)], axis=1)
    score = within + beyond[:, -1:] - beyond
    border = slack + np.argmax(score[:, slack : S - slack + 1], axis=1)  # before this sample
    rows = np.arange(M)
    inside, outside = np.maximum(border - 2, 0), np.minimum(border + 1, S - 1)
    found = (differs[rows, inside] > 0) & (differs[rows, outside] < 0)
    slope = np.square(np.diff(difference, axis=1)).sum(-1)
    between = s[:-1] + _SPACING / 2
    at = s[np.minimum(border, S - 1)] - _SPACING / 2
    for _ in range(4):  # centre the window on the slope, which would bias its mean otherwise
        weight = slope * np.exp(-0.5 * np.square((between - at[:, None]) / 1.2))
        at = (weight * between).sum(1) / np.maximum(weight.sum(1), 1e-9)
    height = image.shape[0]
    visible = np.all((outline.pixels > _EDGE) & (outline.pixels < [width - _EDGE, height - _EDGE]), axis=1)
    possible = visible & (is_known[:, slack:-slack].mean(1) > 0.7)
    return _OutlineSearch(at, visible & found & (np.abs(at) <= reach), possible)


@dataclass(frozen=True)
class _System:
    """Linear equations from outline points, for the camera's twist and the scale of the outline."""

    by_unknown: Array  # (K, 7)
    off: Array  # (K,) px
    photo: NDArray[np.int64]  # (K,)
    block: NDArray[np.int64]  # (K,), index of the part of the image
    weights: Array  # (K,)
    unknowns: Array  # (7,)
    noise: float  # px
    found_each: Array  # (N,) fraction of each image's outline
    found: float
    by_focal: Array  # (K,): shift by a relative change of the focal length

    @property
    def twist(self) -> Array:
        """Return the camera's twist (6,), in its own frame."""
        return self.unknowns[:6]

    @classmethod
    def of(cls, outlines: Sequence[Outline], seen: Sequence[_OutlineSearch], camera: Camera) -> _System:
        """Solve by iteratively reweighted least squares with Tukey's loss."""
        used = [each.found for each in seen]
        possible = np.array([(each.possible | each.found).sum() for each in seen])
        found = np.array([each.sum() for each in used])
        J = np.concatenate([o.by_twist[u] for o, u in zip(outlines, used, strict=True)])
        J = np.column_stack([J, np.ones(len(J))])
        off = np.concatenate([each.offsets[u] for each, u in zip(seen, used, strict=True)])
        photo = np.concatenate([np.full(u.sum(), i) for i, u in enumerate(used)])
        cells = np.concatenate([o.pixels[u] // _BLOCK for o, u in zip(outlines, used, strict=True)])
        _, block = np.unique(np.column_stack([photo, cells]), axis=0, return_inverse=True)
        unknowns = np.zeros(7)
        for _ in range(6):
            left = off - J @ unknowns
            noise = max(1.4826 * float(np.median(np.abs(left))), 0.2)
            weights = np.square(np.maximum(0, 1 - np.square(left / (_TUKEY * noise))))
            unknowns = _solve(J, off, weights, noise)
        rays = [o.pixels[u] - [camera.cx, camera.cy] for o, u in zip(outlines, used, strict=True)]
        by_focal = np.concatenate([
            np.sum(o.normals[u] * ray, axis=1) for o, u, ray in zip(outlines, used, rays, strict=True)
        ])  # fmt: skip
        return cls(
            J, off, photo, block.ravel(), weights, unknowns, noise, found / np.maximum(possible, 1),
            float(found.sum() / possible.sum()), by_focal,
        )  # fmt: skip

    @property
    def covariance(self) -> Array:
        """Return the covariance (6, 6) of the twist, robust to correlated errors.

        Errors of neighbouring points are correlated, and those of an image by its joints: both are treated as clusters.

        Source: Liang and Zeger, Longitudinal data analysis using generalized linear models, Biometrika 73, 1986.
        """
        return self._sandwich(self.by_unknown, self.unknowns)[:6, :6]

    def focal(self) -> tuple[float, float]:
        """Return the relative error of the focal length, estimated with the pose, and its standard deviation."""
        J = np.column_stack([self.by_unknown, self.by_focal])
        unknowns = _solve(J, self.off, self.weights, self.noise)
        return float(unknowns[7]), float(np.sqrt(self._sandwich(J, unknowns)[7, 7]))

    def _sandwich(self, J: Array, unknowns: Array) -> Array:
        left = (self.off - J @ unknowns) * self.weights
        meat = np.zeros((J.shape[1],) * 2)
        for group in (self.block, self.photo):
            slopes = np.zeros((group.max() + 1, J.shape[1]))
            np.add.at(slopes, group, left[:, None] * J)
            meat += slopes.T @ slopes * len(slopes) / max(len(slopes) - 1, 1)
        inverted = np.linalg.inv(_normal(J, self.weights, self.noise))
        return _COMMON_ERRORS**2 * (inverted @ meat @ inverted)

    def left_out(self) -> Array:
        """Return the change of the pose in m and rad (N, 2) without each image, to first order."""
        moves = []
        for i in range(self.photo.max() + 1):
            others = self.photo != i
            off = _solve(self.by_unknown[others], self.off[others], self.weights[others], self.noise) - self.unknowns
            moves.append([np.linalg.norm(off[:3]), np.linalg.norm(off[3:6])])
        return np.array(moves)


def _normal(J: Array, weights: Array, noise: float) -> Array:
    prior = np.zeros(J.shape[1])
    prior[6] = (noise / _GROWTH) ** 2
    return (J * weights[:, None]).T @ J + np.diag(prior) + 1e-9 * np.eye(J.shape[1])


def _solve(J: Array, off: Array, weights: Array, noise: float) -> Array:
    return np.asarray(np.linalg.solve(_normal(J, weights, noise), (J * weights[:, None]).T @ off), float)


def _center_ray(image: Grey, camera: Camera) -> Array:
    """Return the direction to an image's (h, w) centre of weight, a unit vector in the optical frame."""
    rows, columns = np.indices(image.shape) + 0.5
    x, y = (float((at * image).sum() / image.sum()) for at in (columns, rows))
    ray = np.array([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, 1.0])
    return ray / np.linalg.norm(ray)


def _blur(images: Grey, blur: float) -> Array:
    return np.stack([cv2.GaussianBlur(image, (0, 0), blur) for image in images]).astype(float).ravel()
