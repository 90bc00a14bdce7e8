"""A RealSense D415 of librealsense's own making: its software device, with a real one's colour and depth sensors.

Whoever has librealsense's bindings can open it like a real camera, plug it in and unplug it.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyrealsense2 as rs
from numpy.typing import NDArray

# Of a D415: the colour lens is 15 mm beside the depth sensor, turned a little.
TRANSLATION = (0.015, 0.0001, -0.0002)  # m, of the colour lens in the depth sensor's optical frame
ANGLE = 0.004  # rad, about the vertical
RATES = (30, 15)
SIZE = (64, 48)
LENS = (60.0, 61.0, 31.25, 23.5)  # fx, fy, ppx, ppy


class Bus:
    """What is plugged in."""

    def __init__(self, *cameras: SoftwareCamera) -> None:
        self.cameras = list(cameras)

    def __call__(self) -> list[Any]:
        return [camera.device for camera in self.cameras]


class SoftwareCamera:
    """``usb`` is what the device says of its port; ``coefficients`` are of its lens, ``size`` (w, h) of its images."""

    def __init__(
        self,
        serial: str,
        usb: str = "3.2",
        coefficients: tuple[float, ...] = (0.0,) * 5,
        depth: bool = True,
        size: tuple[int, int] = SIZE,
        lens: tuple[float, ...] = LENS,
    ) -> None:
        self.device, self._size = rs.software_device(), size
        for name, value in {
            "serial_number": serial,
            "name": "Intel RealSense D415",
            "firmware_version": "5.17.0.10",
            "usb_type_descriptor": usb,
        }.items():
            self.device.register_info(getattr(rs.camera_info, name), value)
        self.number = 0
        self._color = self.device.add_sensor("RGB Camera")
        self._allow("exposure", 1, 10000, 156)
        self._allow("enable_auto_exposure", 0, 1, 1)
        self._allow("global_time_enabled", 0, 1, 0)
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
            stereo = self.device.add_sensor("Stereo Module")
            seen = stereo.add_video_stream(_stream(rs.stream.depth, rs.format.z16, 30, 10, intrinsics))
            to_depth = rs.extrinsics()
            c, s = np.cos(ANGLE), np.sin(ANGLE)
            to_depth.rotation = [float(value) for value in np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T.ravel()]
            to_depth.translation = list(TRANSLATION)
            for profile in profiles:
                profile.register_extrinsics_to(seen, to_depth)

    def option(self, name: str) -> float:
        """Of the colour sensor."""
        return float(self._color.get_option(getattr(rs.option, name)))

    def expose(
        self,
        seen: int | NDArray[np.uint8] = 7,
        stamp: float | None = None,
        domain: str = "global_time",
        lose: int = 0,
    ) -> float:
        """Take an image (h, w, 3), or a grey one, after so many that get lost; returns its stamp in s."""
        self.number += 1 + lose
        stamp = time.time() if stamp is None else stamp
        frame = rs.software_video_frame()
        width, height = self._size
        frame.pixels = np.ascontiguousarray(np.broadcast_to(np.asarray(seen, np.uint8), (height, width, 3)))
        frame.stride, frame.bpp = 3 * width, 3
        frame.timestamp, frame.domain = 1e3 * stamp, getattr(rs.timestamp_domain, domain)
        frame.frame_number = self.number
        frame.profile = self._profiles[30].as_video_stream_profile()
        self._color.on_video_frame(frame)
        return stamp

    def _allow(self, name: str, low: float, high: float, now: float) -> None:
        span = rs.option_range()
        span.min, span.max, span.step, span.default = low, high, 1, now
        self._color.add_option(getattr(rs.option, name), span, True)


def _stream(kind: Any, form: Any, rate: int, uid: int, lens: Any) -> Any:
    stream = rs.video_stream()
    stream.type, stream.fmt, stream.index, stream.uid = kind, form, 0, uid
    stream.width, stream.height = lens.width, lens.height
    stream.fps, stream.bpp, stream.intrinsics = rate, 3 if kind == rs.stream.color else 2, lens
    return stream
