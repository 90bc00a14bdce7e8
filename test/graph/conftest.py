"""Fixtures of tests that start processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_command import Place

from genima.robot.model import RobotModel
from genima_sim.simulation import Simulation


@pytest.fixture
def place(tmp_path: Path, simulation: Simulation, robot: RobotModel) -> Place:
    simulation.reset("push_button", 0, robot.home)
    return Place(tmp_path, simulation)
