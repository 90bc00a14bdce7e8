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
_CENTRE = 0.5  # px: OpenCV has the middle of the first pixel at 0, this project at 0.5
_FEWEST = 6  # points: four fix a pose, two more tell whether it is right
_FLATTEST = 0.1  # of the points' second to their first extent, in the board's plane
_WORST_FIT = 3.0  # px, median: what no sharp image of the right board exceeds
_CLEARLY_MORE = 1.5  # times as many points as with the other pattern
_STRAY, _STRAY_PIXELS = 5.0, 1.5  # medians, and px, beyond which a point is looked at as wrong


@dataclass(frozen=True)
class Detection:
    """Detected points of a board."""

    ids: NDArray[np.int64]  # (M,), rows of Board.points
    pixels: Array  # (M, 2), pixel centres at n + 0.5
    points: Array  # (M, 3) m, in the board's frame
    legacy_pattern: bool | None = None  # which pattern is seen; None where the board has one only
    strange_markers: int = 0  # of the board's dictionary, that are seen beside it


@dataclass(frozen=True)
class Markers:
    """Detected markers of a dictionary."""

    ids: NDArray[np.int64]  # (M,)
    corners: NDArray[np.float32]  # (M, 4, 2) px, clockwise from the marker's own top left; OpenCV's pixels


def detect(image: Image, board: CalibrationBoard, intrinsics: CameraIntrinsics) -> Detection:
    """Find the board in an image (h, w, 3) in RGB, with either pattern where the board's file leaves that open.

    Raises:
        GenimaError: when too little of the board is seen, or when what is seen is not that board.
    """
    if image.shape != (intrinsics.height, intrinsics.width, 3):
        raise GenimaError(
            f"the image is {image.shape[1]} x {image.shape[0]}, but its intrinsics are for {intrinsics.width} x "
            f"{intrinsics.height}: take both from the same stream"
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
    if len(found) > 1 and len(found[-1].ids) < _CLEARLY_MORE * len(found[0].ids):
        raise GenimaError(
            "board seen too little to tell the legacy pattern from the new one: bring more of it into the image, or "
            "write legacy_pattern: true or false in the board's file"
        )
    strange = int(np.count_nonzero(~np.isin(markers.ids, board.cv_board.getIds())))
    return replace(found[-1], strange_markers=strange)


def detected_board(board: CalibrationBoard, detections: Iterable[Detection]) -> CalibrationBoard:
    """Return the board with its detected pattern, where its file leaves that open.

    Raises:
        GenimaError: when detections show both patterns.
    """
    if len(board.patterns) == 1 or not (seen := {detection.legacy_pattern for detection in detections}):
        return board
    if len(seen) > 1:
        raise GenimaError(
            "some images show a board with the legacy pattern, others one with the new pattern: are two boards in "
            "view? Write legacy_pattern: true or false, that of the right one, in the board's file"
        )
    return replace(board, legacy_pattern=seen.pop())


def _locate(
    grey: NDArray[np.uint8], markers: Markers, board: CalibrationBoard, intrinsics: CameraIntrinsics
) -> Detection:
    """Return the points of a board of known pattern."""
    ids, pixels = _charuco(grey, markers, board) if board.kind == "charuco" else _grid(markers, board)
    if len(ids) < _FEWEST:
        raise GenimaError(
            f"board not seen: {len(ids)} of its {len(board.points)} points, {_FEWEST} are needed. Bring it into the "
            f"image, sharp and evenly lit; check that it is the {board.dictionary} {board.kind} of "
            f"{board.columns} x {board.rows}"
        )
    points = board.points[ids]
    extent = np.linalg.svd(points - points.mean(0), compute_uv=False)
    if extent[1] < _FLATTEST * extent[0]:
        raise GenimaError(f"board seen only along one line ({len(ids)} points): bring more of it into the image")
    detection = Detection(ids, pixels + _CENTRE, points, board.legacy_pattern)
    off = reprojection(board_pose(detection, intrinsics), detection, intrinsics)
    if not np.median(off) < _WORST_FIT:
        raise GenimaError(
            f"what is seen does not lie as on this board (off by {np.median(off):.0f} px): check its kind, columns and "
            "rows, that it is flat, and the camera's intrinsics"
        )
    return detection


def board_pose(detection: Detection, intrinsics: CameraIntrinsics) -> Array:
    """Return ``T_camera_board`` (4, 4) from one image: the better of a flat board's two solutions, refined.

    Points far off are left out (least median of squares).

    Source: Collins and Bartoli, Infinitesimal plane-based pose estimation, IJCV 109 (2014), as in OpenCV.
    """
    T = _solve(detection.points, detection.pixels, intrinsics)
    off = reprojection(T, detection, intrinsics)
    if not off.max() > max(_STRAY * np.median(off), _STRAY_PIXELS):
        return T
    K, distortion = intrinsics.K, np.array(intrinsics.distortion)
    straight = cv2.undistortPoints(detection.pixels[:, None], K, distortion, P=K)
    _, good = cv2.findHomography(detection.points[:, :2], straight, cv2.LMEDS)
    kept = np.zeros(len(off), bool) if good is None else good[:, 0] > 0
    return _solve(detection.points[kept], detection.pixels[kept], intrinsics) if kept.sum() >= _FEWEST else T


def reprojection(T_camera_board: Array, detection: Detection, intrinsics: CameraIntrinsics) -> Array:
    """Return the reprojection error in px of each point (M,)."""
    expected = intrinsics.project(transform(T_camera_board, detection.points))
    return np.linalg.norm(detection.pixels - expected, axis=-1)


def _solve(points: Array, pixels: Array, intrinsics: CameraIntrinsics) -> Array:
    given = (points, pixels, intrinsics.K, np.array(intrinsics.distortion))
    _, rotations, translations, _ = cv2.solvePnPGeneric(*given, flags=cv2.SOLVEPNP_IPPE)
    if not rotations:
        raise GenimaError("the points that are seen have no place on a flat board: bring more of it into the image")
    rotation, translation = cv2.solvePnPRefineLM(*given, rotations[0], translations[0])
    return pose(np.array(cv2.Rodrigues(rotation)[0], float), np.array(translation, float)[:, 0])


def find_markers(grey: NDArray[np.uint8], board: CalibrationBoard) -> Markers:
    """Return all markers of a board's dictionary in a grey image, also those that the board does not have."""
    parameters = cv2.aruco.DetectorParameters()
    if board.kind == "grid":  # the corners of a ChArUco board are refined themselves
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
