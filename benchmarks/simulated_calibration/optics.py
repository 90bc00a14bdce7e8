"""Camera model: distortion, blur and noise of a real camera, applied to a rendered image.

::

    wide pinhole render ──► distorted, at twice the size ──► pixels ──► blurred ──► exposed, with noise ──► 8 bits
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.cameras.intrinsics import CameraIntrinsics
from genima.errors import GenimaError
from genima.types import Image

WIDTH, HEIGHT = 640, 480  # px
RENDER_WIDTH, RENDER_HEIGHT, RENDER_FOCAL = 1440, 1120, 1230.0  # px: twice the size, and what distortion brings in
_SUPERSAMPLING = 2  # pixels of a distorted image per pixel of the camera
_BLACK, _WHITE = 16.0, 205.0  # of 255: ink with a camera's stray light, paper in good light
_SHOT = 0.04  # variance per level: a deviation of 2.9 at white
_READ = 1.2  # levels, deviation in the dark
_EXPOSURE = 0.75, 1.1
_CONVERGED = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 50, 1e-10)


@dataclass(frozen=True)
class Sensor:
    """Blur and noise of a camera."""

    blur: float = 0.7  # px, standard deviation of a Gaussian
    noise: float = 1.0  # relative to a usual sensor; 0: constant exposure, too


def random_intrinsics(rng: np.random.Generator) -> CameraIntrinsics:
    """Return random intrinsics like those of a RealSense D415's colour camera at 640x480, with more distortion."""
    fx, (dx, dy) = rng.uniform(610, 622), rng.uniform(-8, 8, 2)
    k1, k2, k3 = rng.normal([0.12, -0.24, 0.10], [0.03, 0.04, 0.04])
    p1, p2 = rng.normal(0.0, 5e-4, 2)
    fy = fx * rng.uniform(0.998, 1.002)
    return CameraIntrinsics(WIDTH, HEIGHT, fx, fy, WIDTH / 2 + dx, HEIGHT / 2 + dy, (k1, k2, p1, p2, k3))


@lru_cache(maxsize=4)  # takes as long as rendering several images
def pixel_rays(intrinsics: CameraIntrinsics) -> NDArray[np.float32]:
    """Return the ray of each supersampled pixel, (960, 1280, 2): x and y at z = 1 in the optical frame.

    Raises:
        GenimaError: for another image size, or a distortion with rays outside the render.
    """
    if (intrinsics.width, intrinsics.height) != (WIDTH, HEIGHT):
        raise GenimaError(
            f"simulated camera: images are {WIDTH}x{HEIGHT} px, not {intrinsics.width}x{intrinsics.height} px"
        )
    x, y = ((np.arange(n * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING for n in (WIDTH, HEIGHT))
    pixels = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 1, 2)
    distortion = np.array(intrinsics.distortion)
    rays = cv2.undistortPointsIter(pixels, intrinsics.K, distortion, np.eye(3), np.eye(3), _CONVERGED)[:, 0]
    if not np.all(np.abs(rays) * RENDER_FOCAL < [RENDER_WIDTH / 2, RENDER_HEIGHT / 2]):
        raise GenimaError(
            f"simulated camera: rays outside the render (distortion {list(intrinsics.distortion)}); reduce it"
        )
    return rays.reshape(len(y), len(x), 2).astype(np.float32)


def expose(render: Image, rays: NDArray[np.float32], sensor: Sensor, rng: np.random.Generator) -> Image:
    """Return the image (480, 640, 3) for a render (1120, 1440, 3) of a central pinhole camera of ``RENDER_FOCAL``."""
    middle = np.array([RENDER_WIDTH, RENDER_HEIGHT], np.float32) / 2 - 0.5  # OpenCV's pixel centres are integers
    x, y = cv2.split(rays * np.float32(RENDER_FOCAL) + middle)
    distorted = cv2.remap(render, x, y, cv2.INTER_LINEAR).astype(np.float32)
    light = cv2.resize(distorted, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    if sensor.blur > 0:
        light = cv2.GaussianBlur(light, (0, 0), sensor.blur)
    level = _BLACK + light * ((_WHITE - _BLACK) / 255)
    if sensor.noise > 0:
        level = level * rng.uniform(*_EXPOSURE)
        deviation = sensor.noise * np.sqrt(_SHOT * level + _READ**2)
        level += deviation * rng.standard_normal(level.shape, np.float32)
    return np.clip(np.rint(level), 0, 255).astype(np.uint8)
