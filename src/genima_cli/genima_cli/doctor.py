"""`./genima doctor`: check machine, files and the running graph before the robot moves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from genima.errors import GenimaError
from genima.io.files import atomic_write, read_json, require_writable
from genima.io.outputs import require_free
from genima.system.command_line import Namespace, parse_options


@dataclass
class Doctor:
    """Check this machine, the files and, with --live, the running graph; exit code 1 when something cannot work.

    With neither --cameras nor --robot-ip, it is the simulator that is looked at: the bundled checkpoint, the simulated
    cameras.
    """

    cameras: str | None = None
    """Which camera is which view: a name in config/cameras or a YAML file."""
    calibration: str | None = None
    """A folder in calibration/, or any."""
    checkpoint: str | None = None
    """Folder of a diffusion agent and a controller."""
    robot: str = "panda"
    """Robot model: a name in config/robots or a YAML file."""
    robot_ip: str | None = None
    """Address of the robot's control: this machine drives it."""
    backend: Literal["crisp", "gello", "jtc", "multipanda", "franka_arm"] = "crisp"
    """What drives the arm, as in real_robot.launch.py; franka_arm (also of ./genima real) needs no real-time kernel."""
    com_port: Path = Path("/dev/ttyUSB0")
    """Serial port of a Robotiq's adapter."""
    clock_of: str | None = None
    """Another machine, whose clock is compared (its chrony must allow it)."""
    demos: Path = field(default_factory=lambda: Path("data/demos"))
    """Folder that demos are recorded into."""
    live: bool = False
    """Also listen to the graph that runs in this shell's ROS_DOMAIN_ID."""
    namespace: Namespace = ""
    """With --live: of the robot's nodes."""
    dds: str = "shared_memory"
    """With --live: as in the robot's launch; two_machines where they are."""
    seconds: Annotated[float, Field(ge=1, le=600)] = 5.0
    """With --live: how long to listen."""
    json: Path | None = None
    """File for all findings."""
    overwrite: bool = False
    """Replace the findings of an earlier call in --json."""

    @property
    def real(self) -> bool:
        """Return whether the robot is real hardware."""
        return self.cameras is not None or self.robot_ip is not None

    @property
    def checkpoint_folder(self) -> str | None:
        """Return the checkpoint folder; by default the simulator's bundled one."""
        return self.checkpoint if self.checkpoint is not None or self.real else ""

    @property
    def calibration_name(self) -> str | None:
        """Return the calibration's name; by default the simulator's."""
        return self.calibration if self.calibration is not None or self.real else "sim"


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima doctor``."""
    options = parse_options(
        Doctor, "genima doctor", argv,
        example="./genima doctor --cameras mine --robot fr3_franka_hand --robot-ip 172.16.0.2 --backend franka_arm",
    )  # fmt: skip
    from genima.doctor.findings import (  # imported here: --help must be quick
        as_json,
        format_table,
        has_failures,
    )
    from genima_cli.doctor_checks import check_graph, check_machine

    if options.json is not None:
        require_writable(options.json)  # first of all it is no folder
        require_free(options.json, "findings", options.overwrite, _has_findings)
    groups, files = check_machine(options)
    if options.live:
        groups += check_graph(options, files)
    print(format_table(groups, shutil.get_terminal_size().columns))
    if options.json is not None:
        atomic_write(options.json, (json.dumps(as_json(groups), indent=1) + "\n").encode())
    return int(has_failures(groups))


def _has_findings(path: Path) -> bool:
    """Return whether a file was written by doctor."""
    try:
        groups = read_json(path, "findings")
    except GenimaError:
        return False
    return isinstance(groups, list) and all(isinstance(each, dict) and "findings" in each for each in groups)
