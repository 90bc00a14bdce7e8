"""Undistortion of camera images to the pinhole model that targets are rendered with.

All images of real cameras are undistorted before they are tiled or rendered into a dataset.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera import Camera
from genima.cameras.intrinsics import CameraIntrinsics
from genima.errors import GenimaError
from genima.types import Image

UndistortionMaps = tuple[NDArray[np.integer], NDArray[np.integer]]  # arguments of cv2.remap

_LENS_TOLERANCE = 0.03  # of the image's width: refined intrinsics differ by less, other resolutions by more
_GRID = np.array([0.1, 0.5, 0.9])  # of the image's width and height: compared pixels


class Undistorter:
    """Undistortion of one camera's images; images without distortion are returned unchanged."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self._maps: dict[tuple[int, int], UndistortionMaps] = {}  # by image size

    def __call__(self, image: Image) -> Image:
        """Undistort an image (h, w, 3) to the camera's ``K``; edge pixels are repeated outside.

        The image may be resized with respect to the calibration.

        Raises:
            GenimaError: for another aspect ratio than the calibration's.
        """
        maps = self._maps_of(image.shape[1], image.shape[0])
        return image if maps is None else remap(image, maps)

    def depth(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undistort a depth image (h, w) of the same lens, to the nearest pixels; what is outside is unknown, 0.

        Raises:
            As :meth:`__call__`.
        """
        maps = self._maps_of(depth.shape[1], depth.shape[0])
        return depth if maps is None else np.asarray(cv2.remap(depth, *maps, cv2.INTER_NEAREST), np.float32)

    def _maps_of(self, width: int, height: int) -> UndistortionMaps | None:
        """Return the maps of images of a size; None: no distortion."""
        camera = self.camera
        self._require_size(width, height, "image")
        if not any(camera.distortion):
            return None
        if (width, height) not in self._maps:
            scaled = camera.scale(width, height)
            self._maps[width, height] = undistortion_maps(scaled, scaled.camera_info()["k"].reshape(3, 3))
        return self._maps[width, height]

    def require_intrinsics(self, lens: CameraIntrinsics) -> None:
        """Raise a GenimaError unless a driver's camera_info fits the calibration."""
        self._require_size(lens.width, lens.height, "camera_info")
        own = CameraIntrinsics.of(self.camera.scale(lens.width, lens.height))
        size = np.array([lens.width, lens.height])
        pixels = np.stack(np.meshgrid(*(_GRID * side for side in size)), -1).reshape(-1, 2)
        undistorted = cv2.undistortPoints(pixels[:, None], own.K, np.array(own.distortion))[:, 0]
        off = np.abs(lens.project(np.column_stack([undistorted, np.ones(len(undistorted))])) - pixels).max()
        if not off < _LENS_TOLERANCE * lens.width:
            raise GenimaError(
                f"camera_info of {self.camera.view}: does not fit its calibration (fx {lens.fx:.0f} and {own.fx:.0f} "
                f"px, pixels differ by up to {off:.0f} px); is it another camera or resolution? Set the calibrated "
                "one, or calibrate again"
            )

    def _require_size(self, width: int, height: int, what: str) -> None:
        camera = self.camera
        if width * camera.height != height * camera.width:
            raise GenimaError(
                f"{what} of {camera.view}: aspect ratio differs from its calibration's ({width}x{height}, "
                f"{camera.width}x{camera.height}); set that resolution in the driver, or calibrate again"
            )


def undistortion_maps(camera: Camera, K: NDArray[np.float64]) -> UndistortionMaps:
    """Compute the remap from a pinhole camera of the same size and pose to the camera's images.

    Args:
        K: the pinhole's camera matrix (3, 3), pixel centres at n as in camera_info.
    """
    info, size = camera.camera_info(), (camera.width, camera.height)
    x, y = cv2.initUndistortRectifyMap(info["k"].reshape(3, 3), info["d"], np.eye(3), K, size, cv2.CV_16SC2)
    return np.asarray(x, np.int16), np.asarray(y, np.uint16)


def remap(image: Image, maps: UndistortionMaps) -> Image:
    """Remap an image to the pinhole camera's (h, w, 3); edge pixels are repeated outside."""
    return np.asarray(cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)
