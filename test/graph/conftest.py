"""Fixtures of tests that start processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_command import RobotSetup

from genima.robot.model import RobotModel
from genima_sim.simulation import Simulation


@pytest.fixture
def robot_setup(tmp_path: Path, simulation: Simulation, robot: RobotModel) -> RobotSetup:
    simulation.reset("push_button", 0, robot.home)
    return RobotSetup(tmp_path, simulation)
