"""Tests of the comparison of a scene with an episode's first images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from recorded_messages import compressed, raw, record, table

from genima.cameras.scene_comparison import LIVE_COLOUR, MATCH, REFERENCE_COLOUR, Reference
from genima.data.episodes import EpisodeError
from genima.data.episodes.bag import compressed_topic, raw_topic, read_messages, types
from genima.data.episodes.frames import first_images
from genima.errors import GenimaError
from genima.types import Image
from genima_sim.environment import Environment

FRONT = raw_topic("front")
SEEDS = (0, 7)
STEPS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1)  # m
DIRECTIONS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])


def scene(
    environment: Environment, seed: int, moved: str = "", by: NDArray[np.floating] | None = None
) -> Mapping[str, Image]:
    """The views of a simulated scene, with an object moved by (2,) m."""
    simulation = environment.simulation
    simulation.reset("push_button", seed)
    if by is not None:
        simulation.model.body(moved).pos[:2] += by
        if moved == "saucepan":
            simulation.data.joint("lid").qpos[:2] += by
    return environment.observe().images


def lit(image: Image, gain: Any = 1.0, offset: float = 0.0, noise: float = 0.0) -> Image:
    """The same scene in another light, by a camera with noise; both in levels of 255."""
    changed = image * np.asarray(gain, float) + offset + np.random.default_rng(0).normal(0, noise, image.shape)
    return np.clip(changed, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"noise": 12},
        {"gain": 0.9, "noise": 6},
        {"gain": 1.1, "noise": 6},
        {"gain": (1.1, 1.0, 0.9), "noise": 6},
        {"offset": 12, "noise": 6},
        {"offset": -12, "noise": 6},
    ],
)
def test_noise_and_light_are_no_difference(environment: Environment, change: dict[str, Any]) -> None:
    for seed in SEEDS:
        for view, image in scene(environment, seed).items():
            assert Reference(image).compare(lit(image, **change)).difference < MATCH / 10, (seed, view)


@pytest.mark.parametrize("moved", ["button", "saucepan"])
@pytest.mark.parametrize("change", [pytest.param({}, marks=pytest.mark.nightly), {"gain": 1.1, "noise": 6}])
def test_difference_grows_with_displacement(environment: Environment, moved: str, change: dict[str, Any]) -> None:
    for seed in SEEDS:
        references = {view: Reference(image) for view, image in scene(environment, seed).items()}
        for direction in DIRECTIONS:
            rows = []  # (steps, views)
            for step in STEPS:
                images = scene(environment, seed, moved, step * direction)
                rows.append([references[view].compare(lit(images[view], **change)).difference for view in references])
            differences = np.array(rows)
            assert (np.diff(differences, axis=0) > 0).all(), (seed, direction, differences)
            assert differences[1].max() > MATCH, "a centimetre is not seen"


def test_covered_lens_is_difference(environment: Environment) -> None:
    image = scene(environment, 0)["wrist"]
    for live in (np.zeros_like(image), np.full_like(image, 255), lit(np.zeros_like(image), offset=20, noise=3)):
        assert Reference(image).compare(live).difference > 0.3


def test_difference_does_not_depend_on_resolution(environment: Environment) -> None:
    was = scene(environment, 0)["front"]
    is_now = scene(environment, 0, "button", np.array([0.03, 0.0]))["front"]
    small, large = (
        Reference(was.repeat(n, 0).repeat(n, 1)).compare(is_now.repeat(n, 0).repeat(n, 1)).difference for n in (1, 3)
    )
    assert small == pytest.approx(large, rel=0.1)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_difference_is_fraction(h: int, w: int, seed: int) -> None:
    was, is_now = np.random.default_rng(seed).integers(0, 256, (2, h, w, 3), dtype=np.uint8)
    comparison = Reference(was).compare(is_now)
    assert 0 <= comparison.difference <= 1
    assert comparison.overlay().shape == (h, w, 3)
    assert Reference(was).compare(was).difference == 0


def test_overlay_outlines_reference_and_live_objects() -> None:
    was, is_now = table(30), table(100)
    picture = Reference(was).compare(is_now).overlay()
    (belongs,), (stands,) = (
        {(int(columns.min()), int(columns.max()))}
        for columns in (np.nonzero((picture == colour).all(axis=-1))[1] for colour in (REFERENCE_COLOUR, LIVE_COLOUR))
    )
    assert belongs == pytest.approx((30, 70), abs=2) and stands == pytest.approx((100, 140), abs=2)
    assert (picture[100, 50] == (125, 100, 95)).all(), "not half transparent"
    assert (picture[:60] == 160).all() and (picture[140:] == 160).all()


def test_overlay_of_equal_images_has_no_outlines() -> None:
    was, is_now = table(30), lit(table(30), gain=1.1)
    picture = Reference(was).compare(is_now).overlay().astype(int)
    assert np.abs(picture - (was.astype(int) + is_now) / 2).max() <= 1


def test_another_size_is_rejected() -> None:
    with pytest.raises(GenimaError, match=r"image: size differs from the episode's \(100x100, 200x200\)"):
        Reference(table(30)).compare(table(30, size=100))


# The episode's start.


def test_first_images_are_of_episode_start(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)
    streams = {
        FRONT: [raw(i, picture, "bgr8") for i, picture in enumerate(pictures)],
        compressed_topic("wrist"): [compressed(i, picture) for i, picture in enumerate(pictures[1:])],
    }
    images = first_images(record(tmp_path / "one", streams))
    assert set(images) == {"front", "wrist"}
    np.testing.assert_array_equal(images["front"], pictures[0])
    np.testing.assert_array_equal(images["wrist"], pictures[1])


def test_long_recording_is_not_read_to_its_end(tmp_path: Path) -> None:
    picture = np.zeros((240, 320, 3), np.uint8)
    folder = record(tmp_path / "one", {FRONT: [raw(i, picture) for i in range(20)]}, chunk_bytes=picture.size)
    (file,) = folder.glob("*.mcap")
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) * 3 // 4] = b"\xff" * (len(data) * 3 // 4 - len(data) // 2)
    file.write_bytes(data)
    with pytest.raises(EpisodeError):
        read_messages(folder)
    assert (first_images(folder)["front"] == picture).all()


def test_episode_without_start_is_rejected_in_one_line(tmp_path: Path) -> None:
    broken = compressed(0, np.zeros((8, 8, 3), np.uint8))
    broken.data = broken.data[:20]
    no_image = types().types["std_msgs/msg/String"](data="wave")
    folders = {
        "cannot be read": tmp_path / "nowhere",
        "no camera was recorded": record(tmp_path / "task", {"/task": [no_image]}),
        "/cameras/front/color/image_raw/compressed: image cannot be decoded": record(
            tmp_path / "broken", {compressed_topic("front"): [broken]}
        ),
    }
    for expected, folder in folders.items():
        with pytest.raises(EpisodeError, match=expected) as error:
            first_images(folder)
        assert "\n" not in str(error.value)
