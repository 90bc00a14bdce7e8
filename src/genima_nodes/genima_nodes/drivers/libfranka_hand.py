"""Drive a Franka hand by libfranka's Python bindings.

A motion of the fingers is one call, which blocks for its whole duration, holds Python's interpreter lock, and must not
be interrupted: the newest request of that time is executed next.
"""

from __future__ import annotations

from typing import Any

from genima.errors import GenimaError
from genima.robot.model import open_fraction
from genima_nodes.drivers.optional_library import import_library

_TOLERANCE = 0.1  # of the open fraction: requests closer than this are equal
_CLOSE_BELOW = 0.5  # open fraction below which the hand closes


class FrankaHand:
    """Hand that closes with a force and opens to a width; call all methods from one thread."""

    def __init__(self, address: str, force: float, speed: float) -> None:
        """Args:
        address: of the robot.
        force: N of a grasp.
        speed: m/s of the fingers.

        Raises:
            GenimaError: if the bindings are not installed.
        """
        self._franka = import_library("pylibfranka")
        self._address, self._force, self._speed = address, force, speed
        self._gripper: Any = None
        self._last: float | None = None  # open fraction of the last request
        self._measured = 1.0  # open fraction

    def measure(self) -> float:
        """Return the open fraction, 1 open .. 0 closed.

        Raises:
            GenimaError: when the hand does not respond, or was not homed.
        """
        try:
            if self._gripper is None:
                self._gripper = self._franka.Gripper(self._address)
            state = self._gripper.read_once()
        except (RuntimeError, self._franka.FrankaException) as error:
            self._gripper = self._last = None
            raise GenimaError(f"hand of {self._address}: {' '.join(str(error).split())}") from None
        if not state.max_width > 0:
            raise GenimaError(f"hand of {self._address}: not homed; clear the fingers, then ./genima call home")
        self._max_width = state.max_width
        self._measured = open_fraction(f"hand of {self._address}", state.width, 0.0, state.max_width)
        return self._measured

    def move_to(self, open_fraction: float) -> bool:
        """Open or close unless the last request was equal; return True if the hand moved. Call ``measure`` first.

        A hand that is commanded to its present opening does not move, and keeps holding the object in it.

        Raises:
            GenimaError: when the motion failed; the next request is executed in any case.
        """
        at_end = open_fraction in (0.0, 1.0)
        is_reached = abs(open_fraction - self._measured) < _TOLERANCE and not at_end
        if is_reached and (self._last is None or self._last < _CLOSE_BELOW):
            return False
        if self._last is not None and _is_same_fraction(open_fraction, self._last):
            return False
        self._last = open_fraction
        if open_fraction < _CLOSE_BELOW:  # every width counts as a grasp, also 0
            tolerance = self._max_width
            self._call("grasp", 0.0, self._speed, self._force, tolerance, tolerance)
        else:
            self._call("move", open_fraction * self._max_width, self._speed)
        return True

    def home(self) -> str:
        """Measure the maximum width; the fingers move through their full range.

        Raises:
            GenimaError: when it failed.
        """
        if self._gripper is None:
            raise GenimaError(f"hand of {self._address}: not connected; see its diagnostics")
        if not self._call("homing"):
            raise GenimaError(f"hand of {self._address}: homing failed; clear the fingers and retry")
        self._last = None
        return "hand: homed"

    def _call(self, method: str, *arguments: float) -> bool:
        try:
            return bool(getattr(self._gripper, method)(*arguments))
        except (RuntimeError, self._franka.FrankaException) as error:
            self._last = None
            raise GenimaError(f"hand of {self._address}: {method} failed ({' '.join(str(error).split())})") from None


def _is_same_fraction(first: float, second: float) -> bool:
    if min(first, second) < _CLOSE_BELOW:
        return max(first, second) < _CLOSE_BELOW
    return abs(first - second) < _TOLERANCE
