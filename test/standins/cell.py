"""Nodes of real_robot.launch.py with stand-ins for the drivers, and the scene of a task.

The stand-in's arm is an FR3 with the joint names of the bundled models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from cells import write_cell
from std_srvs.srv import SetBool, Trigger

from genima.cell import load_cell
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.model import RobotModel
from genima_bringup.node_specs import NodeSpec, Value, adapters, driver_support_nodes
from genima_cli.graph_client import GraphClient
from genima_interfaces.msg import NodeStatus
from genima_interfaces.srv import ResetScene

GRIPPER = "robotiq_2f140"
_SCENE_PAUSE = 1.0  # s: longer than the adapter's timeout of joint states, after which it restarts
_FAULT_TIMEOUT, _RECOVERY, _ATTEMPTS = 10.0, 10.0, 3  # s; a busy machine responds late


@dataclass(frozen=True)
class Cell:
    """Nodes of one robot."""

    robot: str  # file
    hardware: NodeSpec  # the stand-in
    ours: tuple[NodeSpec, ...]

    @property
    def processes(self) -> list[NodeSpec]:
        """All nodes."""
        return [self.hardware, *self.ours]


def cell(folder: Path, fps: float, **hardware: Value) -> Cell:
    """Args:
    folder: folder of the files.
    fps: Hz of the cameras.
    hardware: more parameters of the stand-in.
    """
    robot, backend = str(write_fr3_with_panda_names(folder)), str(write_crisp_backend(folder))
    (folder / "rig.yaml").write_text(
        paths.shared("config", "cameras", "four_d415.yaml").read_text().replace("640x480x30", "256x256x30")
    )
    driver_files = {"arm": backend, "gripper": GRIPPER}
    file = write_cell(folder, "fr3_crisp", robot=robot, driver=driver_files, cameras="rig.yaml", calibration="sim")
    loaded = load_cell(file)
    drivers = {"robot": robot, "backend": backend, "gripper": GRIPPER, "fps": fps, "state_every": 5}
    ours = [*adapters(loaded), *driver_support_nodes(loaded)]
    return Cell(robot, NodeSpec("standins", "hardware", drivers | hardware), tuple(ours))


def write_fr3_with_panda_names(folder: Path) -> Path:
    """Write an FR3's robot file with a Panda's joint names."""
    data = yaml.safe_load(paths.shared("config", "robots", "fr3.yaml").read_text())
    for joint in data["joints"]:
        joint["name"] = joint["name"].replace("fr3", "panda")
    file = folder / "fr3_called_panda.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def write_crisp_backend(folder: Path) -> Path:
    """Write the backend file of CRISP with an FR3's joint names for the driver."""
    data = yaml.safe_load(paths.shared("config", "backends", "crisp.yaml").read_text())
    data["joints"] = list(RobotModel.load("fr3").joint_names)
    file = folder / "crisp.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


SERVICES = {
    ResetScene: "sim/reset",
    SetBool: "standin/user_stop",
    Trigger: "command_guard/resume",
}


def prepare(driver: GraphClient) -> None:
    """Create the clients of :func:`set_scene` long before the services are called."""
    for kind, name in SERVICES.items():
        driver.client(kind, name)


def set_scene(driver: GraphClient, task: str, seed: int, check_processes: Callable[[], None]) -> str:
    """Set the scene of a task and the arm's start, and return the instruction.

    The user stop is pressed meanwhile; then the robot recovers.
    """

    def all_are(state: int) -> bool:
        return all(driver.statuses[name].state == state for name in ("arm_recovery", "command_guard"))

    driver.call(SetBool, "standin/user_stop", SetBool.Request(data=True), check_processes)
    driver.spin_until(lambda: all_are(NodeStatus.FAULT), _FAULT_TIMEOUT, check_processes)
    instruction = driver.reset(task, seed, check_processes)
    driver.spin_until(lambda: False, _SCENE_PAUSE, check_processes)
    driver.call(SetBool, "standin/user_stop", SetBool.Request(data=False), check_processes)
    for _ in range(_ATTEMPTS):
        driver.trigger("command_guard/resume", check_processes)
        if driver.spin_until(lambda: all_are(NodeStatus.OK), _RECOVERY, check_processes):
            return instruction
    raise GenimaError(f"the robot does not recover: {'; '.join(driver.faults())}")
