"""Messages of packages that only some robots need, and that are not among the wheels."""

from __future__ import annotations

import importlib
import os
from typing import Any

from genima.errors import GenimaError


def message_type(name: str) -> Any:
    """A type by its ROS name, e.g. ``control_msgs/action/GripperCommand``.

    Raises:
        GenimaError: when its package is not installed, or has no such type; with how to install it.
    """
    package, kind, wanted = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.{kind}"), wanted)
    except (ImportError, AttributeError):
        apt = f"ros-{os.environ.get('ROS_DISTRO', 'jazzy')}-{package.replace('_', '-')}"
        raise GenimaError(
            f"the type {name} is missing: sudo apt-get install {apt}, or build its package and source that workspace"
        ) from None
