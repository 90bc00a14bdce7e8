"""Video and preview window of a run: observations beside drawn targets."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from genima.cameras.tiling import tile_grid
from genima.errors import GenimaError
from genima.io.files import atomic_write, shorten
from genima.system.terminal import printable
from genima.types import Image

_HEIGHT = 512  # px; a tile of 2x2 views is as wide
_BAR, _TEXT = 28, 16  # px: height of the bars above and below the picture, and of their text
FPS = 5  # about as often as something new is drawn; every frame costs the robot's processor


def side_by_side(observation: Image, drawn: Image | None) -> Image:
    """Join two tiles to one picture (512, w, 3); without a drawn target, the observation alone."""
    if drawn is None:
        return _resize(observation)
    return np.concatenate([_resize(observation), _resize(drawn)], axis=1)


def label(picture: Image, views: Sequence[str], instruction: str) -> Image:
    """Return the picture (512, w, 3) with the names of its halves and views, and the instruction: (568, w, 3).

    ``views``: in tile order, left to right, then down.
    """
    from PIL import Image as Picture
    from PIL import ImageDraw, ImageFont

    (height, width), (rows, columns) = picture.shape[:2], tile_grid(len(views))
    sheet = Picture.new("RGB", (width, height + 2 * _BAR), "white")
    sheet.paste(Picture.fromarray(picture), (0, _BAR))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    for k, title in enumerate(("observation", "drawn target")):
        draw.text(((k + 0.5) * width / 2, _BAR / 2), title, "black", font, anchor="mm")
        for n, view in enumerate(views):
            row, column = divmod(n, columns)
            corner = ((k + column / columns) * width / 2 + 4, _BAR + row / rows * height + 4)
            draw.text(corner, view.replace("_", " "), "white", font, stroke_width=2, stroke_fill="black")
    draw.text((width / 2, height + 1.5 * _BAR), printable(shorten(instruction, 100)), "black", font, anchor="mm")
    return np.asarray(sheet)


def write_picture(path: Path, picture: Image) -> None:
    """Write a PNG.

    Raises:
        GenimaError: when it cannot be written whole.
    """
    _, png = cv2.imencode(".png", picture[..., ::-1])
    atomic_write(path, png.tobytes())


class Video:
    """MP4 file that gets its name when it is complete."""

    def __init__(self, path: Path, width: int) -> None:
        """Raise a GenimaError when the file cannot be made; pictures are ``width`` px wide."""
        self._path, self._part = path, path.with_name(path.name + ".part")
        try:
            self._container = av.open(str(self._part), "w", format="mp4")
        except OSError as error:
            raise self._error(error) from None
        self._stream = self._container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "23"})
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, _HEIGHT, "yuv420p"
        self._stream.codec_context.thread_count = 1  # the robot comes first

    def add(self, picture: Image) -> None:
        """Append a picture (512, width, 3)."""
        try:
            self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        except OSError as error:
            raise self._error(error) from None

    def close(self) -> None:
        """Complete the file."""
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._part.replace(self._path)
        except OSError as error:
            raise self._error(error) from None

    def _error(self, error: OSError) -> GenimaError:
        self._part.unlink(missing_ok=True)
        return GenimaError(f"cannot write {self._path}: {error.strerror}")


def open_window() -> Window | None:
    """Open a window; print why and return None where that is not possible."""
    try:
        import matplotlib.pyplot as plt  # imported here: takes a second

        plt.ion()
        if plt.get_backend().lower() == "agg":
            print("no window: this Python has neither Tk nor Qt (Debian and Ubuntu: apt-get install python3-tk)")
            return None
        return Window()
    except Exception as error:  # no server behind DISPLAY, an unknown MPLBACKEND: each backend has errors of its own
        print(f"no window: {printable(shorten(str(error), 200))}; --headless leaves it out")
        return None


class Window:
    """Window with the latest picture, updated a few times a second."""

    _PERIOD = 0.4  # s

    def __init__(self) -> None:
        import matplotlib.pyplot as plt

        self._plt = plt
        self._shown = 0.0
        self._figure, axes = plt.subplots(num="Genima: observation | drawn target", figsize=(10, 5), layout="tight")
        axes.set_axis_off()
        self._image = axes.imshow(np.zeros((_HEIGHT, 2 * _HEIGHT, 3), np.uint8))

    def show(self, picture: Image) -> None:
        """Replace the shown picture, a few times a second at most."""
        closed = not self._plt.fignum_exists(self._figure.number)
        if time.monotonic() - self._shown > self._PERIOD and not closed:
            self._shown = time.monotonic()
            self._image.set_data(picture)
            self._figure.canvas.draw_idle()
            self._figure.canvas.flush_events()

    def close(self) -> None:
        """Close the window."""
        self._plt.close(self._figure)


def _resize(tile: Image) -> Image:
    height, width = tile.shape[:2]
    if height == _HEIGHT:
        return tile
    width = 2 * round(_HEIGHT * width / height / 2)  # H.264 takes even sizes
    return np.asarray(cv2.resize(tile, (width, _HEIGHT), interpolation=cv2.INTER_NEAREST), np.uint8)
