"""Undistortion to square pixels and a centred optical axis, the only camera that MuJoCo renders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from genima.cameras.camera import NO_DISTORTION, Camera
from genima.cameras.undistortion import remap, undistortion_maps
from genima.errors import GenimaError
from genima.types import Image


class ImageUndistorter:
    """Undistorter for the images of one camera."""

    def __init__(self, camera: Camera) -> None:
        focal = float(np.sqrt(camera.fx * camera.fy))
        self.camera = replace(
            camera, fx=focal, fy=focal, cx=camera.width / 2, cy=camera.height / 2, distortion=NO_DISTORTION
        )
        self._maps = undistortion_maps(camera, self.camera.camera_info()["k"].reshape(3, 3))
        self._same = not any(camera.distortion) and np.allclose(camera.K, self.camera.K)

    def __call__(self, image: Image) -> Image:
        """Return the image (h, w, 3) of :attr:`camera`; its edges are repeated beyond the sensor.

        Raises:
            GenimaError: for an image of another size.
        """
        width, height = self.camera.width, self.camera.height
        if image.shape != (height, width, 3):
            raise GenimaError(
                f"image of {self.camera.view}: size {image.shape[1]} x {image.shape[0]}, but intrinsics for {width} x "
                f"{height}; take both from the same stream"
            )
        return image if self._same else remap(image, self._maps)
