"""Flat calibration boards: what is printed on them, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.files import atomic_write, read_yaml
from genima.observation import Image

_PREFIX = "DICT_"


@dataclass(frozen=True)
class Board:
    """A chessboard with markers in its white squares (ChArUco), or a grid of ArUco or AprilTag markers.

    The board's frame is OpenCV's: seen from the front with its first marker at the top left, the origin is the top left
    corner (of the first square, or of a grid's first marker), x points right along the columns, y down along the rows,
    and z into the board, away from who looks at it.

    Raises:
        GenimaError: for a board that cannot be printed.
    """

    kind: Literal["charuco", "grid"]
    columns: int  # squares of a ChArUco board, markers of a grid
    rows: int
    square: float  # m, side of a square; of a grid: from marker to marker
    marker: float  # m, side of a marker, its black border included
    dictionary: str  # OpenCV's name of the markers without DICT_: 5X5_50, APRILTAG_36h11, ...

    def __post_init__(self) -> None:
        if self.kind not in ("charuco", "grid"):
            raise GenimaError(f"a board's kind is charuco or grid, not {self.kind!r}")
        if not hasattr(cv2.aruco, _PREFIX + self.dictionary):
            known = sorted(name.removeprefix(_PREFIX) for name in dir(cv2.aruco) if name.startswith(_PREFIX))
            raise GenimaError(f"OpenCV knows no marker dictionary {self.dictionary!r}; it knows {', '.join(known)}")
        fewest = 3 if self.kind == "charuco" else 1  # 2 x 2 inner corners, or one marker
        if min(self.columns, self.rows) < fewest:
            raise GenimaError(
                f"a {self.kind} board needs at least {fewest} columns and rows; this has {self.columns} x {self.rows}"
            )
        if not 0 < self.marker < self.square < 10:
            raise GenimaError(
                f"a board's marker must be smaller than its square, both in m; this one has a marker of {self.marker} "
                f"and a square of {self.square}"
            )
        known_markers = len(self._dictionary.bytesList)
        if self._markers > known_markers:
            raise GenimaError(
                f"a {self.kind} board of {self.columns} x {self.rows} needs {self._markers} markers, but dictionary "
                f"{self.dictionary} has {known_markers}; take a larger one"
            )

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in m, without a margin: from the origin to the far corner."""
        gap = 0.0 if self.kind == "charuco" else self.square - self.marker
        return self.columns * self.square - gap, self.rows * self.square - gap

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """All points that can be detected (M, 3) in the board's frame, m; their row is their id.

        A ChArUco board's inner corners, row by row, or the four corners of every marker of a grid, clockwise from the
        top left.
        """
        if self.kind == "charuco":
            return np.array(cast(cv2.aruco.CharucoBoard, self.cv_board).getChessboardCorners(), float)
        return np.array(self.cv_board.getObjPoints(), float).reshape(-1, 3)

    @cached_property
    def cv_board(self) -> cv2.aruco.Board:
        """As OpenCV's detectors take it."""
        size = (self.columns, self.rows)
        if self.kind == "charuco":
            return cv2.aruco.CharucoBoard(size, self.square, self.marker, self._dictionary)
        return cv2.aruco.GridBoard(size, self.marker, self.square - self.marker, self._dictionary)

    def image(self, pixels_per_metre: float, margin: float = 0.01) -> Image:
        """The board's front (h, w, 3), with a white ``margin`` in m around it; x right and y down as in the image.

        Every edge is at its place to half a pixel, at any scale: nothing is rounded to whole pixels per square.
        """
        shape = [round((side + 2 * margin) * pixels_per_metre) for side in self.size]
        x, y = ((np.arange(n) + 0.5) / pixels_per_metre - margin for n in shape)
        column, row = np.floor(x / self.square).astype(int), np.floor(y / self.square).astype(int)
        inside = ((0 <= row) & (row < self.rows))[:, None] & ((0 <= column) & (column < self.columns))
        white = ~inside
        # where a square holds its marker, and how far into it each pixel is, in cells of the marker
        inset = (self.square - self.marker) / 2 if self.kind == "charuco" else 0.0
        cells = self._dictionary.markerSize + 2
        u, v = (
            np.floor((at - i * self.square - inset) * cells / self.marker).astype(int)
            for at, i in ((x, column), (y, row))
        )
        on_marker = inside & ((0 <= v) & (v < cells))[:, None] & ((0 <= u) & (u < cells))
        if self.kind == "charuco":
            has_marker = (row[:, None] + column) % 2 == 1
            white |= inside & has_marker
            on_marker &= has_marker
        else:
            white |= inside
        id_of = np.cumsum([self._holds_marker(i) for i in range(self.rows * self.columns)]) - 1
        bits = np.stack([self._dictionary.generateImageMarker(i, cells) > 0 for i in range(self._markers)])
        at_row, at_column = np.nonzero(on_marker)
        square = row[at_row] * self.columns + column[at_column]
        white[at_row, at_column] = bits[id_of[square], v[at_row], u[at_column]]
        return np.repeat(np.where(white, 255, 0).astype(np.uint8)[..., None], 3, axis=2)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Board:
        """The inverse of :meth:`to_dict`.

        Raises:
            GenimaError: for a missing, malformed or unknown field, or a board that cannot be printed.
        """
        types = {"kind": str, "columns": int, "rows": int, "square": float, "marker": float, "dictionary": str}
        if not isinstance(data, Mapping) or set(data) != set(types):
            given = ", ".join(map(str, data)) if isinstance(data, Mapping) else repr(data)
            raise GenimaError(f"a board has the fields {', '.join(types)}; this one has {given}")
        try:
            return cls(**{name: convert(data[name]) for name, convert in types.items()})
        except (TypeError, ValueError) as error:
            raise GenimaError(f"bad field of a board: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """As plain YAML types."""
        return asdict(self)

    @classmethod
    def load(cls, path: Path) -> Board:
        """Read a YAML file, such as those in ``calibration/boards``.

        Raises:
            GenimaError: for a missing or malformed file, or a board that cannot be printed.
        """
        data = read_yaml(path, "board")
        try:
            return cls.from_dict(data)
        except GenimaError as error:
            raise GenimaError(f"board {path}: {error}") from None

    def save(self, path: Path) -> None:
        """Write a YAML file.

        Raises:
            GenimaError: when there is no room or no right to.
        """
        atomic_write(path, yaml.safe_dump(self.to_dict(), sort_keys=False).encode())

    @cached_property
    def _dictionary(self) -> cv2.aruco.Dictionary:
        return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, _PREFIX + self.dictionary))

    @property
    def _markers(self) -> int:
        return sum(self._holds_marker(i) for i in range(self.rows * self.columns))

    def _holds_marker(self, square: int) -> bool:
        return self.kind == "grid" or sum(divmod(square, self.columns)) % 2 == 1
