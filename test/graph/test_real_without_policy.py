"""`./genima real --no-policy` with the stand-ins of `test_real_command.py`, and `./genima call`."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

import psutil
import pytest
import yaml
from command import run_call
from real_command import MISSING, SERIALS, Command, RobotSetup

from genima.doctor.ros import PROFILE

pytest.importorskip("pyrealsense2", reason=MISSING, exc_type=ImportError)

NODES = {"franka_arm", "franka_hand", "front_camera", "command_guard", "task_runner", "clock_watch"}


def call(environment: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Return exit code and output of `./genima call`, in a terminal without a DDS profile."""
    terminal = {k: v for k, v in os.environ.items() if k != PROFILE} | environment
    return run_call(terminal, *arguments)


def test_robot_runs_without_models_or_calibration(robot_setup: RobotSetup) -> None:
    """The default cell is an FR3 with the Franka hand."""
    rig, logs = robot_setup.folder / "one.yaml", robot_setup.folder / "logs"
    camera = {"serial": SERIALS["front"], "model": "D415", "profile": "256x256x30", "mounted_on": "base"}
    rig.write_text(yaml.safe_dump({"front": camera}))
    environment = robot_setup.environment
    cell = robot_setup.cell(robot="fr3_franka_hand", cameras=str(rig), views=["front"], calibration="not_yet")
    command = Command(environment, "--no-policy", "--robot-ip", "fr3.here", "--cell", cell, "--logs", str(logs))
    try:
        ready = command.until("ready; Ctrl-C ends")
        assert {log.stem for log in logs.glob("*.log")} == NODES
        processes = psutil.Process(command.process.pid).children()
        niceness = {next(a for a in p.cmdline() if "genima_nodes." in a): p.nice() for p in processes}
        assert niceness["genima_nodes.realsense_camera"] == niceness["genima_nodes.franka_arm"]  # late images hold it
        assert call(environment, "home")[0] == 0
        assert call(environment, "stop") == (0, "stopped; resume with ./genima call resume")
        stopped = command.until("! command_guard: arm: STOPPED: stop requested", ready)
        assert call(environment, "resume")[0] == 0  # calls the robot's recovery service by its name in this cell
        command.until("all fine", stopped)
        command.process.send_signal(signal.SIGINT)
        assert command.end() == 130
    finally:
        command.kill()
