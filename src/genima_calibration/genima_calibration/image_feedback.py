"""Feedback on the newest image: board detection, its quality, and missing coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.intrinsics import CameraIntrinsics
from genima.errors import GenimaError
from genima.robot.rigid_transforms import transform
from genima.types import Image
from genima_calibration.board_detection import Detection, board_pose, detect

Array = NDArray[np.float64]
DETECTED, SAMPLED, NEXT = (0, 230, 90), (255, 190, 0), (0, 170, 255)  # rgb of the board: now, in samples, next pose
_AXES = ((230, 40, 40), (40, 200, 40), (60, 90, 255))  # rgb of the board's x, y, z
_SUBPIXEL = 4  # bits of OpenCV's drawing
_EDGE_SEGMENTS = 50  # of an edge of the outline, which a distorted image shows curved


@dataclass(frozen=True)
class ImageFeedback:
    """Detection result of one image."""

    stamp: float  # s
    image: Image  # (h, w, 3)
    detection: Detection | None
    T_camera_board: Array | None  # (4, 4); None: not detected
    problem: str  # why the board is not detected; empty: it is

    @classmethod
    def detect(cls, image: Image, stamp: float, board: CalibrationBoard, intrinsics: CameraIntrinsics) -> ImageFeedback:
        """Detect the board in an image."""
        try:
            detection = detect(image, board, intrinsics)
        except GenimaError as error:
            return cls(stamp, image, None, None, str(error))
        return cls(stamp, image, detection, board_pose(detection, intrinsics), "")

    def board_view(self, board: CalibrationBoard) -> tuple[float, float]:
        """Return the angle between the board's normal and the line of sight in rad, and its distance in m.

        Both are NaN without a detection.
        """
        if self.T_camera_board is None:
            return np.nan, np.nan
        middle = transform(self.T_camera_board, np.array([[*board.size, 0.0]]) / 2)[0]
        distance = float(np.linalg.norm(middle))
        return float(np.arccos(np.clip(middle @ self.T_camera_board[:3, 2] / distance, -1, 1))), distance


def coverage(detections: Sequence[Detection], intrinsics: CameraIntrinsics) -> float:
    """Return the fraction 0..1 of the image covered by detections."""
    seen = np.zeros((intrinsics.height, intrinsics.width), np.uint8)
    for detection in detections:
        cv2.fillConvexPoly(seen, _hull(detection), 1)
    return float(seen.mean())


def picture(
    feedback: ImageFeedback,
    board: CalibrationBoard,
    intrinsics: CameraIntrinsics,
    sampled: Sequence[Detection],
    T_camera_next: Array | None,
) -> Image:
    """Return the image (h, w, 3) overlaid with the detected board, the detections of samples and the next pose.

    Detections of samples are faint areas. Detected points are circles, with the board's outline and axes; the next pose
    (``T_camera_next`` (4, 4)) is an outline.
    """
    picture = feedback.image.copy()
    if sampled:
        layer = picture.copy()
        for detection in sampled:
            cv2.fillConvexPoly(layer, _hull(detection), SAMPLED)
        picture = np.asarray(cv2.addWeighted(layer, 0.15, picture, 0.85, 0), np.uint8)
    thickness = max(1, round(max(picture.shape) / 400))
    if T_camera_next is not None:
        _draw_outline(picture, T_camera_next, board, intrinsics, NEXT, thickness)
    if feedback.detection is not None and feedback.T_camera_board is not None:
        _draw_outline(picture, feedback.T_camera_board, board, intrinsics, DETECTED, thickness)
        length = 1.5 * board.square * np.vstack([np.zeros(3), np.eye(3)])
        origin, *ends = _fixed_point(intrinsics.project(transform(feedback.T_camera_board, length)))
        for end, colour in zip(ends, _AXES, strict=True):
            cv2.line(picture, origin, end, colour, thickness + 1, cv2.LINE_AA, _SUBPIXEL)
        for centre in _fixed_point(feedback.detection.pixels):
            cv2.circle(picture, centre, (3 * thickness) << _SUBPIXEL, DETECTED, thickness, cv2.LINE_AA, _SUBPIXEL)
    return picture


def _draw_outline(
    picture: Image,
    T_camera_board: Array,
    board: CalibrationBoard,
    intrinsics: CameraIntrinsics,
    colour: Sequence[int],
    thickness: int,
) -> None:
    width, height = board.size
    corners = np.array([[0, 0, 0], [width, 0, 0], [width, height, 0], [0, height, 0], [0, 0, 0]])
    steps = np.linspace(0, 1, _EDGE_SEGMENTS)[:, None]
    points = np.concatenate([a + steps * (b - a) for a, b in zip(corners[:-1], corners[1:], strict=True)])
    pixels = intrinsics.project(transform(T_camera_board, points))
    if np.all(np.abs(pixels) < 10 * max(picture.shape)):  # else it is behind the camera or far outside the image
        line = np.array(_fixed_point(pixels), np.int32)
        cv2.polylines(picture, [line], True, colour, thickness, cv2.LINE_AA, _SUBPIXEL)


def _fixed_point(pixels: Array) -> list[tuple[int, int]]:
    """Return OpenCV's fixed-point drawing coordinates, 0 at the centre of the first pixel."""
    return [(int(x), int(y)) for x, y in np.rint((pixels - 0.5) * 2**_SUBPIXEL)]


def _hull(detection: Detection) -> NDArray[np.int32]:
    return np.asarray(cv2.convexHull(np.rint(detection.pixels - 0.5).astype(np.int32)), np.int32)
