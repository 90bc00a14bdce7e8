"""Flat calibration boards: layout, markers and file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from genima.errors import GenimaError
from genima.io.files import FileSchema, Positive, Text, atomic_write, read_yaml, validate
from genima.types import Image

MAX_COUNT = 1000  # columns or rows: the largest dictionary has markers for fewer
SMALLEST_MARKER, LARGEST_SQUARE = 1e-3, 1.0  # m
Kind = Literal["charuco", "grid"]
_PREFIX = "DICT_"


def _without_prefix(name: Any) -> Any:
    return name.removeprefix(_PREFIX) if isinstance(name, str) else name


class BoardSchema(FileSchema):
    """Fields of a board's file; see :class:`CalibrationBoard`."""

    kind: Kind
    columns: Annotated[int, Field(ge=1, le=MAX_COUNT)]
    rows: Annotated[int, Field(ge=1, le=MAX_COUNT)]
    square: Positive
    marker: Positive
    dictionary: Annotated[Text, BeforeValidator(_without_prefix)]
    legacy_pattern: bool | None = None
    first_id: Annotated[int, Field(ge=0, le=100_000)] = 0


@dataclass(frozen=True)
class CalibrationBoard:
    """Chessboard with markers in its white squares (ChArUco), or grid of ArUco or AprilTag markers.

    The board's frame is OpenCV's: seen from the front with its first marker at the top left, the origin is the top left
    corner (of the first square, or of a grid's first marker), x points right along the columns, y down along the rows,
    and z into the board, away from the viewer.

    Raises:
        GenimaError: for a board that cannot be printed.
    """

    kind: Kind
    columns: int  # squares of a ChArUco board, markers of a grid
    rows: int
    square: float  # m, side of a square; of a grid: distance between markers' centres
    marker: float  # m, side of a marker, its black border included
    dictionary: str  # OpenCV's name of the markers without DICT_: 5X5_50, APRILTAG_36h11, ...
    # ChArUco boards with an even number of rows: True where the top left square is white with a marker, as printed by
    # calib.io and OpenCV before 4.6. None: unknown; detection tries both, printing uses the new pattern.
    legacy_pattern: bool | None = None
    first_id: int = 0  # of the markers, which are numbered row by row

    def __post_init__(self) -> None:
        if self.kind not in ("charuco", "grid"):
            raise GenimaError(f"kind: unknown ({self.kind!r}); use charuco or grid")
        if not hasattr(cv2.aruco, _PREFIX + self.dictionary):
            known = sorted(set(dictionaries()))
            raise GenimaError(f"dictionary: unknown to OpenCV ({self.dictionary!r}); use one of {', '.join(known)}")
        minimum = 3 if self.kind == "charuco" else 1  # 2 x 2 inner corners, or one marker
        if min(self.columns, self.rows) < minimum or max(self.columns, self.rows) > MAX_COUNT:
            raise GenimaError(
                f"columns and rows: out of range ({self.columns} x {self.rows}); "
                f"a {self.kind} board has {minimum} to {MAX_COUNT} each"
            )
        if not SMALLEST_MARKER <= self.marker < self.square < LARGEST_SQUARE:
            raise GenimaError(
                "marker and square: marker must be smaller than square, both in m "
                f"({self.marker}, {self.square}){self._size_advice()}"
            )
        known_markers = len(self._dictionary.bytesList)
        if self.first_id < 0 or self.first_id + self._markers > known_markers:
            first = f" from first_id {self.first_id}" if self.first_id else ""
            raise GenimaError(
                f"dictionary {self.dictionary}: too few markers ({known_markers}, the board needs "
                f"{self._markers}{first}); use a larger one"
            )
        if self.legacy_pattern is not None and self.kind == "grid":
            raise GenimaError("legacy_pattern: not a field of a grid; remove it, or use kind: charuco")

    def _size_advice(self) -> str:
        if 0.5 <= self.marker < self.square and 1 <= self.square < 1000:
            unit, factor = ("millimetres", 1000) if self.square >= 10 else ("centimetres", 100)
            return f"; in {unit}? Write square: {self.square / factor:g} and marker: {self.marker / factor:g}"
        if SMALLEST_MARKER <= self.square < self.marker < LARGEST_SQUARE:
            pitch = self.square + self.marker
            gap = f", or, where {self.square:g} is the gap between markers, square: {pitch:g}" * (self.kind == "grid")
            return f"; are they swapped? Write square: {self.marker:g} and marker: {self.square:g}{gap}"
        return f"; use {SMALLEST_MARKER:g} to {LARGEST_SQUARE:g}"

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in m, without margin."""
        gap = 0.0 if self.kind == "charuco" else self.square - self.marker
        return self.columns * self.square - gap, self.rows * self.square - gap

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """Detectable points (M, 3) in the board's frame, m; the row is the id.

        Inner corners of a ChArUco board, row by row, or the four corners of every marker of a grid, clockwise from
        the top left.
        """
        if self.kind == "charuco":
            return np.array(cast(cv2.aruco.CharucoBoard, self.cv_board).getChessboardCorners(), float)
        return np.array(self.cv_board.getObjPoints(), float).reshape(-1, 3)

    @cached_property
    def cv_board(self) -> cv2.aruco.Board:
        """Board object of OpenCV's detectors."""
        size, ids = (self.columns, self.rows), np.arange(self.first_id, self.first_id + self._markers)
        if self.kind == "charuco":
            board = cv2.aruco.CharucoBoard(size, self.square, self.marker, self._dictionary, ids)
            board.setLegacyPattern(bool(self.legacy_pattern))
            return board
        return cv2.aruco.GridBoard(size, self.marker, self.square - self.marker, self._dictionary, ids)

    @cached_property
    def patterns(self) -> tuple[CalibrationBoard, ...]:
        """Candidate boards: new and legacy pattern where they differ and ``legacy_pattern`` is unknown."""
        if self.kind == "charuco" and self.legacy_pattern is None and self.rows % 2 == 0:
            return replace(self, legacy_pattern=False), replace(self, legacy_pattern=True)
        return (self,)

    def has_marker(self, row: Any, column: Any) -> Any:
        """Return whether a square of a ChArUco board at ``row``, ``column`` (arrays, or integers) has a marker.

        Every cell of a grid has one.
        """
        if self.kind == "grid":
            return np.ones(np.broadcast(row, column).shape, bool)
        first = 0 if self.legacy_pattern and self.rows % 2 == 0 else 1
        return (row + column) % 2 == first

    def image(self, pixels_per_metre: float, margin: float = 0.01) -> Image:
        """Render the board's front (h, w, 3) with a white ``margin`` in m; x right, y down.

        Edges are exact to half a pixel at any scale: squares are not rounded to whole pixels.
        """
        shape = [round((side + 2 * margin) * pixels_per_metre) for side in self.size]
        x, y = ((np.arange(n) + 0.5) / pixels_per_metre - margin for n in shape)
        column, row = np.floor(x / self.square).astype(int), np.floor(y / self.square).astype(int)
        inside = ((0 <= row) & (row < self.rows))[:, None] & ((0 <= column) & (column < self.columns))
        white = ~inside
        # offset of the marker in its square, and position of each pixel in the marker, in cells
        inset = (self.square - self.marker) / 2 if self.kind == "charuco" else 0.0
        cells = self._dictionary.markerSize + 2
        u, v = (
            np.floor((at - i * self.square - inset) * cells / self.marker).astype(int)
            for at, i in ((x, column), (y, row))
        )
        on_marker = inside & ((0 <= v) & (v < cells))[:, None] & ((0 <= u) & (u < cells))
        if self.kind == "charuco":
            has_marker = self.has_marker(row[:, None], column)
            white |= inside & has_marker
            on_marker &= has_marker
        else:
            white |= inside
        id_of = np.cumsum(self.has_marker(*np.divmod(np.arange(self.rows * self.columns), self.columns))) - 1
        ids = range(self.first_id, self.first_id + self._markers)
        bits = np.stack([self._dictionary.generateImageMarker(i, cells) > 0 for i in ids])
        at_row, at_column = np.nonzero(on_marker)
        square = row[at_row] * self.columns + column[at_column]
        white[at_row, at_column] = bits[id_of[square], v[at_row], u[at_column]]
        return np.repeat(np.where(white, 255, 0).astype(np.uint8)[..., None], 3, axis=2)

    @classmethod
    def from_dict(cls, data: Any, what: str = "board") -> CalibrationBoard:
        """Return the inverse of :meth:`to_dict`; ``what`` is the subject of errors.

        Raises:
            GenimaError: for a missing, malformed or unknown field, or a board that cannot be printed.
        """
        fields = validate(BoardSchema, data, what)
        try:
            return cls(**fields.model_dump())
        except GenimaError as error:
            raise GenimaError(f"{what}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return plain YAML types, without fields at their defaults."""
        defaults = {"legacy_pattern": None, "first_id": 0}
        return {name: value for name, value in asdict(self).items() if name not in defaults or value != defaults[name]}

    @classmethod
    def load(cls, path: Path) -> CalibrationBoard:
        """Read a YAML file, such as those in ``calibration/boards``.

        Raises:
            GenimaError: for a missing or malformed file, or a board that cannot be printed.
        """
        return cls.from_dict(read_yaml(path, "board"), f"board {path}")

    def save(self, path: Path) -> None:
        """Write a YAML file.

        Raises:
            GenimaError: when there is no space or no permission.
        """
        atomic_write(path, yaml.safe_dump(self.to_dict(), sort_keys=False).encode())

    @cached_property
    def _dictionary(self) -> cv2.aruco.Dictionary:
        return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, _PREFIX + self.dictionary))

    @property
    def _markers(self) -> int:
        squares = self.rows * self.columns
        return squares if self.kind == "grid" else squares // 2


def dictionaries() -> dict[str, int]:
    """Return OpenCV's marker dictionaries: names without DICT_, and OpenCV's numbers."""
    names = [name for name in dir(cv2.aruco) if name.startswith(_PREFIX)]
    return {name.removeprefix(_PREFIX): int(getattr(cv2.aruco, name)) for name in names}
