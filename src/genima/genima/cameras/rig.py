"""Which camera is which view: ``config/cameras/<rig>.yaml``, one entry a view."""

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
        raise ValueError("must be digits in quotes, which else lose their leading zeros")
    return value


def _profile(value: str) -> str:
    match = _PROFILE.fullmatch(value)
    if match is None or max(int(match[1]), int(match[2])) > 16384 or int(match[3]) > 300:
        raise ValueError("must be width x height x images a second, like 640x480x30")
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class _DeviceFields(FileSchema):
    serial: Annotated[str, BeforeValidator(_serial)]
    model: Annotated[Literal["D405", "D415", "D435", "D435I", "D455"], BeforeValidator(_upper)]
    profile: Annotated[str, AfterValidator(_profile)]
    mounted_on: Literal["base", "flange"]


_Rig = Annotated[dict[RosName, _DeviceFields], Field(min_length=1, max_length=64)]


@dataclass(frozen=True)
class Device:
    """The camera of a view, and how it is run."""

    serial: str
    model: str  # one of MODELS
    width: int  # px
    height: int  # px
    rate: int  # Hz
    mounted_on: Literal["base", "flange"]


def load_rig(name_or_file: str | Path) -> Mapping[str, Device]:
    """The cameras by view, of ``config/cameras/<name>.yaml`` or a YAML file.

    Raises:
        GenimaError: for a missing or malformed file, and where two views have the same camera.
    """
    path = paths.named(name_or_file, "config", "cameras")
    data = read_yaml(path, "cameras file")
    if not isinstance(data, dict) or not data:
        raise GenimaError(f"cameras file {path} names no view; config/cameras/four_d415.yaml shows how it looks")
    entries = validate(_Rig, data, f"cameras file {path}")
    rig = {}
    for view, entry in entries.items():
        width, height, rate = map(int, entry.profile.split("x"))
        rig[view] = Device(entry.serial, entry.model, width, height, rate, entry.mounted_on)
    serials = Counter(device.serial for device in rig.values())
    if twice := [serial for serial, count in serials.items() if count > 1]:
        views = ", ".join(view for view, device in rig.items() if device.serial in twice)
        raise GenimaError(f"cameras file {path}: {views} have the same serial {', '.join(twice)}")
    return rig


def image_problem(device: Device, size: tuple[int, int]) -> str:
    """Problem of a camera's images for a policy that takes ``size``, width and height in px; empty: none."""
    width, height = size
    if (device.width, device.height) == size:
        return ""
    return (
        f"its images are {device.width}x{device.height}, the checkpoint takes {width}x{height}; set its profile to "
        f"{width}x{height}x{device.rate}, or train with such images"
    )
