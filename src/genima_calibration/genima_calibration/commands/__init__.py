"""``./genima calibrate``: calibration of cameras, from a folder or by a sub-command.

Modules are named by strings and imported only when their command runs, as in :mod:`genima_cli`.
"""

from __future__ import annotations

from genima.system.command_group import Command, CommandGroup

COMMANDS = {
    "board": Command("genima_calibration.commands.board", "print a calibration board"),
    "live": Command("genima_cli.calibrate_live", "take samples on the robot, by hand or automatically, and calibrate"),
    "robot": Command("genima_calibration.commands.robot", "fixed camera without a board, from images of the robot"),
    "import": Command("genima_calibration.commands.easy_handeye2", "import from easy_handeye2 or easy_handeye"),
    "check": Command("genima_calibration.commands.check", "draw the robot over an image: the error in pixels"),
    "coppeliasim": Command("genima_sim.coppeliasim.calibration", "read the cameras of a scene in CoppeliaSim"),
}
_HINT = """Example: ./genima calibrate data/demos/board --view front
./genima calibrate FOLDER --help and ./genima calibrate COMMAND --help explain the arguments."""
_FOLDER = Command("genima_calibration.commands.offline", "from a recorded demo, or a folder of samples")
main = CommandGroup("calibrate", COMMANDS, _HINT, _FOLDER, "FOLDER").run
