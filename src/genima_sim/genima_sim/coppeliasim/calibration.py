"""``./genima calibrate coppeliasim``: read the calibration of the cameras from a scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from genima.system.command_line import parse_options
from genima_calibration.commands.options import RobotOptions
from genima_sim.coppeliasim import DEFAULT_HOST, DEFAULT_PORT


@dataclass
class ReadCameras(RobotOptions):
    """Write the poses and intrinsics of the cameras of a scene in CoppeliaSim into a folder of calibrations.

    The simulation is restarted."""

    out: tyro.conf.Positional[Path]
    """Folder for <view>.yaml; files that are there already are kept with their date."""
    scene: str = "rlbench"
    """Names of its objects: a name in config/coppeliasim or a YAML file."""
    host: str = DEFAULT_HOST
    """Machine that CoppeliaSim runs on."""
    port: Annotated[int, Field(ge=1, le=65535)] = DEFAULT_PORT
    """Port of its ZeroMQ remote API."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima calibrate coppeliasim``."""
    options = parse_options(
        ReadCameras, "genima calibrate coppeliasim", argv, "./genima calibrate coppeliasim calibration/coppeliasim"
    )
    from genima.cameras.calibration_file import CameraCalibration, Frames
    from genima_sim.coppeliasim.connection import Connection
    from genima_sim.coppeliasim.names import SceneNames
    from genima_sim.coppeliasim.scene import CoppeliaScene

    robot = options.load_robot()
    names = SceneNames.load(options.scene, robot)
    scene = CoppeliaScene(lambda: Connection(options.host, options.port), names, robot)
    scene.close()
    for view, camera in scene.cameras.items():
        frames = Frames.of(
            robot, camera.parent, f"{view}_color_optical_frame", options.base_frame, options.flange_frame
        )
        date = datetime.now().astimezone().isoformat(timespec="seconds")
        print(CameraCalibration(camera, frames, date, "read from CoppeliaSim").save(options.out))
    return 0
