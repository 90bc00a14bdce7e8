"""Camera devices by view, read from ``config/cameras/<name>.yaml``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from genima.errors import GenimaError
from genima.io import paths
from genima.io.files import FileSchema, read_yaml, validate
from genima.system.ros_names import RosName

MODELS = ("D405", "D415", "D435", "D435I", "D455")
_PROFILE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})x([1-9]\d{0,2})", re.ASCII)


def _serial(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,32}", value):
        raise ValueError("must be digits in quotes, to keep leading zeros")
    return value


def _profile(value: str) -> str:
    match = _PROFILE.fullmatch(value)
    if match is None or max(int(match[1]), int(match[2])) > 16384 or int(match[3]) > 300:
        raise ValueError("must be width x height x rate in Hz, like 640x480x30")
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class _DeviceFields(FileSchema):
    serial: Annotated[str, BeforeValidator(_serial)]
    model: Annotated[Literal["D405", "D415", "D435", "D435I", "D455"], BeforeValidator(_upper)]
    profile: Annotated[str, AfterValidator(_profile)]
    depth_profile: Annotated[str, AfterValidator(_profile)] | None = None
    mounted_on: Literal["base", "flange"]


_Devices = Annotated[dict[RosName, _DeviceFields], Field(min_length=1, max_length=64)]


@dataclass(frozen=True)
class CameraDevice:
    """Camera of a view and its profile."""

    serial: str
    model: str  # one of MODELS
    width: int  # px
    height: int  # px
    rate: int  # Hz
    mounted_on: Literal["base", "flange"]
    depth_profile: str = ""  # width x height x rate of its depth sensor; empty: no depth images


def load_camera_devices(name_or_file: str | Path) -> Mapping[str, CameraDevice]:
    """Read the cameras by view, from ``config/cameras/<name>.yaml`` or a YAML file.

    Raises:
        GenimaError: for a missing or malformed file, and for two views with the same camera.
    """
    path = paths.config_file(name_or_file, "config", "cameras")
    data = read_yaml(path, "cameras file")
    if not isinstance(data, dict) or not data:
        raise GenimaError(f"cameras file {path}: no view; see config/cameras/four_d415.yaml")
    entries = validate(_Devices, data, f"cameras file {path}")
    devices = {}
    for view, entry in entries.items():
        width, height, rate = map(int, entry.profile.split("x"))
        devices[view] = CameraDevice(
            entry.serial, entry.model, width, height, rate, entry.mounted_on, entry.depth_profile or ""
        )
    serials = Counter(device.serial for device in devices.values())
    if twice := [serial for serial, count in serials.items() if count > 1]:
        views = ", ".join(view for view, device in devices.items() if device.serial in twice)
        raise GenimaError(f"cameras file {path}: serial used twice ({', '.join(twice)}, by {views}); use each once")
    return devices


def image_problem(device: CameraDevice, size: tuple[int, int]) -> str:
    """Return the problem of a camera's images for a policy of image ``size`` (width, height) px; empty: none."""
    width, height = size
    if (device.width, device.height) == size:
        return ""
    return (
        f"image size differs from the checkpoint's ({device.width}x{device.height}, {width}x{height}); set its profile "
        f"to {width}x{height}x{device.rate}, or train with such images"
    )
