"""Fixtures of tests that start processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_command import RobotSetup


@pytest.fixture
def robot_setup(tmp_path: Path) -> RobotSetup:
    return RobotSetup(tmp_path)
