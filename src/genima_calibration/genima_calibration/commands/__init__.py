"""``./genima calibrate``: calibration of cameras, from a folder or by a sub-command.

Modules are named by strings and imported only when their command runs, as in :mod:`genima_cli`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from genima.errors import GenimaError

COMMANDS = {
    "board": ("genima_calibration.commands.board", "print a calibration board"),
    "live": ("genima_cli.calibrate_live", "take samples on the robot, by hand or by itself, and compute"),
    "robot": ("genima_calibration.commands.robot", "without a board: a fixed camera's pose from images of the robot"),
    "import": ("genima_calibration.commands.easy_handeye2", "import a calibration of easy_handeye2 or easy_handeye"),
    "check": ("genima_calibration.commands.check", "draw the robot over an image: the calibration's error in pixels"),
    "coppeliasim": ("genima_sim.coppeliasim.calibration", "read the cameras of a scene in CoppeliaSim"),
}
_FOLDER = "genima_calibration.commands.offline"


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima calibrate``."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: ./genima calibrate FOLDER [ARGUMENTS]    from a recorded demo, or a folder of samples")
        print("       ./genima calibrate COMMAND [ARGUMENTS]\n")
        print("\n".join(f"  {name:<12}{text}" for name, (_, text) in COMMANDS.items()))
        print("\nExample: ./genima calibrate data/demos/board --view front")
        print("./genima calibrate FOLDER --help and ./genima calibrate COMMAND --help explain the arguments.")
        return 0
    if argv[0] in COMMANDS:
        return int(importlib.import_module(COMMANDS[argv[0]][0]).main(list(argv[1:])))
    asks_for_help = "-h" in argv or "--help" in argv
    if argv[0].isidentifier() and not Path(argv[0]).exists() and not asks_for_help:
        known = ", ".join(COMMANDS)
        raise GenimaError(f"calibrate {argv[0]}: neither a command ({known}) nor a folder that exists")
    return int(importlib.import_module(_FOLDER).main(list(argv)))
