"""Common base of the cameras and the arm of the recorder's benchmarks: messages are numbered.

The number is in the images' pixels, as blocks large enough to survive JPEG, and in the joints' efforts. All stamps that
were sent are kept in files that outlive their process. What cameras see is a texture with a sensor's noise: its bytes
compress like those of a real image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile

from genima_nodes.ros import parameters
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.paced_thread import PacedThread

VIEWS = ("front", "wrist", "left_shoulder", "right_shoulder")
IMAGES = tuple(f"/cameras/{view}/color/image_raw" for view in VIEWS)
INFOS = tuple(f"/cameras/{view}/color/camera_info" for view in VIEWS)
JOINTS, COMMANDS = "/joint_states", "/joint_command"
TOPICS = (*IMAGES, *INFOS, JOINTS, COMMANDS)
FRAMES, JOINT_RATE, COMMAND_RATE = 30, 1000, 200  # Hz
BLOCK, BITS = 16, 32  # pixels, of a number
_PICTURES = 12  # cameras take turns with so many
_NOISE = 3.0  # of 255


def write_number(image: NDArray[np.uint8], number: int) -> None:
    """Put a number into the corner of an image (h, w, 3), a block of pixels a bit."""
    for row in range(-(-BITS // (columns := image.shape[1] // BLOCK))):
        bits = [(number >> bit) & 1 for bit in range(row * columns, min(BITS, (row + 1) * columns))]
        blocks = np.repeat(np.array(bits, np.uint8) * 255, BLOCK)
        image[row * BLOCK : (row + 1) * BLOCK, : len(blocks)] = blocks[:, None]


def read_number(image: NDArray[np.uint8]) -> int:
    """The inverse of :func:`write_number`, from one channel (h, w)."""
    columns = image.shape[1] // BLOCK
    centres = np.arange(BITS)
    rows, columns = BLOCK * (centres // columns) + BLOCK // 2, BLOCK * (centres % columns) + BLOCK // 2
    return int(((image[rows, columns] > 127).astype(np.int64) << centres).sum())


def numbered(view: int, frame: int) -> int:
    """The number that an image carries: its view in the upper bits."""
    return view << 24 | frame


def pictures(width: int, height: int, count: int = _PICTURES) -> NDArray[np.uint8]:
    """Return camera images (count, h, w, 3), always the same."""
    rng = np.random.default_rng(0)
    images = np.full((count, height, width, 3), 128.0, np.float32)
    for cells in (3, 6, 12, 24, 48):
        for image in images:
            coarse = rng.normal(0, 60 / cells**0.5, (cells, cells * 4 // 3, 3)).astype(np.float32)
            image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    images += rng.normal(0, _NOISE, images.shape).astype(np.float32)
    return np.clip(images, 0, 255).astype(np.uint8)


class Source(Node):
    """Publishes from a thread of its own, in step with the machine's clock, and keeps the stamps that it sent."""

    def __init__(self, name: str, rate: float) -> None:
        super().__init__(name)
        self._folder = Path(self.declare_parameter("stamps", ".").value)
        self._room = round(rate * parameters.number(self, "seconds", 3600.0))  # for stamps
        self._speakers: dict[str, tuple[Any, NDArray[np.int64]]] = {}
        self._pace = PacedThread(1 / rate, self.tick, name)
        diagnostics = DiagnosticUpdater(self)
        diagnostics.add_value("due", lambda: self._pace.ticks)
        diagnostics.add_value("late", lambda: self._pace.late)

    def start(self) -> None:
        """Begin speaking."""
        self._pace.start()

    def close(self) -> None:
        """End speaking."""
        self._pace.close()

    def tick(self, deadline: float, periods: int) -> bool:
        """Publish what is due."""
        raise NotImplementedError

    def speak(self, kind: type, topic: str, profile: QoSProfile, node: Node | None = None) -> None:
        """Have a topic to publish on, from another node if one is given."""
        publisher = (node or self).create_publisher(kind, topic[1:], profile)
        self._speakers[topic] = publisher, _stamps(self._folder, topic, "w+", self._room)

    def send(self, topic: str, message: Any, number: int, stamp: int) -> None:
        """Publish message ``number`` of a topic as of ``stamp``, ns."""
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        publisher, sent = self._speakers[topic]
        sent[number] = stamp
        publisher.publish(message)


def read_stamps(folder: Path) -> dict[str, NDArray[np.int64]]:
    """Return the stamps of the messages sent so far, in ns by topic, by number."""
    sent = {topic: _stamps(folder, topic, "r") for topic in TOPICS}
    return {topic: np.array(stamps[: np.searchsorted(stamps == 0, True)]) for topic, stamps in sent.items()}


def _stamps(folder: Path, topic: str, mode: Literal["r", "w+"], room: int | None = None) -> NDArray[np.int64]:
    path = folder / f"{topic.strip('/').replace('/', '.')}.npy"
    return np.lib.format.open_memmap(path, mode, np.int64, None if room is None else (room,))
