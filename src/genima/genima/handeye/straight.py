"""Images as the camera would have made them with square pixels, its axis in the middle and without distortion: only
such can MuJoCo draw the robot for."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from genima.errors import GenimaError
from genima.handeye.intrinsics import Intrinsics
from genima.observation import Image
from genima.views.camera import NO_DISTORTION, Camera


class Straightener:
    """For the images of one camera."""

    def __init__(self, camera: Camera) -> None:
        focal = float(np.sqrt(camera.fx * camera.fy))
        self.camera = replace(
            camera, fx=focal, fy=focal, cx=camera.width / 2, cy=camera.height / 2, distortion=NO_DISTORTION
        )
        K, d, K_straight = Intrinsics.of(camera).K, np.array(camera.distortion), self.camera.K
        for matrix in (K, K_straight):
            matrix[:2, 2] -= 0.5  # OpenCV has the middle of the first pixel at 0
        size = (camera.width, camera.height)
        self._map = cv2.initUndistortRectifyMap(K, d, np.eye(3), K_straight, size, cv2.CV_32FC1)
        self._same = not any(camera.distortion) and np.allclose(K, K_straight)

    def __call__(self, image: Image) -> Image:
        """The image (h, w, 3) that :attr:`camera` would have made; beyond the camera's own its edges are repeated.

        Raises:
            GenimaError: for an image of another size.
        """
        width, height = self.camera.width, self.camera.height
        if image.shape != (height, width, 3):
            raise GenimaError(
                f"the image of {self.camera.view} is {image.shape[1]} x {image.shape[0]}, but its camera's intrinsics "
                f"are for {width} x {height}: take both from the same stream"
            )
        if self._same:
            return image
        x, y = self._map
        return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)
