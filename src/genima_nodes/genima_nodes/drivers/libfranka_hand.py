"""Franka hand by libfranka's Python bindings.

A motion of the fingers is one call, which blocks for its whole duration, holds Python's interpreter lock, and must not
be interrupted: the latest request of that time is executed next.
"""

from __future__ import annotations

from typing import Any

from genima.errors import GenimaError
from genima.robot.model import open_fraction
from genima_nodes.drivers.optional_library import import_library

_SAME = 0.1  # of the open fraction: requests closer than this are equal
_HALF = 0.5  # below, the hand closes


class FrankaHand:
    """Hand that closes with a force and opens to a width; all methods are for one thread."""

    def __init__(self, address: str, force: float, speed: float) -> None:
        """Args:
        address: of the robot that carries it.
        force: N with which it closes.
        speed: m/s of the fingers.

        Raises:
            GenimaError: where the bindings are missing.
        """
        self._franka = import_library("pylibfranka")
        self._address, self._force, self._speed = address, force, speed
        self._gripper: Any = None
        self._last: float | None = None  # open fraction of the last request
        self._measured = 1.0  # open fraction

    def measure(self) -> float:
        """Return the open fraction, 1 open .. 0 closed.

        Raises:
            GenimaError: when it is not there, or was never homed.
        """
        try:
            if self._gripper is None:
                self._gripper = self._franka.Gripper(self._address)
            state = self._gripper.read_once()
        except (RuntimeError, self._franka.FrankaException) as error:
            self._gripper = self._last = None
            raise GenimaError(f"hand of {self._address}: {' '.join(str(error).split())}") from None
        if not state.max_width > 0:
            raise GenimaError(f"hand of {self._address} does not know its width: ./genima call home, fingers free")
        self._max_width = state.max_width
        self._measured = open_fraction(f"hand of {self._address}", state.width, 0.0, state.max_width)
        return self._measured

    def move_to(self, open_fraction: float) -> bool:
        """Open or close, unless that was done last; whether anything was done. Measure first.

        A hand that is wished as far open as it is stays so, and goes on holding what is between its fingers.

        Raises:
            GenimaError: when the hand did not do it; the next wish is tried again.
        """
        at_end = open_fraction in (0.0, 1.0)
        stays = abs(open_fraction - self._measured) < _SAME and not at_end
        if stays and (self._last is None or self._last < _HALF):
            return False
        if self._last is not None and _is_same_fraction(open_fraction, self._last):
            return False
        self._last = open_fraction
        if open_fraction < _HALF:  # any width counts as a grasp, none of an empty hand too
            wide = self._max_width
            self._do("grasp", 0.0, self._speed, self._force, wide, wide)
        else:
            self._do("move", open_fraction * self._max_width, self._speed)
        return True

    def home(self) -> str:
        """Measure the maximum width; the fingers move through their full range.

        Raises:
            GenimaError: when that did not work.
        """
        if self._gripper is None:
            raise GenimaError(f"hand of {self._address} is not connected")
        if not self._do("homing"):
            raise GenimaError("homing did not work: are the fingers free?")
        self._last = None
        return "homed"

    def _do(self, what: str, *arguments: float) -> bool:
        try:
            return bool(getattr(self._gripper, what)(*arguments))
        except (RuntimeError, self._franka.FrankaException) as error:
            self._last = None
            raise GenimaError(f"hand of {self._address}: {what}: {' '.join(str(error).split())}") from None


def _is_same_fraction(one: float, other: float) -> bool:
    if min(one, other) < _HALF:
        return max(one, other) < _HALF
    return abs(one - other) < _SAME
