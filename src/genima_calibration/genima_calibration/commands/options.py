"""Options that several commands of ``./genima calibrate`` have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class RobotOptions:
    """Robot model and the names of its frames."""

    robot: str = "panda"
    """Robot model: a name in config/robots or a YAML file."""
    base_frame: str = ""
    """The robot's base in tf, where it is not called as in franka_description (panda_link0): left_fr3_link0."""
    flange_frame: str = ""
    """The robot's flange in tf, where it is not called as in franka_description (panda_link8): left_fr3_link8."""
