"""What the sticks and buttons of a gamepad do, read from ``config/teleop/gamepad.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genima import paths
from genima.errors import GenimaError
from genima.files import read_yaml

_AXES = "xyz"


@dataclass(frozen=True)
class Gamepad:
    """Axes of linear x, y, z, then angular x, y, z: their numbers, and the speeds at their ends."""

    axes: tuple[int, ...]  # (6,)
    speeds: NDArray[np.float64]  # (6,) m/s, rad/s
    dead_zone: float  # of an axis' way
    gripper_button: int
    enable_button: int

    @classmethod
    def load(cls, file: Path | None = None) -> Gamepad:
        """Read a YAML file; the one that comes along if None.

        Raises:
            GenimaError: for a missing file, and a missing or bad field.
        """
        path = file or paths.shared("config", "teleop", "gamepad.yaml")
        data = read_yaml(path, "gamepad")
        try:
            rows = [data[kind][axis] for kind in ("linear", "angular") for axis in _AXES]
            return cls(
                axes=tuple(int(row["axis"]) for row in rows),
                speeds=np.array([float(row["speed"]) for row in rows]),
                dead_zone=float(data["dead_zone"]),
                gripper_button=int(data["gripper"]),
                enable_button=int(data["enable"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GenimaError(f"gamepad {path}: bad or missing field: {error!r}") from None

    def twist(self, axes: Sequence[float], buttons: Sequence[int]) -> NDArray[np.float64]:
        """Speeds (6,) in m/s and rad/s: none unless the enabling button is held.

        Raises:
            GenimaError: when the gamepad has fewer axes or buttons than the file names.
        """
        if len(axes) <= max(self.axes) or len(buttons) <= max(self.gripper_button, self.enable_button):
            raise GenimaError(
                f"the gamepad has {len(axes)} axes and {len(buttons)} buttons, gamepad.yaml names "
                f"axis {max(self.axes)} and button {max(self.gripper_button, self.enable_button)}"
            )
        if not buttons[self.enable_button]:
            return np.zeros(6)
        pushed = np.array([axes[number] for number in self.axes], float)
        pushed[~(np.abs(pushed) >= self.dead_zone)] = 0.0  # also what is no number
        return np.clip(pushed, -1, 1) * self.speeds
