"""Stand-in for a RealSense D415: librealsense's software device with colour and depth sensors.

Programs with librealsense's bindings open it like a real camera; tests connect and disconnect it.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyrealsense2 as rs
from numpy.typing import NDArray

# Of a D415: the colour lens is 15 mm from the depth sensor, slightly rotated.
TRANSLATION = (0.015, 0.0001, -0.0002)  # m, colour lens in the depth sensor's optical frame
ANGLE = 0.004  # rad, about the vertical
RATES = (30, 15)
SIZE = (64, 48)
LENS = (60.0, 61.0, 31.25, 23.5)  # fx, fy, ppx, ppy
DEPTH_UNIT = 0.0001  # m, of a D405; other cameras have 1 mm


class Bus:
    """Connected devices."""

    def __init__(self, *cameras: SoftwareCamera) -> None:
        self.cameras = list(cameras)

    def __call__(self) -> list[Any]:
        return [camera.device for camera in self.cameras]


class SoftwareCamera:
    """Software device; ``usb``: type of its port, ``coefficients`` of its lens, ``size`` (w, h) of its images.

    ``single_sensor``: colour and depth are of one sensor, as in a D405.
    """

    def __init__(
        self,
        serial: str,
        usb: str = "3.2",
        coefficients: tuple[float, ...] = (0.0,) * 5,
        depth: bool = True,
        size: tuple[int, int] = SIZE,
        lens: tuple[float, ...] = LENS,
        single_sensor: bool = False,
    ) -> None:
        self.device, self._size = rs.software_device(), size
        for name, value in {
            "serial_number": serial,
            "name": "Intel RealSense D415",
            "firmware_version": "5.17.0.10",
            "usb_type_descriptor": usb,
        }.items():
            self.device.register_info(getattr(rs.camera_info, name), value)
        self.number = self._depth_number = 0
        self._stamp: float | None = None  # s, of the last image with depth
        self._color = self.device.add_sensor("RGB Camera")
        self._add_option("exposure", 1, 10000, 156)
        self._add_option("enable_auto_exposure", 0, 1, 1)
        self._add_option("global_time_enabled", 0, 1, 0)
        intrinsics = rs.intrinsics()
        intrinsics.width, intrinsics.height = size
        intrinsics.fx, intrinsics.fy, intrinsics.ppx, intrinsics.ppy = lens
        intrinsics.model, intrinsics.coeffs = rs.distortion.inverse_brown_conrady, list(coefficients)
        profiles = [
            self._color.add_video_stream(_stream(rs.stream.color, rs.format.rgb8, rate, uid, intrinsics))
            for uid, rate in enumerate(RATES, start=1)
        ]
        self._profiles = dict(zip(RATES, profiles, strict=True))
        if depth:
            self._stereo = self._color if single_sensor else self.device.add_sensor("Stereo Module")
            self._stereo.add_read_only_option(rs.option.depth_units, DEPTH_UNIT)
            depth_profile = self._stereo.add_video_stream(_stream(rs.stream.depth, rs.format.z16, 30, 10, intrinsics))
            self._depth_profile = depth_profile
            to_depth = rs.extrinsics()
            c, s = np.cos(ANGLE), np.sin(ANGLE)
            to_depth.rotation = [float(value) for value in np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T.ravel()]
            to_depth.translation = list(TRANSLATION)
            for profile in profiles:
                profile.register_extrinsics_to(depth_profile, to_depth)

    def option(self, name: str) -> float:
        """Return an option of the colour sensor."""
        return float(self._color.get_option(getattr(rs.option, name)))

    def expose(
        self,
        pixels: int | NDArray[np.uint8] = 7,
        stamp: float | None = None,
        domain: str = "global_time",
        lose: int = 0,
    ) -> float:
        """Produce an image (h, w, 3) or of one grey value, after ``lose`` lost ones; return its stamp in s."""
        self.number += 1 + lose
        stamp = time.time() if stamp is None else stamp
        frame = rs.software_video_frame()
        width, height = self._size
        frame.pixels = np.ascontiguousarray(np.broadcast_to(np.asarray(pixels, np.uint8), (height, width, 3)))
        frame.stride, frame.bpp = 3 * width, 3
        frame.timestamp, frame.domain = 1e3 * stamp, getattr(rs.timestamp_domain, domain)
        frame.frame_number = self.number
        frame.profile = self._profiles[30].as_video_stream_profile()
        self._color.on_video_frame(frame)
        return stamp

    def expose_with_depth(self, pixels: int | NDArray[np.uint8], distances: float | NDArray[np.floating]) -> float:
        """Produce an image and the depth image of its moment; return their stamp in s.

        The stamps are one period apart: librealsense pairs images by them and by the rate.
        """
        self._stamp = time.time() if self._stamp is None else self._stamp + 1 / RATES[0]
        self.expose(pixels, self._stamp)
        self._measure_depth(distances, self._stamp)
        return self._stamp

    def _measure_depth(self, distances: float | NDArray[np.floating], stamp: float) -> None:
        """Produce a depth image (h, w) of the depth sensor, or of one distance, in m."""
        self._depth_number += 1
        frame = rs.software_video_frame()
        width, height = self._size
        steps = np.round(np.broadcast_to(distances, (height, width)) / DEPTH_UNIT)
        frame.pixels = np.ascontiguousarray(steps, np.uint16)
        frame.stride, frame.bpp, frame.depth_units = 2 * width, 2, DEPTH_UNIT
        frame.timestamp, frame.domain = 1e3 * stamp, rs.timestamp_domain.global_time
        frame.frame_number = self._depth_number
        frame.profile = self._depth_profile.as_video_stream_profile()
        self._stereo.on_video_frame(frame)

    def _add_option(self, name: str, low: float, high: float, now: float) -> None:
        option_range = rs.option_range()
        option_range.min, option_range.max, option_range.step, option_range.default = low, high, 1, now
        self._color.add_option(getattr(rs.option, name), option_range, True)


def _stream(kind: Any, form: Any, rate: int, uid: int, lens: Any) -> Any:
    stream = rs.video_stream()
    stream.type, stream.fmt, stream.index, stream.uid = kind, form, 0, uid
    stream.width, stream.height = lens.width, lens.height
    stream.fps, stream.bpp, stream.intrinsics = rate, 3 if kind == rs.stream.color else 2, lens
    return stream
