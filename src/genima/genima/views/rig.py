"""Which camera is which view: ``config/cameras/<rig>.yaml``, one entry a view."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genima import paths
from genima.errors import GenimaError
from genima.files import read_yaml
from genima.names import require_ros_name

MODELS = ("D405", "D415", "D435", "D435I", "D455")
_FIELDS = ("serial", "model", "profile", "mounted_on")
_PROFILE = re.compile(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)")


@dataclass(frozen=True)
class Device:
    """The camera of a view, and how it is run."""

    serial: str
    model: str  # one of MODELS
    width: int  # px
    height: int  # px
    rate: int  # Hz
    mounted_on: Literal["base", "flange"]

    @classmethod
    def from_dict(cls, data: Any) -> Device:
        """Of an entry of the file.

        Raises:
            ValueError: for a missing, unknown or malformed field.
        """
        if not isinstance(data, Mapping) or set(data) != set(_FIELDS):
            raise ValueError(f"it must have just the fields {', '.join(_FIELDS)}")
        serial, model, mounted_on = data["serial"], str(data["model"]).upper(), data["mounted_on"]
        if not isinstance(serial, str) or not re.fullmatch(r"\d+", serial):
            raise ValueError(f"serial is {serial!r}; it must be digits in quotes, which else lose their leading zeros")
        if model not in MODELS:
            raise ValueError(f"model is {data['model']!r}, not one of {', '.join(MODELS)}")
        if not (profile := _PROFILE.fullmatch(str(data["profile"]))):
            raise ValueError(f"profile is {data['profile']!r}, not like 640x480x30")
        if mounted_on not in ("base", "flange"):
            raise ValueError(f"mounted_on is {mounted_on!r}, not base or flange")
        width, height, rate = (int(number) for number in profile.groups())
        return cls(serial, model, width, height, rate, mounted_on)


def load_rig(name_or_file: str | Path) -> Mapping[str, Device]:
    """The cameras by view, of ``config/cameras/<name>.yaml`` or a YAML file.

    Raises:
        GenimaError: for a missing or malformed file, and where two views have the same camera.
    """
    path = paths.named(name_or_file, "config", "cameras")
    data = read_yaml(path, "cameras file")
    if not isinstance(data, Mapping) or not data:
        raise GenimaError(f"cameras file {path} names no view; config/cameras/four_d415.yaml shows how it looks")
    rig = {}
    for name, entry in data.items():
        view = require_ros_name(name, f"cameras file {path}: view")
        try:
            rig[view] = Device.from_dict(entry)
        except ValueError as error:
            raise GenimaError(f"cameras file {path}, view {view}: {error}") from None
    serials = Counter(device.serial for device in rig.values())
    if twice := [serial for serial, count in serials.items() if count > 1]:
        views = ", ".join(view for view, device in rig.items() if device.serial in twice)
        raise GenimaError(f"cameras file {path}: {views} have the same serial {', '.join(twice)}")
    return rig
