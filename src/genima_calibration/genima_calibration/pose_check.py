"""Check of a camera's pose against its calibration, from one image of the robot.

The robot model is rendered at the calibrated pose. Edges are expected along its outline; a moved camera shifts all of
them equally. Every point of the outline votes for the shifts that put it on a nearby edge (generalised Hough transform:
Ballard, Pattern Recognition 13(2), 1981): edges of the scene vote for many shifts, those of the robot for one. From
that shift, and from none, a twist of the camera is fitted; its uncertainty is estimated from resampled parts of the
outline (bootstrap: Efron and Tibshirani, An introduction to the bootstrap, 1993).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera import Camera
from genima.cameras.robot_depth import RobotDepth
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import apply_twist
from genima.types import Image, Joints
from genima_calibration.image_undistortion import ImageUndistorter
from genima_calibration.robot_outline import Outline, along_normals

Array = NDArray[np.float64]

AGREEING = 3  # consecutive checks that find the robot
_LOST_CHECKS = 10  # consecutive checks that do not find the robot at its calibrated pose
LIMIT = 1.5 / 256  # of the image's width: tolerated offset
_REACH = 14 / 256  # of the width: search range
_STEPS = 28  # from no offset to the end of the search range
_EDGE_WIDTH = 1.0 / 256  # of the width: distance at which a point is on an edge
_BLUR = 1.0  # px
_CLEAR = 6.0  # levels per pixel: slope above which edges have full weight
_EDGE = 3  # px at the image's border that are not used
_BLOCK = 20 / 256  # of the width: errors of points nearer to each other are correlated
_RESAMPLES = 100
_STEP = 0.5  # px between samples along a normal
_PRIOR = np.diag([1 / 0.1**2] * 3 + [1 / 0.1**2] * 3)  # of a twist in m and rad, for points with 1 px noise
_MIN_LENGTH = 0.3  # of the width: a shorter outline is not checked
_MIN_SHARE, _FULL_SHARE = 0.6, 0.75  # fractions of the outline that must be found; that are found if nothing is hidden
_SIGNIFICANCE = 3.0  # standard deviations


class PoseVerdict(Enum):
    """Verdict of a check."""

    FINE = "fine"
    MOVED = "moved"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class PoseCheck:
    """Distance between the robot in the image and its model."""

    verdict: PoseVerdict
    twist: Array  # (6,) of the camera in its own frame that joins them; only its effect in the image is certain
    pixels: float  # distance between the detected and the expected outline
    uncertain: float  # px, standard deviation of that
    share: float  # fraction of the outline that is found
    length: int  # px of outline that should be in view
    reason: str  # for people

    @property
    def lost(self) -> bool:
        """True if the robot should be in view and is not found."""
        return self.verdict is PoseVerdict.UNKNOWN and 0 < self.share < _MIN_SHARE


class CalibrationChecker:
    """Checker for the images of one camera; its OpenGL context belongs to the thread that created it."""

    def __init__(self, camera: Camera, robot: RobotModel) -> None:
        """Raise a GenimaError for a robot without meshes, or without OpenGL."""
        self.calibrated, self._robot = camera, robot
        self.undistort = ImageUndistorter(camera)
        self._depth = RobotDepth(robot, self.undistort.camera)

    @classmethod
    def for_images(cls, camera: Camera, robot: RobotModel, width: int, height: int) -> CalibrationChecker:
        """Return the checker for images smaller or larger than the calibration's.

        Raises:
            GenimaError: when their sides have another ratio.
        """
        if width * camera.height != height * camera.width:
            raise GenimaError(
                f"image of {camera.view}: size {width}x{height}, but calibrated at {camera.width}x{camera.height}; set "
                "that resolution in the driver, or calibrate again"
            )
        return cls(camera.scale(width, height), robot)

    def close(self) -> None:
        """Free the OpenGL context."""
        self._depth.close()

    def outline(self, joints: Joints, twist: Array | None = None) -> Outline:
        """Return the robot's expected outline in an undistorted image, without the image's border.

        The camera is at its calibrated pose, or a ``twist`` (6,) away from it.
        """
        T, camera = self.calibrated.T_base_camera(self._robot, joints.positions), self.undistort.camera
        if twist is not None:
            T = apply_twist(T, twist)
        outline = Outline.of(self._depth.render(T, joints.positions, joints.gripper), camera)
        low, high = _EDGE, np.array([camera.width, camera.height]) - _EDGE
        return outline.take(np.all((outline.pixels > low) & (outline.pixels < high), axis=1))

    def check(self, image: Image, joints: Joints) -> PoseCheck:
        """Check an image (h, w, 3) with the joints at its stamp.

        Raises:
            GenimaError: for an image of another size.
        """
        width, undistorted = self.undistort.camera.width, self.undistort(image)
        expected = self.outline(joints)
        if len(expected) < _MIN_LENGTH * width:
            reason = f"too little of the robot in view ({len(expected)} px of outline)"
            return PoseCheck(PoseVerdict.UNKNOWN, np.zeros(6), 0.0, np.inf, 0.0, len(expected), reason)
        share, twist, spread = _fit_outline(undistorted, expected)
        if share < _FULL_SHARE and len(outline := self.outline(joints, twist)) >= _MIN_LENGTH * width:
            # for a large offset, the shape of the outline changes, too
            second_share, step, second_spread = _fit_outline(undistorted, outline)
            if second_share > share:
                share, twist, spread = second_share, twist + step, twist + second_spread
        return _verdict(share, expected, twist, spread, width)


def _fit_outline(image: Image, outline: Outline) -> tuple[float, Array, Array]:
    """Return the found fraction of an outline, the camera's twist (6,), and equally likely others (R, 6)."""
    edges = _Edges.of(image, outline)
    starts = (np.zeros(6), _as_twist(outline, edges.best_shift()))
    share, twist = max((edges.fit(start) for start in starts), key=lambda each: each[0])
    return share, twist, edges.resample(twist)


@dataclass(frozen=True)
class _Edges:
    """Edges of an image along the normals of an outline."""

    outline: Outline
    width: int  # px, of the image
    s: Array  # (S,) px along the normals
    strength: Array  # (M, S), 0..1, on edges only
    near: Array  # (M, S), the same, blurred
    block: NDArray[np.int64]  # (M,), index of the part of the outline

    @classmethod
    def of(cls, image: Image, outline: Outline) -> _Edges:
        """Return local maxima of the slope, limited to that of a clear edge."""
        width = image.shape[1]
        wide = _EDGE_WIDTH * width
        reach = _REACH * width + 3 * wide
        s = np.arange(-reach, reach + _STEP / 2, _STEP)
        smooth = cv2.GaussianBlur(image, (0, 0), _BLUR * max(1.0, width / 512)).astype(np.float32)
        profile = along_normals(smooth, outline, s)
        slope = np.pad(np.abs(profile[:, 2:] - profile[:, :-2]).max(-1), ((0, 0), (1, 1)))  # across one pixel
        peak = (slope >= np.roll(slope, 1, 1)) & (slope > np.roll(slope, -1, 1))
        strength = np.where(peak, np.minimum(slope / _CLEAR, 1.0), 0.0)
        kernel = np.exp(-0.5 * np.square(np.arange(-3 * wide, 3 * wide + _STEP / 2, _STEP) / wide))
        near = np.minimum(cv2.filter2D(strength, -1, kernel[None]), 1.0)  # adjacent edges have no more weight than one
        _, block = np.unique(outline.pixels // (_BLOCK * width), axis=0, return_inverse=True)
        return cls(outline, width, s, strength, near, block.ravel())

    def best_shift(self) -> Array:
        """Return the shift (2,) in px that puts most of the outline on edges."""
        farthest = _REACH * self.width
        steps = np.linspace(-farthest, farthest, 2 * _STEPS + 1)
        shifts = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
        shifts = shifts[np.linalg.norm(shifts, axis=1) <= farthest]
        votes = np.take_along_axis(self.near, self._index(self.outline.normals @ shifts.T), axis=1)
        return np.asarray(shifts[np.argmax(votes.sum(0))], float)

    def fit(self, twist: Array) -> tuple[float, Array]:
        """Return the fraction of the outline on edges, and the camera's twist (6,) near a given one that fits best."""
        for reach in (4.0, 3.0, 2.0, 1.5, 1.5):
            at, weights = self._nearest(twist, reach * _EDGE_WIDTH * self.width)
            twist = _solve(self.outline.by_twist, at, weights)
        at = self.outline.shift(twist)
        share = np.take_along_axis(self.near, self._index(at)[:, None], axis=1).mean()
        return float(share), twist

    def resample(self, twist: Array) -> Array:
        """Return twists (R, 6) of fits to resampled parts of the outline."""
        J = self.outline.by_twist
        at, weights = self._nearest(twist, 3 * _EDGE_WIDTH * self.width)
        count = int(self.block.max()) + 1
        normal, right = np.zeros((count, 6, 6)), np.zeros((count, 6))
        np.add.at(normal, self.block, weights[:, None, None] * J[:, :, None] * J[:, None])
        np.add.at(right, self.block, (weights * at)[:, None] * J)
        drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), _RESAMPLES)
        normal_drawn = np.einsum("rb,bij->rij", drawn, normal) + _PRIOR
        return np.asarray(np.linalg.solve(normal_drawn, (drawn @ right)[..., None])[..., 0], float)

    def _nearest(self, twist: Array, reach: float) -> tuple[Array, Array]:
        """Return the nearest edges (M,) to the shifted outline, and their weights (M,)."""
        weights = self.strength * np.exp(-0.5 * np.square((self.s - self.outline.shift(twist)[:, None]) / reach))
        total = weights.sum(1)
        return (weights * self.s).sum(1) / np.maximum(total, 1e-9), np.minimum(total, 1.0)

    def _index(self, offsets: Array) -> NDArray[np.int64]:
        return np.clip(np.rint((offsets - self.s[0]) / _STEP), 0, len(self.s) - 1).astype(np.int64)


def _solve(J: Array, at: Array, weights: Array) -> Array:
    """Return the weighted least-squares twist (6,) of an outline's shift, without jumps of metres."""
    weighted = (J * weights[:, None]).T
    return np.asarray(np.linalg.solve(weighted @ J + _PRIOR, weighted @ at), float)


def _as_twist(outline: Outline, shift: Array) -> Array:
    """Return the camera twist (6,) for an outline's shift (2,) in px."""
    return _solve(outline.by_twist, outline.normals @ shift, np.ones(len(outline)))


def _verdict(share: float, outline: Outline, twist: Array, spread: Array, width: int) -> PoseCheck:
    shift = outline.shift(twist)
    # averaged over a circle's outline, the squared normal component of a shift is half of the squared shift
    pixels = float(np.sqrt(2 * np.mean(shift**2)))
    uncertain = float(np.sqrt(2 * np.mean(((spread - twist) @ outline.by_twist.T) ** 2)))
    limit = LIMIT * width
    if share < _MIN_SHARE or uncertain > limit:
        verdict, reason = (
            PoseVerdict.UNKNOWN,
            f"{share:.0%} of the robot's outline found, {pixels:.1f} px off; undecided",
        )
    elif pixels > limit and pixels > _SIGNIFICANCE * uncertain:
        verdict, reason = PoseVerdict.MOVED, f"robot {pixels:.1f} px from its expected position"
    elif pixels <= limit:
        verdict, reason = PoseVerdict.FINE, f"robot at its expected position ({pixels:.1f} px off)"
    else:
        verdict, reason = PoseVerdict.UNKNOWN, f"robot {pixels:.1f} +- {uncertain:.1f} px off; undecided"
    return PoseCheck(verdict, twist, pixels, uncertain, share, len(outline), reason)


class DriftDetector:
    """Detector of a moved camera from repeated checks: three in a row must agree."""

    def __init__(self) -> None:
        self.problem = ""  # empty: none
        self._recent: deque[PoseCheck] = deque(maxlen=_LOST_CHECKS)

    def update(self, checked: PoseCheck) -> None:
        """Add the newest check.

        An undecided check changes nothing, unless the robot remains lost: after a large motion of the camera, some
        checks find the robot at its new position, others do not find it.
        """
        if checked.lost or checked.verdict is not PoseVerdict.UNKNOWN:
            self._recent.append(checked)
        last = [each for each in self._recent if not each.lost][-AGREEING:]
        if len(last) == AGREEING and all(each.verdict is PoseVerdict.MOVED for each in last):
            pixels = sorted(each.pixels for each in last)[AGREEING // 2]
            self.problem = f"moved (robot {pixels:.0f} px from its expected position); calibrate again"
        elif len(last) == AGREEING and all(each.verdict is PoseVerdict.FINE for each in last):
            self.problem = ""
        elif len(self._recent) == _LOST_CHECKS and all(each.verdict is not PoseVerdict.FINE for each in self._recent):
            self.problem = "robot not found; check whether the camera was moved or covered, and the light"
