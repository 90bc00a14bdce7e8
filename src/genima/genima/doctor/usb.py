"""RealSense cameras on USB: link speed, shared bandwidth, and expected serial numbers."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genima.cameras.camera_devices import CameraDevice
from genima.doctor.findings import Finding, fail, ok, skipped, warn
from genima.doctor.system_files import read_number, read_system_file
from genima.errors import GenimaError

_VENDOR = "8086"  # Intel's
_SUPER_SPEED = 5000.0  # Mbit/s
_BITS = 16  # a pixel on the cable (YUYV, and Z16 of depth)
# Usable fraction of a bus's nominal rate: 5 Gbit/s carry about 400 MB/s, 480 Mbit/s about 35 MB/s.
_USABLE_3, _USABLE_2 = 0.64, 0.58
_TYPICAL = CameraDevice("", "D415", 640, 480, 30, "base")
_REPLUG = (
    "use a USB 3 port of the computer (SS, blue) and the camera's own or another short USB 3 cable, plug it in fast, "
    "all the way"
)


@dataclass(frozen=True)
class UsbCamera:
    """Camera as the kernel lists it; its serial number is the ASIC's, not the camera's."""

    port: str  # e.g. 2-1.4: bus 2, port 1 of the computer, port 4 of a hub there
    model: str  # e.g. D415
    speed: float  # Mbit/s
    node: Path  # of the device, to be opened by drivers


@dataclass(frozen=True)
class LibrealsenseCamera:
    """Camera as librealsense lists it."""

    serial: str
    model: str  # e.g. D415
    usb: str  # e.g. 3.2
    firmware: str


def find_usb_cameras(sys: Path, dev: Path) -> list[UsbCamera] | None:
    """Return the RealSense cameras; None where the kernel lists no USB."""
    devices = sys / "bus/usb/devices"
    if not devices.is_dir():
        return None
    found = []
    for folder in sorted(devices.iterdir()):
        name = f"{read_system_file(folder / 'manufacturer')} {read_system_file(folder / 'product')}"
        if read_system_file(folder / "idVendor") != _VENDOR or "RealSense" not in name:
            continue
        model = re.search(r"RealSense.*?(\d{3}\w?)", name)
        bus, address = (int(read_number(folder / file) or 0) for file in ("busnum", "devnum"))
        found.append(
            UsbCamera(
                folder.name,
                f"D{model.group(1).upper()}" if model else "camera",
                read_number(folder / "speed") or 0.0,
                dev / f"bus/usb/{bus:03d}/{address:03d}",
            )
        )
    return found


def find_librealsense_cameras(rs: Any) -> list[LibrealsenseCamera]:
    """Return the cameras by serial number, from librealsense's Python module.

    Raises:
        GenimaError: when librealsense fails.
    """
    info = rs.camera_info
    wanted = (info.serial_number, info.name, info.usb_type_descriptor, info.firmware_version)
    try:
        cameras = [
            [camera.get_info(what) if camera.supports(what) else "" for what in wanted]
            for camera in rs.context().query_devices()
        ]
    except RuntimeError as error:
        raise GenimaError(f"librealsense: cannot list the cameras ({error}); check the udev rules") from None
    return [
        LibrealsenseCamera(serial, name.split()[-1].upper(), usb, firmware) for serial, name, usb, firmware in cameras
    ]


def check_connections(sys: Path, dev: Path, devices: Mapping[str, CameraDevice]) -> Iterator[Finding]:
    """Check the link of each camera, and the bandwidth of shared buses and hubs.

    Args:
        sys: /sys.
        dev: /dev.
        devices: expected cameras by view; empty where unknown.
    """
    cameras = find_usb_cameras(sys, dev)
    if cameras is None:
        yield skipped("USB", f"{sys / 'bus/usb'} is not there: no USB, or it is hidden from a container")
        return
    if not cameras:
        if not devices:
            yield skipped("RealSense cameras", "none is connected; not needed for the simulator")
        else:
            yield fail(
                "RealSense cameras", f"none of {len(devices)} is connected", "plug them in; lsusb shows 8086:..."
            )
        return
    for camera in cameras:
        yield _connection(camera)
    yield from _check_trunks(sys, cameras, devices)


def _connection(camera: UsbCamera) -> Finding:
    what = f"{camera.model} at {camera.port}"
    if camera.speed < _SUPER_SPEED:
        return fail(what, f"{camera.speed:g} Mbit/s: it fell back to USB 2, and drops images", _REPLUG)
    if camera.node.exists() and not os.access(camera.node, os.R_OK | os.W_OK):
        return fail(
            what,
            f"{camera.node} may not be opened by this user",
            "install librealsense's udev rules (its scripts/setup_udev_rules.sh), then plug the camera in again",
        )
    return ok(what, f"{camera.speed:g} Mbit/s (USB 3)")


def _check_trunks(sys: Path, cameras: Sequence[UsbCamera], devices: Mapping[str, CameraDevice]) -> Iterator[Finding]:
    """Yield the load of each bus and hub cable."""
    largest = max(devices.values() or [_TYPICAL], key=_megabits)  # the camera of each view is unknown here
    sharing = defaultdict(list)
    for camera in cameras:
        sharing[f"usb{camera.port.split('-')[0]}"].append(camera)
        if "." in camera.port:
            sharing[camera.port.split(".")[0]].append(camera)
    for trunk, trunk_cameras in sorted(sharing.items()):
        speed = read_number(sys / "bus/usb/devices" / trunk / "speed") or 0.0
        usable = speed * (_USABLE_3 if speed >= _SUPER_SPEED else _USABLE_2)
        needed = len(trunk_cameras) * _megabits(largest)
        what = f"bus {trunk}" if trunk.startswith("usb") else f"hub at {trunk}"
        depth = f" and depth {largest.depth_profile}" if largest.depth_profile else ""
        found = (
            f"{len(trunk_cameras)} camera{'s' * (len(trunk_cameras) > 1)} of "
            f"{largest.width}x{largest.height}x{largest.rate}{depth} take {needed:.0f} of about {usable:.0f} Mbit/s"
        )
        if needed > usable:
            yield fail(what, found, "spread the cameras over ports of another controller, or use a smaller profile")
        elif needed > 0.8 * usable:
            yield warn(what, found, "leave room for other devices: spread the cameras over controllers")
        else:
            yield ok(what, found if depth else f"{found}, without depth")


def _megabits(device: CameraDevice) -> float:
    depth = math.prod(map(int, device.depth_profile.split("x"))) if device.depth_profile else 0  # pixels a second
    return (device.width * device.height * device.rate + depth) * _BITS / 1e6


def check_serials(devices: Mapping[str, CameraDevice], cameras: Iterable[LibrealsenseCamera]) -> Iterator[Finding]:
    """Check that each view's camera is connected; list the others."""
    by_serial = {camera.serial: camera for camera in cameras}
    for view, device in devices.items():
        what = f"{view} {device.serial}"
        camera = by_serial.pop(device.serial, None)
        if camera is None:
            others = ", ".join(sorted(by_serial)) or "no others"
            yield fail(what, f"not plugged in; there are {others}", "plug it in, or correct serial in the cameras file")
        elif camera.model != device.model:
            yield fail(what, f"is a {camera.model}, not a {device.model}", "correct model in the cameras file")
        elif camera.usb.startswith("2"):
            yield fail(what, f"{camera.model}, on USB {camera.usb}", _REPLUG)
        else:
            yield ok(what, f"{camera.model}, USB {camera.usb or 'unknown'}, firmware {camera.firmware or 'unknown'}")
    for camera in by_serial.values():
        yield warn(f"{camera.model} {camera.serial}", "has no view", "unplug it, or name it in the cameras file")
