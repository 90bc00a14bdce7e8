"""Option of the commands that read the joints of demos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genima.robot.model import RobotModel


@dataclass(kw_only=True)
class DemoRobot:
    """Robot of demos that hold no robot model."""

    cell: str = ""
    """Robot cell of demos that hold no robot model: a name in config/cells or a YAML file; default: that robot of
    config/robots whose joints they have. Demos of ./genima hold their robot model."""

    def default_robot(self) -> RobotModel | None:
        """Return the robot of demos without a model; None: to be found by their joints.

        Raises:
            GenimaError: for a missing or malformed file.
        """
        if not self.cell:
            return None
        from genima.cell import load_cell  # imported here: --help must be quick

        return load_cell(self.cell).robot
