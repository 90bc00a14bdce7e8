"""Options that several commands of ``./genima calibrate`` have."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genima.cell import Cell
    from genima.robot.model import RobotModel


@dataclass(kw_only=True)
class CellOptions:
    """Robot cell whose cameras are calibrated."""

    cell: str = ""
    """Robot cell: a name in config/cells or a YAML file; default: the robot that a demo holds, else sim_panda."""

    @cached_property
    def named_cell(self) -> Cell | None:
        """Cell of ``--cell``; None where it is not given."""
        from genima.cell import load_cell  # imported here and below: --help must be quick

        return load_cell(self.cell) if self.cell else None

    def load_robot(self, folder: Path | None = None) -> RobotModel:
        """Load the robot model: that of a demo in ``folder``, where it holds one, else that of the cell.

        Raises:
            GenimaError: for a missing or malformed file, and a demo that cannot be read.
        """
        from genima.cell import SIMULATED, load_cell
        from genima.data.episodes.folders import is_demo
        from genima.data.episodes.robot import load_episode_robot

        robot = (self.named_cell or load_cell(SIMULATED)).robot
        return load_episode_robot(folder, robot) if folder is not None and is_demo(folder) else robot


@dataclass(kw_only=True)
class RobotOptions(CellOptions):
    """Robot cell and the names of the robot's frames."""

    base_frame: str = ""
    """The robot's base in tf, where it is not called as in franka_description (panda_link0): left_fr3_link0."""
    flange_frame: str = ""
    """The robot's flange in tf, where it is not called as in franka_description (panda_link8): left_fr3_link8."""
