"""``./genima calibrate board``: print a board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from genima.errors import GenimaError
from genima.io import paths
from genima.system.command_line import parse_options

_SIDE = Field(ge=1, le=1000)
_LENGTH = Field(gt=0, le=1)
_SHIPPED = "calibration", "boards", "charuco_7x5_a4.yaml"


@dataclass
class PrintBoard:
    """Write a page with a calibration board to be printed at 100 %, by default that of calibration/boards.

    Another one is described by a file (--board), or by --kind, --columns, --rows, --square, --marker, --dictionary,
    --legacy-pattern and --first-id; what is left out of these is as on the board of calibration/boards. Its definition
    is then written beside the page.
    """

    out: Path = Path("board.pdf")
    """.pdf or .png file."""
    board: Path | None = None
    """YAML file of a board."""
    kind: Literal["charuco", "grid"] | None = None
    """A chessboard with markers in its white squares, or a grid of ArUco or AprilTag markers."""
    columns: Annotated[int, _SIDE] | None = None
    """Squares from left to right, or markers of a grid."""
    rows: Annotated[int, _SIDE] | None = None
    """The same from top to bottom."""
    square: Annotated[float, _LENGTH] | None = None
    """Side of a square in m; of a grid: from marker to marker."""
    marker: Annotated[float, _LENGTH] | None = None
    """Side of a marker in m, its black border included."""
    dictionary: str | None = None
    """OpenCV's name of the markers without DICT_, such as APRILTAG_36h11."""
    legacy_pattern: Literal["true", "false"] | None = None
    """ChArUco board with an even number of rows: the square at the top left is white, as calib.io prints it."""
    first_id: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Id of the first marker."""
    paper: Literal["A4", "A3"] = "A4"
    """Paper; turned to the side on which the board fits."""
    overwrite: bool = False
    """Replace a page, and a definition, that exist."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima calibrate board``."""
    options = parse_options(
        PrintBoard, "genima calibrate board", argv,
        "./genima calibrate board --columns 6 --rows 4 --square 0.04 --marker 0.03 --out board_6x4.pdf",
    )  # fmt: skip
    from genima.cameras.calibration_board import CalibrationBoard

    described = _described(options)
    if described and options.board:
        raise GenimaError(f"--board and --{next(iter(described))} describe two boards; give one of them")
    shipped = options.board or paths.shared(*_SHIPPED)
    definition, board = shipped, CalibrationBoard.load(shipped)
    if described:
        definition = options.out.with_suffix(".yaml")
        board = CalibrationBoard.from_dict({**board.to_dict(), **described}, "the board that is asked for")
        if definition.exists() and CalibrationBoard.load(definition) != board and not options.overwrite:
            raise GenimaError(f"{definition} is the definition of another board; choose another --out, or --overwrite")
    from genima_calibration.board_printing import describe, print_board  # imported here: loads matplotlib

    print_board(board, options.out, options.paper, definition.name, options.overwrite)
    if described:
        board.save(definition)
    print(f"{options.out}: {describe(board)}; its definition is {definition}")
    print("print it at 100 % and measure the ruler on it; glue it flat on something stiff")
    return 0


def _described(options: PrintBoard) -> dict[str, Any]:
    """Fields of the board that the user gave."""
    names = ("kind", "columns", "rows", "square", "marker", "dictionary", "first_id")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return given | ({"legacy_pattern": options.legacy_pattern == "true"} if options.legacy_pattern else {})
