"""Sub-commands of `./genima`.

Modules are named by strings and imported only when their command runs: `./genima --help` works on a machine
where nothing is installed yet, and the library never imports ROS.
"""

from __future__ import annotations

from genima.system.command_group import Command, CommandGroup

COMMANDS: dict[str, Command] = {
    "demo": Command("genima_cli.demo", "run the closed loop on the simulated robot and report on it"),
    "eval": Command("genima_cli.evaluate", "measure success over many seeds, in lock-step and without ROS"),
    "compare": Command("genima_cli.compare", "compare two policies in the same episodes, with early stopping"),
    "study": Command("genima_cli.study", "train and evaluate policies as a study's file says, and report on them"),
    "faults": Command("genima_cli.faults.bench", "inject faults and record the commands to the robot"),
    "serve": Command("genima_cli.serve", "serve a policy to a robot on another machine, or to another program"),
    "real": Command("genima_cli.real", "run a real Franka arm and its cameras by Genima's own drivers"),
    "tasks": Command("genima_cli.tasks", "list the simulated tasks, check them, and draw a gallery"),
    "task": Command("genima_cli.task", "run a task, given as text, on a running robot"),
    "trial": Command("genima_cli.trial", "compare two policies on a robot: blinded trials, judged by the operator"),
    "call": Command("genima_cli.call", "stop or resume a running robot, or end its task"),
    "teleop": Command("genima_cli.teleop", "teleoperate the simulated robot: expert, keyboard or gamepad"),
    "record": Command("genima_cli.record", "record demos of a real or simulated robot, by experts or teleoperation"),
    "calibrate": Command("genima_calibration.commands", "calibrate cameras to the robot, and check calibrations"),
    "doctor": Command("genima_cli.doctor", "check machine, cameras, files and running nodes before the robot moves"),
    "episodes": Command("genima_cli.episodes", "list, show, check, judge, trim, repair and convert demos"),
    "render": Command("genima_cli.render", "render demos to a dataset of drawn targets"),
    "inspect": Command("genima_cli.inspect", "print the content of a checkpoint or a dataset, with a contact sheet"),
    "train": Command("genima_cli.train", "train the diffusion agent and the controller from demos"),
    "test": Command("genima_cli.test", "check style and types, then run the tests (arguments go to pytest)"),
    "completion": Command("genima_cli.completion", "print tab completion for bash or zsh"),
    "setup": Command("", "install the dependencies, and nothing else (other commands do so when needed)"),
}
HINT = "./genima COMMAND --help explains a command's arguments; ./genima --version; tab completion: README.md."
GROUP = CommandGroup("", COMMANDS, HINT)
