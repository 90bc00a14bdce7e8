"""Sub-commands of `./genima`.

Modules are named by strings and imported only when their command runs: `./genima --help` works on a machine
where nothing is installed yet, and the library never imports ROS.
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    module: str  # exposes main(argv: list[str]) -> int; empty: the entry script does it by itself
    help: str


COMMANDS: dict[str, Command] = {
    "demo": Command("genima_cli.demo", "run the closed loop on the simulated robot and report on it"),
    "eval": Command("genima_cli.evaluate_options", "measure success over many seeds, in lock-step and without ROS"),
    "faults": Command("genima_cli.fault_bench", "bring about faults and record what the robot receives"),
    "real": Command("genima_cli.real", "run a real Franka arm and its cameras by Genima's own drivers"),
    "task": Command("genima_cli.task", "have a robot that runs do a task, in words"),
    "call": Command("genima_cli.call", "ask a robot that runs to stop, to resume, or to end its task"),
    "teleop": Command("genima_cli.teleop", "lead the simulated robot: by an expert, the keyboard or a gamepad"),
    "record": Command("genima_cli.record", "record demos: of a real robot, or simulated, led by experts or you"),
    "calibrate": Command("genima_calibration.commands", "calibrate cameras to the robot, and check calibrations"),
    "doctor": Command("genima_cli.doctor", "check machine, cameras, files and running nodes before a robot moves"),
    "episodes": Command("genima_cli.episodes", "list, show, check, judge, trim, repair demos; LeRobot in and out"),
    "render": Command("genima_cli.render", "turn demos into a dataset of drawn targets"),
    "inspect": Command("genima_cli.inspect", "print what is inside a checkpoint or a dataset, with a contact sheet"),
    "train": Command("genima_cli.train", "train the diffusion agent and the controller from demos"),
    "test": Command("genima_cli.test", "check style and types, then run the tests (arguments go to pytest)"),
    "completion": Command("genima_cli.completion", "print tab completion for bash or zsh"),
    "setup": Command("", "install what the other commands need, and nothing else (they do so by themselves)"),
}
