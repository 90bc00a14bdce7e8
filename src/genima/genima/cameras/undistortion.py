"""Images as a pinhole camera would have made them, so that drawn targets, which know no lens, lie where they belong.

This is the way in for images of real cameras: what is tiled, and what a dataset is rendered from, has passed here.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera import Camera
from genima.cameras.intrinsics import CameraIntrinsics
from genima.errors import GenimaError
from genima.types import Image

UndistortionMaps = tuple[NDArray[np.integer], NDArray[np.integer]]  # as cv2.remap takes them

_SAME_LENS = 0.03  # of the image's width: refined intrinsics differ by less, other resolutions by more
_LOOKED_AT = np.array([0.1, 0.5, 0.9])  # of the image's width and height


class Undistorter:
    """Rectifies one camera's images; those of a camera without distortion stay the very same."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self._maps: dict[tuple[int, int], UndistortionMaps] = {}  # by image size

    def __call__(self, image: Image) -> Image:
        """The image (h, w, 3) as with the camera's ``K`` and without distortion; beyond its edges these are repeated.

        It may be smaller or larger than those that the camera was calibrated with, as if resized.

        Raises:
            GenimaError: when its sides have another ratio than theirs.
        """
        camera, (h, w, _) = self.camera, image.shape
        self._require_size(w, h, "the image")
        if not any(camera.distortion):
            return image
        if (w, h) not in self._maps:
            scaled = camera.scaled(w, h)
            self._maps[w, h] = undistortion_maps(scaled, scaled.camera_info()["k"].reshape(3, 3))
        return remap(image, self._maps[w, h])

    def require(self, lens: CameraIntrinsics) -> None:
        """Raise a GenimaError unless a driver's camera_info says about the same as the calibration."""
        self._require_size(lens.width, lens.height, "camera_info")
        own = CameraIntrinsics.of(self.camera.scaled(lens.width, lens.height))
        size = np.array([lens.width, lens.height])
        pixels = np.stack(np.meshgrid(*(_LOOKED_AT * side for side in size)), -1).reshape(-1, 2)
        straight = cv2.undistortPoints(pixels[:, None], own.K, np.array(own.distortion))[:, 0]
        off = np.abs(lens.project(np.column_stack([straight, np.ones(len(straight))])) - pixels).max()
        if not off < _SAME_LENS * lens.width:
            raise GenimaError(
                f"camera_info does not fit the calibration of {self.camera.view}: by their lenses (fx "
                f"{lens.fx:.0f} against {own.fx:.0f} px) the same things are seen up to {off:.0f} px apart. Is it "
                "another camera, or does the driver run another resolution? Run it as calibrated, or calibrate anew"
            )

    def _require_size(self, width: int, height: int, what: str) -> None:
        camera = self.camera
        if width * camera.height != height * camera.width:
            raise GenimaError(
                f"{what} is {width}x{height}, but {camera.view} was calibrated at {camera.width}x{camera.height}: let "
                "the driver run that resolution, or calibrate anew"
            )


def undistortion_maps(camera: Camera, K: NDArray[np.float64]) -> UndistortionMaps:
    """Where each pixel of a pinhole camera of the same size and place lies in the camera's images.

    Args:
        K: the pinhole's camera matrix (3, 3), pixel centres at n as in camera_info.
    """
    info, size = camera.camera_info(), (camera.width, camera.height)
    x, y = cv2.initUndistortRectifyMap(info["k"].reshape(3, 3), info["d"], np.eye(3), K, size, cv2.CV_16SC2)
    return np.asarray(x, np.int16), np.asarray(y, np.uint16)


def remap(image: Image, maps: UndistortionMaps) -> Image:
    """The pinhole camera's image (h, w, 3); beyond the edges of ``image`` these are repeated."""
    return np.asarray(cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)
