"""Message types of optional packages, which have no wheels."""

from __future__ import annotations

import importlib
import os
from typing import Any

from genima.errors import GenimaError


def message_type(name: str) -> Any:
    """Return a type by its ROS name, such as ``control_msgs/action/GripperCommand``.

    Raises:
        GenimaError: when its package is not installed, or has no such type; names the command that installs it.
    """
    package, kind, type_name = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.{kind}"), type_name)
    except (ImportError, AttributeError):
        apt = f"ros-{os.environ.get('ROS_DISTRO', 'jazzy')}-{package.replace('_', '-')}"
        raise GenimaError(
            f"message type {name}: not installed; sudo apt-get install {apt}, or build its package and source its "
            "workspace"
        ) from None
