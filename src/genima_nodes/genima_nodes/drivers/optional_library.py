"""Import libraries that only some devices need."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from genima.errors import GenimaError

TESTED_VERSIONS = {
    "pylibfranka": "0.21.3",
    "pyrealsense2": "2.59.1.11053",
}  # with which the drivers were tested


def import_library(module: str) -> Any:
    """Import an optional library.

    Raises:
        GenimaError: when the library, or a library that it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        install = f"{sys.executable} -m pip install {module}=={TESTED_VERSIONS[module]}"
        raise GenimaError(f"{module}: not installed; install it with: {install}") from None
    except ImportError as error:  # a shared library of the system
        remedy = "; install it with: apt install libusb-1.0-0" if "libusb" in str(error) else ""
        raise GenimaError(f"{module}: cannot be loaded ({error}){remedy}") from None
