"""Calibration boards for printing to scale: vector PDF, or PNG at 300 dpi."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from genima.cameras.calibration_board import CalibrationBoard
from genima.errors import GenimaError
from genima.io.files import atomic_write
from genima.io.outputs import require_free

PAPERS = {"A4": (210.0, 297.0), "A3": (297.0, 420.0)}  # mm, upright
DPI = 300
RULER = 100  # mm
_EDGE = 5.0  # mm that printers leave white
_GAP = 5.0  # mm between the board and the ruler
_FOOT = 14.0  # mm: the ruler and two lines of text
_MM = 1 / 25.4  # inch
_POINTS = 72 / 25.4  # points per mm
_LINE_WIDTH = 0.2 * _POINTS

Rectangle = tuple[float, float, float, float]  # x, y, width, height in m


def print_board(
    board: CalibrationBoard, path: Path, paper: str = "A4", definition: str = "", overwrite: bool = False
) -> None:
    """Write a page with the board, its description, and a ruler to check the printed scale.

    Args:
        board: to be printed.
        path: .pdf or .png.
        paper: one of ``PAPERS``, upright or on its side, on which the board fits.
        definition: name of the board's YAML file, printed beside it.
        overwrite: replace another page.

    Raises:
        GenimaError: for another format or paper, a board that does not fit on it, an existing file that is not the
            same page, and a file that cannot be written.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("pdf", "png"):
        raise GenimaError(f"--out {path}: the page is a .pdf or a .png file")
    file = io.BytesIO()
    metadata = {"CreationDate": None} if kind == "pdf" else None  # identical files for identical boards
    board_page(board, paper, definition).savefig(file, format=kind, dpi=DPI, metadata=metadata)
    if not (path.is_file() and path.read_bytes() == file.getvalue()):
        require_free(path, "board's page", overwrite, _is_page)
        atomic_write(path, file.getvalue())


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8).startswith((b"%PDF", b"\x89PNG"))


def board_page(board: CalibrationBoard, paper: str = "A4", definition: str = "") -> Figure:
    """Return the page; arguments and errors as for :func:`print_board`."""
    width, height = 1000 * np.array(board.size)
    page = _page_size(paper, width, height)
    figure = Figure(figsize=(page[0] * _MM, page[1] * _MM))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, page[0]), ylim=(page[1], 0))  # mm from the top left corner
    axes.axis("off")
    spare = page[1] - 2 * _EDGE - height - _GAP - _FOOT
    left, top = (page[0] - width) / 2, _EDGE + spare / 2
    for rectangles, colour in ((black_rectangles(board), "black"), (white_rectangles(board), "white")):
        corners = [_corners(rectangle) * 1000 + [left, top] for rectangle in rectangles]
        axes.add_collection(PolyCollection(corners, facecolors=colour, edgecolors="none", snap=False), autolim=False)

    line, left, right = page[1] - _EDGE - _FOOT + 2.5, 2 * _EDGE, page[0] - 2 * _EDGE
    ticks, lengths = left + RULER * np.linspace(0, 1, 11), np.where(np.arange(11) % 5 == 0, 2.5, 1.5)
    axes.hlines(line, left, left + RULER, "k", linewidth=_LINE_WIDTH)
    axes.vlines(ticks, line, line + lengths, "k", linewidth=_LINE_WIDTH)
    text: dict[str, Any] = {"fontsize": 2.7 * _POINTS, "va": "top"}
    axes.text(left, line + 3.2, f"{RULER} mm if printed at 100 % (actual size); if not, print again", **text)
    lines = [f"Genima calibration board {definition}".rstrip(), describe(board)]
    axes.text(right, line - 1.5, "\n".join(lines), ha="right", linespacing=1.5, **text)
    return figure


def describe(board: CalibrationBoard) -> str:
    """Describe a board in one line."""
    first = f" from id {board.first_id}" if board.first_id else ""
    return (
        f"{board.kind} {board.columns} x {board.rows}, square {1000 * board.square:g} mm, "
        f"marker {1000 * board.marker:g} mm, DICT_{board.dictionary}{first}"
        + (", legacy pattern" if board.legacy_pattern else "")
    )


def black_rectangles(board: CalibrationBoard) -> list[Rectangle]:
    """Return squares without a marker, and the markers' outlines, in the board's frame."""
    squares = []
    if board.kind == "charuco":
        side = board.square
        cells = np.indices((board.rows, board.columns))
        at = np.argwhere(~board.has_marker(*cells)).tolist()
        squares = [(column * side, row * side, side, side) for row, column in at]
    return squares + [(x, y, board.marker, board.marker) for _, x, y in _markers(board)]


def white_rectangles(board: CalibrationBoard) -> list[Rectangle]:
    """Return the markers' white cells, in the board's frame.

    Adjacent cells are merged in rows and again in columns, so that no viewer draws hairlines between them.
    """
    dictionary = board.cv_board.getDictionary()
    n = dictionary.markerSize + 2
    cell = board.marker / n
    rectangles = []
    for marker, x, y in _markers(board):
        bits = dictionary.generateImageMarker(marker, n) > 0
        rectangles += [(x + a * cell, y + i * cell, (b - a) * cell, cell) for i, a, b in _runs(bits)]
        rectangles += [(x + i * cell, y + a * cell, cell, (b - a) * cell) for i, a, b in _runs(bits.T)]
    return rectangles


def _markers(board: CalibrationBoard) -> Iterator[tuple[int, float, float]]:
    """Yield id and top left corner in m of each marker."""
    for marker, corners in zip(board.cv_board.getIds(), board.cv_board.getObjPoints(), strict=True):
        x, y, _ = np.asarray(corners)[0]
        yield int(np.ravel(marker)[0]), float(x), float(y)


def _runs(bits: NDArray[np.bool_]) -> Iterator[tuple[int, int, int]]:
    """Yield row, first column and end column of all runs of true."""
    steps = np.diff(np.pad(bits, ((0, 0), (1, 1))).astype(int), axis=1)
    for (row, start), (_, end) in zip(np.argwhere(steps > 0), np.argwhere(steps < 0), strict=True):
        yield int(row), int(start), int(end)


def _corners(rectangle: Rectangle) -> NDArray[np.float64]:
    x, y, width, height = rectangle
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])


def _page_size(paper: str, width: float, height: float) -> tuple[float, float]:
    """Return width and height of the page in mm, upright or on its side, on which a board of that size in mm fits."""
    if paper not in PAPERS:
        raise GenimaError(f"paper: unknown ({paper!r}); use {' or '.join(PAPERS)}")
    needed = width + 2 * _EDGE, height + 2 * _EDGE + _GAP + _FOOT
    upright = PAPERS[paper]
    for page in (upright, upright[::-1]):
        if needed[0] <= page[0] and needed[1] <= page[1]:
            return page[0], page[1]
    raise GenimaError(
        f"board: too large for {paper} with margins and ruler ({width:.0f} x {height:.0f} mm); use larger paper or "
        "smaller squares"
    )
