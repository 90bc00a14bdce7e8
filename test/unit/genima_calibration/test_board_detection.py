"""Boards that differ from their file: detection of both ChArUco patterns, diagnosis of wrong fields."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from photographs import ahead, photograph

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.intrinsics import CameraIntrinsics
from genima.errors import GenimaError
from genima_calibration.board_detection import Detection, detect, detected_board
from genima_calibration.detection_diagnosis import diagnose

LENS = CameraIntrinsics(640, 480, 610.0, 612.0, 322.5, 238.0, (0.11, -0.24, 0.0008, -0.0006, 0.09))
BOARD = CalibrationBoard("charuco", 7, 5, 0.036, 0.027, "5X5_50")
EVEN = CalibrationBoard("charuco", 7, 6, 0.036, 0.027, "5X5_50")
GRID = CalibrationBoard("grid", 4, 3, 0.05, 0.04, "5X5_50")


def view(board: CalibrationBoard) -> np.ndarray:
    return photograph(board, ahead(board, [0.2, 0.3, -0.2]), LENS)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("first_id", [0, 12])
def test_both_patterns_equal_opencv_and_are_detected(legacy: bool, first_id: int) -> None:
    board = replace(EVEN, legacy_pattern=legacy, first_id=first_id, marker=0.028)  # 8 px a cell at 2000 px a metre
    np.testing.assert_array_equal(board.image(2000, 0.0)[..., 0], board.cv_board.generateImage((504, 432)))
    image, unknown = view(board), replace(board, legacy_pattern=None)
    found = detect(image, unknown, LENS)
    assert len(found.ids) == 30 and found.legacy_pattern is legacy
    np.testing.assert_array_equal(found.pixels, detect(image, board, LENS).pixels)
    assert detected_board(unknown, [found, found]) == board
    with pytest.raises(GenimaError, match="board: not detected"):
        detect(image, replace(board, legacy_pattern=not legacy), LENS)
    with pytest.raises(
        GenimaError, match="legacy pattern in some images, new .* in others.*legacy_pattern: true or false"
    ):
        detected_board(unknown, [found, replace(found, legacy_pattern=not legacy)])


def test_patterns_are_equal_with_odd_rows() -> None:
    found = detect(view(BOARD), BOARD, LENS)
    assert found.legacy_pattern is None and detected_board(BOARD, [found]) == BOARD
    assert len(detect(view(BOARD), replace(BOARD, legacy_pattern=True), LENS).ids) == 24


def test_grid_may_start_at_any_id() -> None:
    board = replace(GRID, first_id=30)
    found = detect(view(board), board, LENS)
    assert isinstance(found, Detection) and len(found.ids) == 48
    with pytest.raises(GenimaError, match="board: not detected .0"):
        detect(view(board), GRID, LENS)


@pytest.mark.parametrize(
    ("visible_board", "board_file", "advice"),
    [
        (replace(BOARD, dictionary="6X6_250"), BOARD, "DICT_6X6_50 are visible.*: dictionary: 6X6_50$"),
        (replace(BOARD, dictionary="APRILTAG_36h11"), BOARD, ": dictionary: APRILTAG_36h11$"),
        (replace(BOARD, columns=5, rows=7), BOARD, ": columns: 5, rows: 7$"),
        (replace(BOARD, columns=8, rows=6), BOARD, ": columns: 8, rows: 6$"),
        (replace(BOARD, first_id=20), BOARD, "ids 20 to 36.*: first_id: 20$"),
        (replace(BOARD, first_id=40, dictionary="5X5_100"), BOARD, ": dictionary: 5X5_100, first_id: 40$"),
        (replace(EVEN, legacy_pattern=True), replace(EVEN, legacy_pattern=False), ": legacy_pattern: true$"),
        (EVEN, replace(EVEN, legacy_pattern=True), ": legacy_pattern: false$"),
        (replace(BOARD, marker=0.018), BOARD, r"marker: 0.01[78]\d .with square: 0.036; measure both.$"),
        (GRID, BOARD, ": kind: grid, columns: 4, rows: 3, square and marker: as measured"),
        (BOARD, GRID, ": kind: charuco, columns: 7, rows: 5, square and marker: as measured"),
        (replace(GRID, first_id=7), GRID, "ids 7 to 18.*: first_id: 7$"),
        (replace(GRID, columns=3, rows=4), GRID, ": columns: 3, rows: 4$"),
    ],
)
def test_diagnosis_names_fields_of_board_file(
    visible_board: CalibrationBoard, board_file: CalibrationBoard, advice: str
) -> None:
    start = time.process_time()
    assert re.search(advice, found := diagnose(view(visible_board), board_file)), found
    assert time.process_time() - start < 10


def test_mirrored_inverted_and_repeated_prints_are_reported() -> None:
    image = view(BOARD)
    assert "in the mirrored image only; print the board again" in diagnose(np.ascontiguousarray(image[:, ::-1]), BOARD)
    assert "print the board in black on white" in diagnose(255 - image, BOARD)
    assert "repeated: 0, 1, 2" in diagnose(np.hstack([image, image]), BOARD)


def test_part_of_board_with_id_offset_suffices() -> None:
    image = view(replace(BOARD, first_id=20))
    image[:190] = 100
    assert "first_id: 20" in diagnose(image, BOARD)


def test_other_board_in_image_is_ignored() -> None:
    image = np.hstack([view(BOARD), view(replace(GRID, first_id=30))])
    wide = replace(LENS, width=1280)
    assert len(detect(image, BOARD, wide).ids) == 24
    assert "as on the board" in diagnose(image, BOARD)


def test_images_without_markers_have_no_diagnosis() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    for image in (np.full((480, 640, 3), 100, np.uint8), noise, cv2.GaussianBlur(noise, (0, 0), 5)):
        assert diagnose(image, BOARD) == ""


def test_foreign_markers_are_counted_and_explained() -> None:
    wide = CalibrationBoard("charuco", 8, 6, 0.036, 0.027, "5X5_50")
    image = view(replace(wide, legacy_pattern=True, first_id=12))
    found = detect(image, wide, LENS)  # the expected ids 12 to 23 are in the upper half
    assert found.foreign_markers == 12 and len(found.ids) < 25
    assert diagnose(image, wide).endswith("write in its file: first_id: 12")
