"""Diagnose a missing detection: visible markers, their layout, and the matching board file."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.cameras.calibration_board import SMALLEST_MARKER, CalibrationBoard, Kind, dictionaries
from genima.errors import GenimaError
from genima.types import Image
from genima_calibration.board_detection import Markers

Array = NDArray[np.float64]
_MIN_MARKERS = 4  # fewer do not determine a layout; fewer of another dictionary may be false detections
_MAX_COLUMNS = 40  # of candidate boards
_LAYOUT_TOLERANCE = 0.15  # of a marker's side, between a marker and its position in a layout
_COMPLETE = 0.7  # fraction of a board's markers below which a board with another first id is as likely
_CERTAIN, _ACCEPTED = 0.95, 0.8  # fractions of markers that fit: accept a layout at once; as the best one
_RATIO_TOLERANCE = 0.15  # relative, of a marker's side to its square's: blur reduces small markers by half of that


@dataclass(frozen=True)
class _Layout:
    board: CalibrationBoard
    marker: float  # side of a marker, in squares
    share: float  # fraction of the markers that fit


def diagnose(image: Image, board: CalibrationBoard) -> str:
    """Return what is visible instead of the board, with the remedy; empty when nothing is recognised.

    Takes up to a second: it searches for markers of all dictionaries, also mirrored and inverted.

    Args:
        image: (h, w, 3), RGB, in which the board was not detected.
        board: expected board.
    """
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    own, name = _markers_of(grey, board.dictionary), board.dictionary
    if len(own.ids) < _MIN_MARKERS:
        other, markers = _most_likely_dictionary(grey)
        mirrored = _markers_of(np.ascontiguousarray(grey[:, ::-1]), board.dictionary)
        if len(mirrored.ids) >= max(_MIN_MARKERS, 2 * len(markers.ids)):
            return (
                f"{len(mirrored.ids)} markers of DICT_{name} in the mirrored image only; print the board again without "
                "mirroring, or correct the camera's driver"
            )
        inverted = _markers_of(255 - grey, board.dictionary)
        if len(inverted.ids) >= max(_MIN_MARKERS, 2 * len(markers.ids)):
            return (
                f"{len(inverted.ids)} markers of DICT_{name} in the inverted image only; print the board in black on "
                "white"
            )
        if len(markers.ids) >= _MIN_MARKERS and other != name:
            own, name = markers, other
    if not len(own.ids):
        return ""
    ids = f"{len(own.ids)} markers of DICT_{name} are visible, with ids {own.ids.min()} to {own.ids.max()}"
    if repeated := [marker for marker, count in Counter(own.ids.tolist()).items() if count > 1]:
        listed = ", ".join(map(str, sorted(repeated)[:5]))
        return f"{ids}, repeated: {listed}; leave only one board in view"
    if len(own.ids) < _MIN_MARKERS:
        return f"{ids}; bring more of the board into the image"
    largest = max(int(own.ids.max()) + 1, board.first_id + 1)
    if name == board.dictionary and largest > len(_dictionary(name).bytesList):
        name = _smallest_with(name, largest)
    layout = _layout(own, replace_dictionary(board, name))
    if layout is None:
        return (
            f"{ids}, but their layout fits no flat board; check that it is flat and the only one in view. Expected: "
            f"{_describe_board(board)}"
        )
    changes = _changes(board, layout)
    if not changes:
        return f"{ids}, as on the board, but too few corners are sharp; move it nearer, with more light"
    fields = ", ".join(f"{field}: {value}" for field, value in changes.items())
    return f"{ids}, not as on {_describe_board(board)}; if it is the right board, write in its file: {fields}"


def replace_dictionary(board: CalibrationBoard, dictionary: str) -> CalibrationBoard:
    """Return the board with other markers, or the smallest valid board of a smaller dictionary."""
    try:
        return replace(board, dictionary=dictionary)
    except GenimaError:
        fewest = 3 if board.kind == "charuco" else 1
        return replace(board, dictionary=dictionary, columns=fewest, rows=fewest, first_id=0, legacy_pattern=None)


def _describe_board(board: CalibrationBoard) -> str:
    pattern = {None: "", True: ", legacy_pattern: true", False: ", legacy_pattern: false"}[board.legacy_pattern]
    first = f", first_id: {board.first_id}" if board.first_id else ""
    return f"a {board.dictionary} {board.kind} of {board.columns} x {board.rows}{pattern}{first}"


def _changes(board: CalibrationBoard, layout: _Layout) -> dict[str, object]:
    """Return the board file's fields that differ from the image, with the detected values."""
    seen = layout.board
    fields = ("kind", "columns", "rows", "dictionary", "first_id")
    changes = {name: getattr(seen, name) for name in fields if getattr(seen, name) != getattr(board, name)}
    if seen.legacy_pattern != board.legacy_pattern and board.legacy_pattern is not None and seen.rows % 2 == 0:
        changes["legacy_pattern"] = str(bool(seen.legacy_pattern)).lower()
    if abs(layout.marker * board.square / board.marker - 1) > _RATIO_TOLERANCE and "kind" not in changes:
        marker = max(layout.marker * board.square, SMALLEST_MARKER)
        changes["marker"] = f"{marker:.4f} (with square: {board.square:g}; measure both)"
    elif "kind" in changes:
        changes["square and marker"] = f"as measured (a marker's side is {layout.marker:.2f} of its square's)"
    return changes


# ------------------------------------------------------------------------------------------------------------ markers


def _dictionary(name: str) -> cv2.aruco.Dictionary:
    return cv2.aruco.getPredefinedDictionary(dictionaries()[name])


def _markers_of(grey: NDArray[np.uint8], name: str) -> Markers:
    corners, ids, _ = cv2.aruco.ArucoDetector(_dictionary(_largest_of_family(name))).detectMarkers(grey)
    if ids is None:
        return Markers(np.zeros(0, np.int64), np.zeros((0, 4, 2), np.float32))
    return Markers(np.asarray(ids, np.int64).reshape(-1), np.asarray(corners, np.float32).reshape(-1, 4, 2))


def _largest_of_family(name: str) -> str:
    """Return the largest dictionary with the same first markers: 5X5_1000 of 5X5_50."""
    cells, _, _ = name.partition("_")
    return f"{cells}_1000" if f"{cells}_1000" in dictionaries() else name


def _smallest_with(name: str, count: int) -> str:
    """Return the smallest dictionary of the same family with at least ``count`` markers."""
    cells, _, _ = name.partition("_")
    sizes = {each: len(_dictionary(each).bytesList) for each in dictionaries() if each.startswith(f"{cells}_")}
    large = [each for each, size in sizes.items() if size >= count]
    return min(large, key=lambda each: sizes[each]) if f"{cells}_1000" in sizes and large else name


def _most_likely_dictionary(grey: NDArray[np.uint8]) -> tuple[str, Markers]:
    """Return the dictionary with the most detected markers, and these markers."""
    names = sorted(
        {_largest_of_family(name) for name in dictionaries() if not name.endswith(("H5", "H9", "H10", "H11", "H12"))}
    )
    detector = cv2.aruco.ArucoDetector([_dictionary(name) for name in names])
    corners, ids, _, which = detector.detectMarkersMultiDict(grey)
    if ids is None or not len(ids):
        return names[0], Markers(np.zeros(0, np.int64), np.zeros((0, 4, 2), np.float32))
    which = np.asarray(which).reshape(-1)
    best = int(np.bincount(which).argmax())
    found = np.asarray(ids, np.int64).reshape(-1)[which == best]
    at = np.asarray(corners, np.float32).reshape(-1, 4, 2)[which == best]
    return _smallest_with(names[best], int(found.max()) + 1), Markers(found, at)


# ------------------------------------------------------------------------------------------------------------- layout


def _layout(markers: Markers, board: CalibrationBoard) -> _Layout | None:
    """Return the board closest to the given one with the detected layout."""
    best = _fit(markers, board)
    if best is not None and best.share >= _CERTAIN:
        return best

    def mismatch(each: CalibrationBoard) -> tuple[int, float]:
        changed = sum(
            getattr(each, name) != getattr(board, name) for name in ("kind", "columns", "rows", "first_id")
        ) + (bool(each.legacy_pattern) != bool(board.legacy_pattern))
        swapped = (each.columns, each.rows) == (board.rows, board.columns)
        squares = each.columns * each.rows
        share = len(markers.ids) / (squares if each.kind == "grid" else squares // 2)
        return changed - swapped + (2 if share < _COMPLETE else 0), -share

    for each in sorted(_candidates(markers, board), key=mismatch):
        fit = _fit(markers, each)
        if fit is not None and (best is None or fit.share > best.share):
            best = fit
            if best.share >= _CERTAIN:
                break
    return best if best is not None else _fit(markers, board, allow_foreign=True)


def _candidates(markers: Markers, board: CalibrationBoard) -> Iterator[CalibrationBoard]:
    """Yield boards with all markers, of many sizes, kinds, patterns and first ids."""
    lowest, highest = int(markers.ids.min()), int(markers.ids.max())
    for kind in get_args(Kind):
        fewest, per_marker = (3, 2) if kind == "charuco" else (1, 1)
        for columns in dict.fromkeys((board.columns, board.rows, *range(1, _MAX_COLUMNS + 1))):
            first_row = range(max(lowest - columns, 0), lowest) if columns in (board.columns, board.rows) else ()
            usual_rows = {board.rows: board.columns, board.columns: board.rows}.get(columns, fewest)
            for first in {first for first in (board.first_id, 0, lowest, *first_row) if first <= lowest}:
                rows = max(usual_rows, -(-(highest - first + 1) * per_marker // columns))
                for legacy in (False, True) if kind == "charuco" else (None,):
                    with contextlib.suppress(GenimaError):  # too few columns, or more markers than in the dictionary
                        yield replace(
                            board, kind=kind, columns=columns, rows=rows + (rows % 2 if legacy else 0),
                            first_id=first, legacy_pattern=legacy,
                        )  # fmt: skip


def _fit(markers: Markers, board: CalibrationBoard, allow_foreign: bool = False) -> _Layout | None:
    """Return the board with its marker side in squares; None if the layout does not fit.

    With ``allow_foreign``, markers that are not on the board are ignored.
    """
    squares = np.arange(board.rows * board.columns)
    row, column = np.divmod(squares, board.columns)
    places = np.column_stack([column, row])[board.has_marker(row, column)] + 0.5  # by id, in squares
    number = markers.ids - board.first_id
    known = (0 <= number) & (number < len(places))
    if not (known.all() or allow_foreign) or known.sum() < _MIN_MARKERS:
        return None
    on_board = places[number[known]]
    if min(np.ptp(on_board, axis=0)) == 0:
        return None  # all in one row or column: the layout is ambiguous
    seen = markers.corners[known].astype(float)
    H, _ = cv2.findHomography(seen.mean(1), on_board, cv2.LMEDS)
    if H is None:
        return None
    corners = cv2.perspectiveTransform(seen.reshape(-1, 1, 2), H).reshape(-1, 4, 2)  # in squares
    off = corners - on_board[:, None]
    unit = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    side = float(np.median((off * unit).sum((1, 2)) / 2))
    if not 0.05 < side < 1.05:
        return None
    right = np.linalg.norm(off - side * unit, axis=2).max(1) < _LAYOUT_TOLERANCE * side
    return _Layout(board, side, float(right.mean())) if right.mean() >= _ACCEPTED else None
