"""`./genima doctor`: check machine, files and the running graph before the robot moves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from genima.errors import GenimaError
from genima.io.files import atomic_write, read_json, require_writable
from genima.io.outputs import require_free
from genima.system.command_line import Namespace, parse_options


@dataclass
class Doctor:
    """Check this machine, a robot cell and, with --live, the running graph; exit code 1 when something cannot work."""

    cell: str = "sim_panda"
    """Robot cell: a name in config/cells or a YAML file."""
    checkpoint: str | None = None
    """Folder with diffusion_agent/ and controller/; default: the bundled models for a simulated cell of their robot."""
    hardware: bool = True
    """Of a real cell: this machine drives the robot; --no-hardware: it runs the policy alone, as hardware:=false."""
    cameras: bool = True
    """Of a real cell: the cameras are connected to this machine; --no-cameras: to another, as cameras:=false."""
    robot_ip: str = ""
    """Address of the robot's control; default: the cell's."""
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


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima doctor``."""
    options = parse_options(
        Doctor, "genima doctor", argv,
        example="./genima doctor --cell mine.yaml --checkpoint runs/mine",
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
    groups, cell = check_machine(options)
    if options.live:
        groups += check_graph(options, cell)
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
