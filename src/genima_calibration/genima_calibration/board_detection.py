"""Detection of a board's points in an image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.intrinsics import CameraIntrinsics
from genima.errors import GenimaError
from genima.robot.rigid_transforms import pose, transform
from genima.types import Image

Array = NDArray[np.float64]
_CENTRE = 0.5  # px: the centre of the first pixel is at 0 in OpenCV, at 0.5 in this project
_MIN_POINTS = 6  # four determine a pose, two more verify it
_MIN_EXTENT = 0.1  # ratio of the points' second to their first extent, in the board's plane
_MAX_ERROR = 3.0  # px, median reprojection error in a sharp image of the right board
_PATTERN_RATIO = 1.5  # between the numbers of points with the right and the wrong pattern
_OUTLIER_RATIO, _OUTLIER_PIXELS = 5.0, 1.5  # times the median, and px, beyond which a point counts as an outlier


@dataclass(frozen=True)
class Detection:
    """Detected points of a board."""

    ids: NDArray[np.int64]  # (M,), rows of Board.points
    pixels: Array  # (M, 2), pixel centres at n + 0.5
    points: Array  # (M, 3) m, in the board's frame
    legacy_pattern: bool | None = None  # detected pattern; None: the board has one pattern only
    foreign_markers: int = 0  # markers of the board's dictionary that are not on the board


@dataclass(frozen=True)
class Markers:
    """Detected markers of a dictionary."""

    ids: NDArray[np.int64]  # (M,)
    corners: NDArray[np.float32]  # (M, 4, 2) px, clockwise from the marker's own top left; OpenCV's pixels


def detect(image: Image, board: CalibrationBoard, intrinsics: CameraIntrinsics) -> Detection:
    """Detect the board in an image (h, w, 3) in RGB, with either pattern if the board's file does not set one.

    Raises:
        GenimaError: when too little of the board is visible, or when it is another board.
    """
    if image.shape != (intrinsics.height, intrinsics.width, 3):
        raise GenimaError(
            f"image: size {image.shape[1]} x {image.shape[0]}, but intrinsics for {intrinsics.width} x "
            f"{intrinsics.height}; take both from the same stream"
        )
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    markers = find_markers(grey, board)
    found, problems = list[Detection](), list[GenimaError]()
    for candidate in board.patterns:
        try:
            found.append(_locate(grey, markers, candidate, intrinsics))
        except GenimaError as error:
            problems.append(error)
    if not found:
        raise problems[0]
    found.sort(key=lambda detection: len(detection.ids))
    if len(found) > 1 and len(found[-1].ids) < _PATTERN_RATIO * len(found[0].ids):
        raise GenimaError(
            "board: too few points to tell the legacy pattern from the new one; bring more of it into the image, or "
            "write legacy_pattern: true or false in the board's file"
        )
    foreign = int(np.count_nonzero(~np.isin(markers.ids, board.cv_board.getIds())))
    return replace(found[-1], foreign_markers=foreign)


def detected_board(board: CalibrationBoard, detections: Iterable[Detection]) -> CalibrationBoard:
    """Return the board with its detected pattern, if its file does not set one.

    Raises:
        GenimaError: when detections show both patterns.
    """
    if len(board.patterns) == 1 or not (seen := {detection.legacy_pattern for detection in detections}):
        return board
    if len(seen) > 1:
        raise GenimaError(
            "board: legacy pattern in some images, new pattern in others; remove the second board, or write the right "
            "legacy_pattern: true or false in the board's file"
        )
    return replace(board, legacy_pattern=seen.pop())


def _locate(
    grey: NDArray[np.uint8], markers: Markers, board: CalibrationBoard, intrinsics: CameraIntrinsics
) -> Detection:
    """Return the points of a board of known pattern."""
    ids, pixels = _charuco(grey, markers, board) if board.kind == "charuco" else _grid(markers, board)
    if len(ids) < _MIN_POINTS:
        raise GenimaError(
            f"board: not detected ({len(ids)} of its {len(board.points)} points, {_MIN_POINTS} are needed); bring it "
            f"into the image, sharp and evenly lit, and check that it is the {board.dictionary} {board.kind} of "
            f"{board.columns} x {board.rows}"
        )
    points = board.points[ids]
    extent = np.linalg.svd(points - points.mean(0), compute_uv=False)
    if extent[1] < _MIN_EXTENT * extent[0]:
        raise GenimaError(f"board: points on one line only ({len(ids)}); bring more of it into the image")
    detection = Detection(ids, pixels + _CENTRE, points, board.legacy_pattern)
    off = reprojection(board_pose(detection, intrinsics), detection, intrinsics)
    if not np.median(off) < _MAX_ERROR:
        raise GenimaError(
            f"board: points do not fit (off by {np.median(off):.0f} px); check its kind, columns and rows, that it is "
            "flat, and the camera's intrinsics"
        )
    return detection


def board_pose(detection: Detection, intrinsics: CameraIntrinsics) -> Array:
    """Return ``T_camera_board`` (4, 4) from one image: the better of a flat board's two solutions, refined.

    Outliers are not used (least median of squares).

    Source: Collins and Bartoli, Infinitesimal plane-based pose estimation, IJCV 109 (2014), as in OpenCV.
    """
    T = _solve(detection.points, detection.pixels, intrinsics)
    off = reprojection(T, detection, intrinsics)
    if not off.max() > max(_OUTLIER_RATIO * np.median(off), _OUTLIER_PIXELS):
        return T
    K, distortion = intrinsics.K, np.array(intrinsics.distortion)
    undistorted = cv2.undistortPoints(detection.pixels[:, None], K, distortion, P=K)
    _, good = cv2.findHomography(detection.points[:, :2], undistorted, cv2.LMEDS)
    inliers = np.zeros(len(off), bool) if good is None else good[:, 0] > 0
    if inliers.sum() < _MIN_POINTS:
        return T
    return _solve(detection.points[inliers], detection.pixels[inliers], intrinsics)


def reprojection(T_camera_board: Array, detection: Detection, intrinsics: CameraIntrinsics) -> Array:
    """Return the reprojection error in px of each point (M,)."""
    expected = intrinsics.project(transform(T_camera_board, detection.points))
    return np.linalg.norm(detection.pixels - expected, axis=-1)


def _solve(points: Array, pixels: Array, intrinsics: CameraIntrinsics) -> Array:
    arguments = (points, pixels, intrinsics.K, np.array(intrinsics.distortion))
    _, rotations, translations, _ = cv2.solvePnPGeneric(*arguments, flags=cv2.SOLVEPNP_IPPE)
    if not rotations:
        raise GenimaError("board: its points do not determine a pose; bring more of it into the image")
    rotation, translation = cv2.solvePnPRefineLM(*arguments, rotations[0], translations[0])
    return pose(np.array(cv2.Rodrigues(rotation)[0], float), np.array(translation, float)[:, 0])


def find_markers(grey: NDArray[np.uint8], board: CalibrationBoard) -> Markers:
    """Return all markers of a board's dictionary in a grey image, also markers that are not on the board."""
    parameters = cv2.aruco.DetectorParameters()
    if board.kind == "grid":  # a ChArUco board's own corners are refined instead
        parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    corners, ids, _ = cv2.aruco.ArucoDetector(board.cv_board.getDictionary(), parameters).detectMarkers(grey)
    return Markers(
        np.zeros(0, np.int64) if ids is None else np.asarray(ids, np.int64).reshape(-1),
        np.asarray(corners, np.float32).reshape(-1, 4, 2),
    )


def _charuco(grey: NDArray[np.uint8], markers: Markers, board: CalibrationBoard) -> tuple[NDArray[np.int64], Array]:
    detector = cv2.aruco.CharucoDetector(cast(cv2.aruco.CharucoBoard, board.cv_board))
    on_board = np.isin(markers.ids, board.cv_board.getIds())
    if not on_board.any():
        return np.zeros(0, np.int64), np.zeros((0, 2))
    corners, ids, _, _ = detector.detectBoard(
        grey,
        markerCorners=[each[None] for each in markers.corners[on_board]],
        markerIds=markers.ids[on_board].astype(np.int32)[:, None],
    )
    if ids is None:
        return np.zeros(0, np.int64), np.zeros((0, 2))
    return np.asarray(ids, np.int64).reshape(-1), np.asarray(corners, float).reshape(-1, 2)


def _grid(markers: Markers, board: CalibrationBoard) -> tuple[NDArray[np.int64], Array]:
    row = markers.ids - board.first_id
    known = (0 <= row) & (row < board.columns * board.rows)
    pixels = markers.corners[known].reshape(-1, 2).astype(float)
    return (4 * row[known, None] + np.arange(4)).reshape(-1), pixels
