"""Tests of the recording benchmarks: detection of missing and altered messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import recorder_kills
import recording
from rclpy.serialization import serialize_message
from recording_source import IMAGES, JOINTS, TOPICS, numbered, pictures, read_number, write_number
from sensor_msgs.msg import CompressedImage, Image, JointState

from genima.data.episodes.bag_recorder import BagRecorder
from genima.errors import GenimaError
from genima_nodes.recorder import encode

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"

START = 1_700_000_000_000_000_000
SENT = {topic: START + np.arange(20) * 1_000_000 for topic in TOPICS}  # ns
PICTURES = pictures(640, 480)


@pytest.mark.parametrize("size", [(640, 480), (128, 128)])
def test_number_survives_jpeg(size: tuple[int, int]) -> None:
    for number in (0, 1, numbered(3, 123_456), numbered(1, 2**24 - 1), 0xAAAAAAAA, 2**32 - 1):
        image = pictures(*size, count=1)[0]
        write_number(image, number)
        assert read_number(image[..., 0]) == number
        back = cv2.imdecode(np.frombuffer(encode(image, "jpeg"), np.uint8), cv2.IMREAD_COLOR)
        assert read_number(back[..., 2]) == number


def stamped(message: Any, number: int, late: int = 0) -> Any:
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(START + number * 1_000_000 + late, 10**9)
    return message


def joints(number: int, late: int = 0) -> JointState:
    return stamped(JointState(position=[0.0], velocity=[0.0], effort=[float(number)]), number, late)


def image(number: int, images: str, view: int = 1, damaged: bool = False) -> Image | CompressedImage:
    picture = PICTURES[(number + view) % len(PICTURES)].copy()
    write_number(picture, numbered(view, number))
    if damaged:
        picture[300, 300] ^= 1
    if images == "raw":
        return stamped(Image(width=640, height=480, step=1920, encoding="rgb8", data=picture.tobytes()), number)
    return stamped(CompressedImage(format=f"rgb8; {images} compressed bgr8", data=encode(picture, images)), number)


def bag(folder: Path, messages: list[tuple[str, Any]]) -> Path:
    with BagRecorder(folder / "bag", reserve_bytes=0) as recorder:
        for topic, kind in {topic: type(message) for topic, message in messages}.items():
            recorder.add_topic(topic, f"sensor_msgs/msg/{kind.__name__}")
        for topic, message in messages:
            stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            recorder.write(topic, serialize_message(message), stamp + 2_000_000)
    return folder / "bag"


def test_missing_repeated_late_and_changed_joints_are_counted(tmp_path: Path) -> None:
    sequence = [joints(n) for n in (3, 4, 6, 5, 8, 8, 9)] + [joints(10, late=1), stamped(joints(2), 12)]
    folder = bag(tmp_path, [(JOINTS, message) for message in sequence])
    kept = recording.compare(folder, SENT, {"joints": (JOINTS,)})["joints"]
    assert (kept.sent, kept.lost, kept.twice, kept.disordered, kept.altered) == (10, 2, 1, 1, 2)
    assert kept.lag == pytest.approx({"p50": 2.0, "p99": 2.0, "max": 2.0})


@pytest.mark.parametrize("images, altered", [("raw", 3), ("png", 3), ("jpeg", 2)])
def test_wrong_and_damaged_images_are_counted(tmp_path: Path, images: str, altered: int) -> None:
    topic = IMAGES[1] if images == "raw" else f"{IMAGES[1]}/compressed"
    sequence = [image(n, images) for n in (5, 6, 8)]
    sequence += [image(9, images, view=2), stamped(image(4, images), 10), image(11, images, damaged=True)]
    folder = bag(tmp_path, [(topic, message) for message in sequence])
    kept = recording.compare(folder, SENT, {"images": IMAGES[1:2]})["images"]
    assert (kept.sent, kept.lost, kept.twice, kept.disordered, kept.altered) == (7, 1, 0, 0, altered)
    with pytest.raises(GenimaError, match="holds nothing of /cameras/front/color/image_raw"):
        recording.compare(folder, SENT)


def test_loss_is_age_of_oldest_message(tmp_path: Path) -> None:
    sent = {topic: stamps if topic == JOINTS else stamps[:0] for topic, stamps in SENT.items()}
    begin, end = START + 3_000_000, START + 18_000_000
    kept = bag(tmp_path, [(JOINTS, joints(n)) for n in range(15)])
    assert recorder_kills.loss(kept, sent, begin, end) == pytest.approx(0.003)
    assert recorder_kills.loss(kept, sent, begin, START + 14_000_000) == 0.0
    assert recorder_kills.loss(tmp_path / "none", sent, begin, end) == pytest.approx(0.015)


@pytest.mark.parametrize(
    "script, arguments, expected",
    [
        ("recording.py", ["--minutes", "0"], "must be positive"),
        ("recording.py", ["--out", "/dev/null/file.json"], "/dev/null"),
        ("recorder_kills.py", ["--kills", "0"], "must be positive"),
    ],
)
def test_invalid_options_are_rejected(script: str, arguments: list[str], expected: str) -> None:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and expected in done.stderr
    assert "Traceback" not in done.stderr
