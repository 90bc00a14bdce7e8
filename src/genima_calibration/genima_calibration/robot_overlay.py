"""Overlay of the robot model on a camera image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.cameras.intrinsics import CameraIntrinsics
from genima.inspection.sheet import add_caption
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import inverse, transform
from genima.types import Image, Joints
from genima_calibration.pose_check import CalibrationChecker, PoseCheck, PoseVerdict
from genima_calibration.robot_outline import Outline

EXPECTED, DETECTED = (0, 255, 255), (255, 0, 60)  # rgb of the robot's outlines
_JOINT, _LINK = (255, 200, 0), (255, 255, 255)  # rgb
_MIN_WIDTH = 480  # px: narrower images are enlarged for the caption
_SUBPIXEL = 4  # bits of OpenCV's drawing


def draw_check(
    checker: CalibrationChecker, robot: RobotModel, image: Image, joints: Joints, checked: PoseCheck
) -> Image:
    """Return an undistorted copy of an image (h, w, 3) with the robot model's joints and outline.

    The expected outline is drawn and, if it differs, the detected one; a caption states the verdict.
    """
    picture, camera = checker.undistort(image).copy(), checker.undistort.camera
    _draw(picture, checker.outline(joints), EXPECTED)
    if checked.verdict is PoseVerdict.MOVED:
        _draw(picture, checker.outline(joints, checked.twist), DETECTED)
    T_base_camera = checker.calibrated.T_base_camera(robot, joints.positions)
    links = transform(inverse(T_base_camera), robot.link_poses(joints.positions)[:, :3, 3])
    scale = camera.width / 640
    at = [_fixed_point(pixel) for pixel in CameraIntrinsics.of(camera).project(links) if np.all(np.isfinite(pixel))]
    for a, b in zip(at, at[1:], strict=False):
        cv2.line(picture, a, b, _LINK, 1, cv2.LINE_AA, _SUBPIXEL)
    for a in at:
        cv2.circle(picture, a, round(4 * scale * 2**_SUBPIXEL), _JOINT, -1, cv2.LINE_AA, _SUBPIXEL)
    if camera.width < _MIN_WIDTH:
        picture = np.asarray(cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST), np.uint8)
    return add_caption(picture, f"{camera.view} {checked.verdict.value}: {checked.reason}")


def _draw(picture: Image, outline: Outline, colour: tuple[int, int, int]) -> None:
    columns, rows = np.floor(outline.pixels).astype(np.int64).T
    picture[rows, columns] = colour


def _fixed_point(pixel: NDArray[np.float64]) -> tuple[int, int]:
    x, y = np.rint((np.clip(pixel, -1e4, 1e4) - 0.5) * 2**_SUBPIXEL).astype(int).tolist()
    return x, y
