"""Colour images of one RealSense camera by librealsense's Python bindings.

The output is that of the ROS driver realsense2_camera (4.58): unrectified rgb8, the stored intrinsics, and the colour
frame relative to the depth sensor as stored in the device. librealsense's software devices are used like real ones.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genima.cameras.frame_tree import T_LINK_OPTICAL
from genima.errors import GenimaError
from genima.robot.rigid_transforms import inverse, pose
from genima.types import Image
from genima_nodes.drivers.optional_library import import_library

_FIRST = 5.0  # s until the first image: a camera takes one or two to start
_SILENT = 1.0  # s without an image after which something is wrong
_PROFILE = re.compile(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)")
# Options of the colour sensor by librealsense's names; the automatic ones first: they decide whether the others count.
OPTIONS = (
    "enable_auto_exposure",
    "auto_exposure_priority",
    "exposure",
    "gain",
    "enable_auto_white_balance",
    "white_balance",
    "power_line_frequency",
)


@dataclass(frozen=True)
class ColorProfile:
    """Requested image format."""

    width: int  # px
    height: int  # px
    rate: int  # Hz

    @classmethod
    def of(cls, text: str) -> ColorProfile:
        """Parse ``640x480x30``.

        Raises:
            GenimaError: for anything else.
        """
        if not (match := _PROFILE.fullmatch(text)):
            raise GenimaError(f"the colour profile is {text!r}; it must be like 640x480x30")
        return cls(*map(int, match.groups()))

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.rate}"


@dataclass(frozen=True)
class Frame:
    """One image."""

    stamp: float  # s since the epoch on this machine's clock
    image: Image  # (h, w, 3)
    lost: int  # images that the camera took since the one before, and that never came here


@dataclass(frozen=True)
class Opened:
    """Properties of a running camera."""

    serial: str
    model: str
    firmware: str
    usb: str  # as the device writes it: 3.2, 2.1
    T_link_color: NDArray[np.float64]  # (4, 4), frames with x forward; the link is where the depth sensor is
    info: Mapping[str, Any]  # of a ROS CameraInfo, but for its header

    @property
    def on_usb2(self) -> bool:
        """Return whether port, hub or cable limit it to USB 2, a tenth of the bandwidth that it needs."""
        return self.usb.startswith("2")


class ColorCamera:
    """Camera that may be unplugged; after any error, ``open`` it again."""

    def __init__(
        self,
        serial: str,
        profile: ColorProfile,
        options: Mapping[str, float] | None = None,
        plugged_in: Callable[[], Iterable[Any]] | None = None,
    ) -> None:
        """Args:
        serial: serial number; empty for the only camera that there is.
        profile: kind of images.
        options: of the sensor, some of :data:`OPTIONS`.
        plugged_in: the devices that there are; by default those of this machine.

        Raises:
            GenimaError: where librealsense is missing.
        """
        self._rs = import_library("pyrealsense2")
        self._plugged_in = plugged_in or self._rs.context().query_devices
        self.serial, self._profile, self._options = serial, profile, dict(options or {})
        self.clock = ""  # what the stamps were made from, as librealsense calls it
        self._sensor: Any = None
        self._queue: Any = None
        self._number: int | None = None
        self._silent_from = 0.0  # monotonic s

    def open(self) -> Opened:
        """Start the images.

        Raises:
            GenimaError: where the camera is not connected, is not free, or cannot do what is asked for.
        """
        self.close()
        device = self._find()
        opened = None
        try:
            sensor, profile = self._choose(device)
            self._configure(sensor)
            opened = self._describe(device, profile)
            # One place: a late reader gets the latest image, without a queue.
            self._queue = self._rs.frame_queue(1)
            sensor.open(profile)
            self._sensor = sensor
            sensor.start(self._queue)
        except RuntimeError as error:
            self.close()
            line = " ".join(str(error).split())
            raise GenimaError(f"camera {self.serial} does not start ({line}); does another program use it?") from None
        self._number, self._silent_from = None, time.monotonic() + _FIRST
        return opened

    def read(self, timeout: float) -> Frame | None:
        """Return the next image; None when none arrives within ``timeout`` seconds.

        Raises:
            GenimaError: when there has been none for long: it was unplugged, or it is stuck.
        """
        if self._queue is None:
            raise GenimaError(f"camera {self.serial} is not open")
        there, frame = self._queue.try_wait_for_frame(round(1000 * timeout))
        now = time.monotonic()
        if not there:
            if now > self._silent_from:
                self._find()
                raise GenimaError(f"camera {self.serial} sends no images, though it is plugged in")
            return None
        self._silent_from = now + _SILENT
        number = frame.get_frame_number()
        lost = max(0, number - self._number - 1) if self._number is not None else 0
        self._number = number
        return Frame(self._stamp(frame), np.array(frame.get_data(), np.uint8), lost)

    def close(self) -> None:
        """End the images, as far as the camera is still there."""
        sensor, self._sensor, self._queue = self._sensor, None, None
        if sensor is None:
            return
        for end in (sensor.stop, sensor.close):
            try:
                end()
            except RuntimeError:  # it was unplugged, or had not started
                pass

    def _stamp(self, frame: Any) -> float:
        """Return the stamp of a frame in s.

        librealsense's global time is the camera's clock, mapped to this machine's by a linear fit: the read-out
        time of the sensor, without the latency of USB and Python.
        """
        domain = frame.get_frame_timestamp_domain()
        self.clock = domain.name
        if domain == self._rs.timestamp_domain.hardware_clock:  # counts from the camera's start: of no use here
            return time.time()
        return float(1e-3 * frame.get_timestamp())

    def _find(self) -> Any:
        found: dict[str, Any] = {}
        for device in self._plugged_in():
            try:
                found[device.get_info(self._rs.camera_info.serial_number)] = device
            except RuntimeError:  # it is just being unplugged
                continue
        if not self.serial and len(found) == 1:
            self.serial = next(iter(found))
        if self.serial not in found:
            names = ", ".join(f"{serial} ({self._property(d, 'name')})" for serial, d in sorted(found.items()))
            what = f"camera {self.serial} is not connected" if self.serial else "no serial number of a camera is given"
            raise GenimaError(f"{what}; {f'there are: {names}' if names else 'there is no RealSense camera'}")
        return found[self.serial]

    def _property(self, device: Any, what: str) -> str:
        info = getattr(self._rs.camera_info, what)
        return str(device.get_info(info)) if device.supports(info) else "unknown"

    def _choose(self, device: Any) -> tuple[Any, Any]:
        """Return the sensor of the colour images, and their profile."""
        rs, wanted, offered = self._rs, self._profile, set()
        for sensor in device.query_sensors():
            for profile in sensor.get_stream_profiles():
                if profile.stream_type() != rs.stream.color or profile.format() != rs.format.rgb8:
                    continue
                video = profile.as_video_stream_profile()
                this = ColorProfile(video.width(), video.height(), video.fps())
                if this == wanted:
                    return sensor, profile
                offered.add((this.width, this.height, this.rate))
        has = ", ".join(str(ColorProfile(*one)) for one in sorted(offered)) or "none"
        usb = self._property(device, "usb_type_descriptor")
        slow = f" on USB {usb}; on USB 3 there are more" if usb.startswith("2") else ""
        raise GenimaError(f"camera {self.serial} has no colour images of {wanted}; it has {has}{slow}")

    def _configure(self, sensor: Any) -> None:
        rs = self._rs
        if sensor.supports(rs.option.global_time_enabled):
            sensor.set_option(rs.option.global_time_enabled, 1)
        for name in OPTIONS:
            if name not in self._options:
                continue
            option, value = getattr(rs.option, name), self._options[name]
            if not sensor.supports(option):
                raise GenimaError(f"camera {self.serial} has no option {name}")
            allowed = sensor.get_option_range(option)
            if not allowed.min <= value <= allowed.max:
                span = f"from {allowed.min:g} to {allowed.max:g}"
                raise GenimaError(f"camera {self.serial}: {name} is {value:g}; it must be {span}")
            sensor.set_option(option, value)

    def _describe(self, device: Any, profile: Any) -> Opened:
        return Opened(
            self.serial,
            self._property(device, "name"),
            self._property(device, "firmware_version"),
            self._property(device, "usb_type_descriptor"),
            self._T_link_color(device, profile),
            camera_info(profile.as_video_stream_profile().get_intrinsics(), self._rs),
        )

    def _T_link_color(self, device: Any, color: Any) -> NDArray[np.float64]:
        """Return the ROS driver's pose of the colour frame, from the factory calibration."""
        for sensor in device.query_sensors():
            for profile in sensor.get_stream_profiles():
                if profile.stream_type() != self._rs.stream.depth:
                    continue
                try:
                    to_depth = color.get_extrinsics_to(profile)
                except RuntimeError:  # the device does not know; the ROS driver takes them for the same then
                    return np.eye(4)
                R = np.reshape(to_depth.rotation, (3, 3)).T  # librealsense writes columns first
                return T_LINK_OPTICAL @ pose(R, np.array(to_depth.translation)) @ inverse(T_LINK_OPTICAL)
        return np.eye(4)


def camera_info(lens: Any, rs: Any) -> dict[str, Any]:
    """Return the fields of a ROS CameraInfo, without its header, for librealsense's intrinsics.

    As the ROS driver does, every lens but a fisheye is called ``plumb_bob``. The coefficients of the D400 cameras'
    colour lenses are 0, so that it makes no difference that librealsense calls them *inverse* Brown-Conrady.
    """
    fisheye = lens.model == rs.distortion.kannala_brandt4
    K = np.array([[lens.fx, 0, lens.ppx], [0, lens.fy, lens.ppy], [0, 0, 1]], float)
    return {
        "width": lens.width,
        "height": lens.height,
        "distortion_model": "equidistant" if fisheye else "plumb_bob",
        "d": [float(value) for value in lens.coeffs[: 4 if fisheye else 5]],
        "k": K.ravel(),
        "r": np.eye(3).ravel(),
        "p": np.column_stack([K, np.zeros(3)]).ravel(),
    }
