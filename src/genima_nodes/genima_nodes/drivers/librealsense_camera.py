"""Colour and depth images of one RealSense camera by librealsense's Python bindings.

The output is that of the ROS driver realsense2_camera (4.58): unrectified rgb8, depth aligned to it, the stored
intrinsics, and the colour frame relative to the depth sensor as stored in the device. librealsense's software devices
are used like real ones.
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

_START_TIMEOUT = 5.0  # s until the first image; a camera needs one or two
_IMAGE_TIMEOUT = 1.0  # s between images
_PROFILE = re.compile(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)")
# Options of the colour sensor by librealsense's names; automatic modes first, as they determine the effect of others.
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
class ImageProfile:
    """Requested image format of a sensor."""

    width: int  # px
    height: int  # px
    rate: int  # Hz

    @classmethod
    def parse(cls, text: str) -> ImageProfile:
        """Parse ``640x480x30``.

        Raises:
            GenimaError: for anything else.
        """
        if not (match := _PROFILE.fullmatch(text)):
            raise GenimaError(f"image profile: invalid ({text!r}); use a form like 640x480x30")
        return cls(*map(int, match.groups()))

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.rate}"


@dataclass(frozen=True)
class Frame:
    """Image with its stamp."""

    stamp: float  # s since the epoch on this machine's clock
    image: Image  # (h, w, 3)
    lost: int  # images of the camera since the previous one that were not received
    depth: NDArray[np.float32] | None  # (h, w) m along the optical axis, of the same pixels, 0 unknown


@dataclass(frozen=True)
class CameraProperties:
    """Properties of an open camera."""

    serial: str
    model: str
    firmware: str
    usb: str  # as reported by the device: 3.2, 2.1
    T_link_color: NDArray[np.float64]  # (4, 4), frames with x forward; the link is at the depth sensor
    info: Mapping[str, Any]  # fields of a ROS CameraInfo without its header

    @property
    def on_usb2(self) -> bool:
        """True if port, hub or cable limit the camera to USB 2, a tenth of the bandwidth that it needs."""
        return self.usb.startswith("2")


class RealSenseCamera:
    """Camera; after any error, such as an unplugged cable, ``open`` it again."""

    def __init__(
        self,
        serial: str,
        profile: ImageProfile,
        options: Mapping[str, float] | None = None,
        query_devices: Callable[[], Iterable[Any]] | None = None,
        depth_profile: ImageProfile | None = None,
    ) -> None:
        """Args:
        serial: serial number; empty: the only connected camera.
        profile: format of the colour images.
        options: of the colour sensor, some of :data:`OPTIONS`.
        query_devices: returns the connected devices; by default those of this machine.
        depth_profile: format of the depth sensor's images; None: no depth.

        Raises:
            GenimaError: where librealsense is missing.
        """
        self._rs = import_library("pyrealsense2")
        self._query_devices = query_devices or self._rs.context().query_devices
        self.serial, self._profile, self._options = serial, profile, dict(options or {})
        self._depth_profile = depth_profile
        self.clock = ""  # source of the stamps, by librealsense's name
        self._sensors: list[Any] = []  # that are open
        self._syncer: Any = None
        self._align: Any = None
        self._frame_number: int | None = None
        self._deadline = 0.0  # monotonic s of the next image

    def open(self) -> CameraProperties:
        """Start the image streams.

        Raises:
            GenimaError: if the camera is not connected, is in use, or does not support profiles or options.
        """
        self.close()
        device = self._find()
        properties = None
        try:
            rs = self._rs
            sensor, profile = self._choose(device, rs.stream.color, rs.format.rgb8, self._profile)
            self._configure(sensor)
            properties = self._describe(device, profile)
            chosen = [(sensor, [profile])]
            if self._depth_profile is not None:
                depth_sensor, depth = self._choose(device, rs.stream.depth, rs.format.z16, self._depth_profile)
                self._align = rs.align(rs.stream.color)
                if depth_sensor.get_info(rs.camera_info.name) == sensor.get_info(rs.camera_info.name):  # of a D405
                    chosen = [(sensor, [profile, depth])]
                else:
                    self._use_global_time(depth_sensor)
                    chosen.append((depth_sensor, [depth]))
            self._syncer = rs.syncer(1)  # the newest images only
            for each, profiles in chosen:
                each.open(profiles)
                self._sensors.append(each)
                each.start(self._syncer)
        except RuntimeError as error:
            self.close()
            line = " ".join(str(error).split())
            raise GenimaError(f"camera {self.serial}: cannot start ({line}); end other programs that use it") from None
        self._frame_number, self._deadline = None, time.monotonic() + _START_TIMEOUT
        return properties

    def read(self, timeout: float, depth: bool = False) -> Frame | None:
        """Return the next image; None when none arrives within ``timeout`` seconds.

        Args:
            timeout: s.
            depth: with the depth image, which takes milliseconds to align, where the camera has one for this image.

        Raises:
            GenimaError: when no image has arrived for a second: the camera was unplugged, or does not respond.
        """
        if self._syncer is None:
            raise GenimaError(f"camera {self.serial}: not open")
        arrived, images = self._syncer.try_wait_for_frames(round(1000 * timeout))
        now = time.monotonic()
        color = images.get_color_frame() if arrived else None
        if not color:  # nothing, or a depth image alone
            if now > self._deadline:
                self._find()
                raise GenimaError(f"camera {self.serial}: connected, but sends no images; reconnect it")
            return None
        self._deadline = now + _IMAGE_TIMEOUT
        number = color.get_frame_number()
        lost = max(0, number - self._frame_number - 1) if self._frame_number is not None else 0
        self._frame_number = number
        aligned = self._aligned_depth(images) if depth else None
        return Frame(self._stamp(color), np.array(color.get_data(), np.uint8), lost, aligned)

    def _aligned_depth(self, images: Any) -> NDArray[np.float32] | None:
        if self._align is None or not images.get_depth_frame():
            return None
        depth = self._align.process(images).get_depth_frame()
        return np.asarray(depth.get_data(), np.float32) * np.float32(depth.get_units())

    def close(self) -> None:
        """Stop the image streams."""
        sensors, self._sensors, self._syncer = self._sensors, [], None
        for end in [end for sensor in sensors for end in (sensor.stop, sensor.close)]:
            try:
                end()
            except RuntimeError:  # unplugged or not started
                pass

    def _stamp(self, frame: Any) -> float:
        """Return the stamp of a frame in s.

        librealsense's global time is the camera's clock, mapped to this machine's by a linear fit: the read-out
        time of the sensor, without the latency of USB and Python.
        """
        domain = frame.get_frame_timestamp_domain()
        self.clock = domain.name
        if domain == self._rs.timestamp_domain.hardware_clock:  # it counts from the camera's start
            return time.time()
        return float(1e-3 * frame.get_timestamp())

    def _find(self) -> Any:
        found: dict[str, Any] = {}
        for device in self._query_devices():
            try:
                found[device.get_info(self._rs.camera_info.serial_number)] = device
            except RuntimeError:  # unplugged meanwhile
                continue
        if not self.serial and len(found) == 1:
            self.serial = next(iter(found))
        if self.serial not in found:
            names = ", ".join(f"{serial} ({self._property(d, 'name')})" for serial, d in sorted(found.items()))
            problem = f"camera {self.serial}: not connected" if self.serial else "camera: no serial number given"
            raise GenimaError(f"{problem}; {f'connected: {names}' if names else 'no RealSense camera is connected'}")
        return found[self.serial]

    def _property(self, device: Any, name: str) -> str:
        info = getattr(self._rs.camera_info, name)
        return str(device.get_info(info)) if device.supports(info) else "unknown"

    def _choose(self, device: Any, stream: Any, image_format: Any, requested: ImageProfile) -> tuple[Any, Any]:
        """Return the sensor of a kind of images, and their profile."""
        available = set()
        for sensor in device.query_sensors():
            for profile in sensor.get_stream_profiles():
                if profile.stream_type() != stream or profile.format() != image_format:
                    continue
                video = profile.as_video_stream_profile()
                found = ImageProfile(video.width(), video.height(), video.fps())
                if found == requested:
                    return sensor, profile
                available.add((found.width, found.height, found.rate))
        profiles = ", ".join(str(ImageProfile(*each)) for each in sorted(available)) or "none"
        usb = self._property(device, "usb_type_descriptor")
        hint = f" on USB {usb}; USB 3 has more" if usb.startswith("2") else ""
        kind = "colour" if stream == self._rs.stream.color else "depth"
        raise GenimaError(f"camera {self.serial}: no {kind} profile {requested}; it has {profiles}{hint}")

    def _use_global_time(self, sensor: Any) -> None:
        if sensor.supports(self._rs.option.global_time_enabled):
            sensor.set_option(self._rs.option.global_time_enabled, 1)

    def _configure(self, sensor: Any) -> None:
        rs = self._rs
        self._use_global_time(sensor)
        for name in OPTIONS:
            if name not in self._options:
                continue
            option, value = getattr(rs.option, name), self._options[name]
            if not sensor.supports(option):
                raise GenimaError(f"camera {self.serial}: option {name} not supported")
            limits = sensor.get_option_range(option)
            if not limits.min <= value <= limits.max:
                span = f"from {limits.min:g} to {limits.max:g}"
                raise GenimaError(f"camera {self.serial}: {name} is {value:g}; it must be {span}")
            sensor.set_option(option, value)

    def _describe(self, device: Any, profile: Any) -> CameraProperties:
        return CameraProperties(
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
                except RuntimeError:  # unknown to the device; the ROS driver uses the identity, too
                    return np.eye(4)
                R = np.reshape(to_depth.rotation, (3, 3)).T  # column-major
                return T_LINK_OPTICAL @ pose(R, np.array(to_depth.translation)) @ inverse(T_LINK_OPTICAL)
        return np.eye(4)


def camera_info(intrinsics: Any, rs: Any) -> dict[str, Any]:
    """Return the fields of a ROS CameraInfo, without its header, for librealsense's intrinsics.

    As in the ROS driver, the model of every lens except a fisheye is ``plumb_bob``. librealsense's name is *inverse*
    Brown-Conrady, but the coefficients of the D400 cameras' colour lenses are 0.
    """
    fisheye = intrinsics.model == rs.distortion.kannala_brandt4
    K = np.array([[intrinsics.fx, 0, intrinsics.ppx], [0, intrinsics.fy, intrinsics.ppy], [0, 0, 1]], float)
    return {
        "width": intrinsics.width,
        "height": intrinsics.height,
        "distortion_model": "equidistant" if fisheye else "plumb_bob",
        "d": [float(value) for value in intrinsics.coeffs[: 4 if fisheye else 5]],
        "k": K.ravel(),
        "r": np.eye(3).ravel(),
        "p": np.column_stack([K, np.zeros(3)]).ravel(),
    }
