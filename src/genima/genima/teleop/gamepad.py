"""Mapping of a gamepad's axes and buttons to a twist, read from ``config/teleop/gamepad.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genima.errors import GenimaError
from genima.io import paths
from genima.io.files import FileSchema, load_yaml

_AXES = "xyz"
_TOLERANCE = 0.01  # beyond the ends of an axis: rounding
Button = Annotated[int, Field(ge=0, le=255)]


class _LinearAxis(FileSchema):
    axis: Button
    speed: Annotated[float, Field(ge=-0.5, le=0.5)]  # m/s, as the node jog allows


class _AngularAxis(FileSchema):
    axis: Button
    speed: Annotated[float, Field(ge=-1.5, le=1.5)]  # rad/s


class _LinearAxes(FileSchema):
    x: _LinearAxis
    y: _LinearAxis
    z: _LinearAxis


class _AngularAxes(FileSchema):
    x: _AngularAxis
    y: _AngularAxis
    z: _AngularAxis


class _GamepadFields(FileSchema):
    dead_zone: Annotated[float, Field(ge=0, lt=1)]
    linear: _LinearAxes
    angular: _AngularAxes
    gripper: Button
    enable: Button


@dataclass(frozen=True)
class Gamepad:
    """Axes of linear x, y, z, then angular x, y, z: their numbers, and the speeds at their ends."""

    axes: tuple[int, ...]  # (6,)
    speeds: NDArray[np.float64]  # (6,) m/s, rad/s
    dead_zone: float  # fraction of an axis
    gripper_button: int
    enable_button: int

    @classmethod
    def load(cls, file: Path | None = None) -> Gamepad:
        """Read a YAML file; the bundled one if None.

        Raises:
            GenimaError: for a missing file, and a missing or bad field.
        """
        path = file or paths.shared("config", "teleop", "gamepad.yaml")
        fields = load_yaml(_GamepadFields, path, "gamepad")
        rows = [getattr(part, axis) for part in (fields.linear, fields.angular) for axis in _AXES]
        if fields.gripper == fields.enable:
            raise GenimaError(f"gamepad {path}: gripper and enable are the same button ({fields.enable})")
        return cls(
            axes=tuple(row.axis for row in rows),
            speeds=np.array([row.speed for row in rows], float),
            dead_zone=fields.dead_zone,
            gripper_button=fields.gripper,
            enable_button=fields.enable,
        )

    def twist(self, axes: Sequence[float], buttons: Sequence[int]) -> NDArray[np.float64]:
        """Return speeds (6,) in m/s and rad/s: none unless the enabling button is held.

        Raises:
            GenimaError: when the gamepad has fewer axes or buttons than the file names, and for an axis that is not
                finite or not within -1 .. 1.
        """
        if len(axes) <= max(self.axes) or len(buttons) <= max(self.gripper_button, self.enable_button):
            raise GenimaError(
                f"gamepad: too few axes or buttons ({len(axes)}, {len(buttons)}); gamepad.yaml uses "
                f"axis {max(self.axes)} and button {max(self.gripper_button, self.enable_button)}"
            )
        if not buttons[self.enable_button]:
            return np.zeros(6)
        deflections = np.array([axes[number] for number in self.axes], float)
        wrong = ~(np.abs(deflections) <= 1 + _TOLERANCE)  # also NaN
        if np.any(wrong):
            number, value = self.axes[int(np.argmax(wrong))], deflections[np.argmax(wrong)]
            raise GenimaError(f"gamepad: axis {number} outside -1 .. 1 ({value:g}); publish it by joy_node")
        deflections[np.abs(deflections) < self.dead_zone] = 0.0
        return np.clip(deflections, -1, 1) * self.speeds
