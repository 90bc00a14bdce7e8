"""Tests of the perturbation of target images: its magnitude and reproducibility."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from genima.data.datasets.augmentation import Augmentation, Blur, ColourCast, ColourJitter, Crop, Elastic, Noise
from genima.data.datasets.backgrounds import random_background
from genima.types import Image

SETTINGS = {"paper": Augmentation.paper(), "small": Augmentation.small()}


def picture(size: int = 64) -> Image:
    image = random_background(np.random.default_rng(2), size)
    image[size // 3 : size // 2, size // 3 : size // 2] = (255, 255, 0)
    return image


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("setting", SETTINGS)
def test_augmentation_keeps_original(setting: str) -> None:
    augment, image = SETTINGS[setting], picture()
    before, changed = image.copy(), 0
    for seed in range(30):
        result = augment(rng(seed), image)
        assert result.shape == image.shape and result.dtype == np.uint8
        coarse = [cv2.GaussianBlur(x.astype(np.float32), (0, 0), 4) for x in (result, image)]
        assert np.abs(coarse[0] - coarse[1]).mean() < 40
        changed += bool((result != image).any())
        np.testing.assert_array_equal(result, augment(rng(seed), image))
    assert 20 < changed <= 30
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("setting", SETTINGS)
def test_transforms_are_applied_with_probability_one_half(setting: str) -> None:
    transforms = SETTINGS[setting].transforms
    for chosen in range(len(transforms)):
        applied: list[int] = []

        def note(_: np.random.Generator, image: Image, applied: list[int] = applied) -> Image:
            applied.append(1)
            return image

        with_note = Augmentation((*transforms[:chosen], note, *transforms[chosen + 1 :]))
        for seed in range(200):
            with_note(rng(seed), picture(16))
        assert 70 < len(applied) < 130


def displacement(elastic: Elastic, seed: int, size: int) -> np.ndarray:
    """Source coordinates of pixels, measured with distorted ramps, (2, size, size) px."""
    ramp = np.tile(np.arange(size, dtype=np.float32), (size, 1)) * (200 / size) + 20
    image = np.stack([ramp, ramp.T, np.zeros_like(ramp)], axis=-1)
    # 8 bits are too coarse for parts of a pixel: the mean over dithered copies is not
    copies = [
        elastic(rng(seed), (image + rng(99 + i).random(image.shape)).astype(np.uint8)).astype(float) for i in range(40)
    ]
    return np.moveaxis((np.mean(copies, axis=0) - image)[..., :2] * size / 200, -1, 0)


def test_elastic_transform_equals_release_in_strength_and_smoothness() -> None:
    """Compare with torchvision's formula for alpha 80 and sigma 10: 40 px times smoothed uniform noise."""
    size, inner = 128, slice(20, -20)
    elastic = next(t for t in SETTINGS["paper"].transforms if isinstance(t, Elastic))
    ours = np.stack([displacement(elastic, seed, size) for seed in range(6)])[..., inner, inner]
    noise = rng(0).uniform(-1, 1, (40, size, size))
    theirs = np.stack([40 * gaussian_filter(field, 10) for field in noise])[..., inner, inner]
    assert theirs.std() == pytest.approx(elastic.shift[0], rel=0.1)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.2)
    for lag in (8, 20):
        correlations = [(x[..., lag:] * x[..., :-lag]).mean() / x.var() for x in (ours, theirs)]
        assert correlations[0] == pytest.approx(correlations[1], abs=0.15)


def test_elastic_shift_and_smoothness() -> None:
    for amount, smoothness in ((0.5, 2.0), (1.5, 6.0)):
        field = displacement(Elastic((amount, amount), (smoothness, smoothness)), 3, 128)[:, 15:-15, 15:-15]
        assert field.std() == pytest.approx(amount, rel=0.25)
        step = round(3 * smoothness)
        near, far = (np.mean(field[..., s:] * field[..., :-s]) / field.var() for s in (1, 2 * step))
        assert near > 0.8 and abs(far) < 0.35


def test_colour_jitter_ranges() -> None:
    ramp = np.tile(np.linspace(60, 160, 64).astype(np.uint8), (64, 1))
    grey = np.stack([ramp] * 3, axis=-1)
    brightness, contrast, hue = [], [], []
    for seed in range(200):
        result = ColourJitter(0.2, 0.2, 0.1, 0.05)(rng(seed), grey).astype(float)
        assert np.ptp(result, axis=-1).max() <= 1  # neither saturation nor hue tints a grey
        brightness.append(result.mean() / grey.mean())
        contrast.append(result.std() / grey.std() / brightness[-1])
    for found in (brightness, contrast):
        assert 0.8 - 0.02 <= min(found) < 0.85 and 1.15 < max(found) <= 1.2 + 0.02
    red = np.full((8, 8, 3), (200, 60, 60), np.uint8)
    for seed in range(200):
        hsv = cv2.cvtColor(ColourJitter(0, 0, 0, 0.05)(rng(seed), red), cv2.COLOR_RGB2HSV)
        hue.append((int(hsv[0, 0, 0]) * 2 + 180) % 360 - 180)
    assert -19 <= min(hue) < -12 and 12 < max(hue) <= 19  # a twentieth of a turn is 18 degrees
    paler = [np.ptp(ColourJitter(0, 0, 0.5, 0)(rng(seed), red)[0, 0].astype(int)) / 140 for seed in range(200)]
    assert 0.5 - 0.02 <= min(paler) < 0.6 and 1.4 < max(paler) <= 1.5 + 0.02


def test_colour_cast_is_linear_per_channel() -> None:
    levels = np.arange(100, 140, dtype=np.uint8)
    image = np.stack([np.tile(levels, (4, 1))] * 3, axis=-1)
    gains, offsets = [], []
    for seed in range(100):
        result = ColourCast(0.25, 20.0)(rng(seed), image)[0].astype(float)
        gain, offset = np.polyfit(levels.astype(float), result, 1)
        gains.append(gain)
        offsets.append(offset)
    assert 0.75 - 0.02 <= np.min(gains) < 0.8 and 1.2 < np.max(gains) <= 1.25 + 0.02
    assert -22 <= np.min(offsets) < -15 and 15 < np.max(offsets) <= 22
    assert np.std(np.ptp(gains, axis=1)) > 0.05  # the channels differ


def test_crop_shifts_by_pixels_and_repeats_edge() -> None:
    y, x = np.mgrid[:32, :32].astype(np.uint8)
    image, shifts = np.stack([y, x, x * y], axis=-1), set()
    for seed in range(800):
        result = Crop(4)(rng(seed), image)
        shift_of_crop = (16 - int(result[16, 16, 0]), 16 - int(result[16, 16, 1]))
        np.testing.assert_array_equal(result, shift(image, (*shift_of_crop, 0), order=0, mode="nearest"))
        shifts.add(shift_of_crop)
    assert shifts == {(y, x) for y in range(-4, 5) for x in range(-4, 5)}


def test_blur_is_gaussian() -> None:
    image = picture()
    expected = gaussian_filter(image.astype(float), (1.5, 1.5, 0), mode="mirror", truncate=6)
    assert np.abs(Blur((1.5, 1.5))(rng(0), image) - expected).max() < 2


def test_noise_deviation_and_grain() -> None:
    grey = np.full((128, 128, 3), 128, np.uint8)
    noise = Noise((5.0, 5.0))(rng(0), grey).astype(float) - 128
    assert noise.std() == pytest.approx(5, rel=0.05) and abs(noise.mean()) < 0.2
    assert abs(np.mean(noise[1:] * noise[:-1])) < 0.05 * noise.var()
    coarse = Noise((20.0, 20.0), (3, 3))(rng(0), grey).astype(float) - 128
    assert np.mean(coarse[1:] * coarse[:-1]) > 0.5 * coarse.var()
    black = Noise((50.0, 50.0))(rng(1), np.zeros_like(grey))
    assert black.max() < 255 and (black == 0).mean() == pytest.approx(0.5, abs=0.02)  # nothing wraps round
