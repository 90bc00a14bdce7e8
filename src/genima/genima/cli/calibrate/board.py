"""``./genima calibrate board``: a board to print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from genima import paths
from genima.errors import GenimaError
from genima.handeye.board import Board


@dataclass
class PrintBoard:
    """Write a page with a calibration board to be printed at 100 %, by default that of calibration/boards.

    Another one is described by --board, or by --kind and what follows; its definition is then written beside the page.
    """

    out: Path = Path("board.pdf")
    """.pdf or .png file."""
    board: Path | None = None
    """YAML file of a board."""
    kind: Literal["charuco", "grid"] | None = None
    """A chessboard with markers in its white squares, or a grid of ArUco or AprilTag markers."""
    columns: int = 7
    """Squares, or markers of a grid."""
    rows: int = 5
    """The same from top to bottom."""
    square: float = 0.036
    """Side of a square in m; of a grid: from marker to marker."""
    marker: float = 0.027
    """Side of a marker in m, its black border included."""
    dictionary: str = "5X5_50"
    """OpenCV's name of the markers without DICT_, such as APRILTAG_36h11."""
    paper: Literal["A4", "A3"] = "A4"
    """Paper; turned to the side on which the board fits."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima calibrate board``."""
    options = tyro.cli(PrintBoard, prog="genima calibrate board", args=list(argv))
    from genima.handeye.printing import describe, print_board  # only here: it brings matplotlib

    if options.kind is None:
        definition = options.board or paths.shared("calibration", "boards", "charuco_7x5_a4.yaml")
        board = Board.load(definition)
    elif options.board:
        raise GenimaError("--board and --kind describe two boards: give one of them")
    else:
        definition, board = options.out.with_suffix(".yaml"), Board(
            options.kind, options.columns, options.rows, options.square, options.marker, options.dictionary
        )  # fmt: skip
        if definition.exists() and Board.load(definition) != board:
            raise GenimaError(f"{definition} is the definition of another board: choose another --out")
    print_board(board, options.out, options.paper, definition.name)
    if options.kind is not None:
        board.save(definition)
    print(f"{options.out}: {describe(board)}; its definition is {definition}")
    print("print it at 100 % and measure the ruler on it; glue it flat on something stiff")
    return 0
