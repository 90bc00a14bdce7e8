"""A real robot's whole graph around the stand-ins: what real_robot.launch.py starts beside ROS's drivers, and a task.

The stand-in's arm is an FR3, but with the joints' names that the bundled models were trained with.
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
_BY_HAND = 1.0  # s: longer than the adapter may be without the arm's joints before it begins anew
_NOTICED, _RECOVERY, _ATTEMPTS = 10.0, 10.0, 3  # s; a busy machine answers late


@dataclass(frozen=True)
class Cell:
    """Processes of one robot."""

    robot: str  # file
    hardware: NodeSpec  # the stand-in
    ours: tuple[NodeSpec, ...]

    @property
    def processes(self) -> list[NodeSpec]:
        """All of them."""
        return [self.hardware, *self.ours]


def cell(folder: Path, fps: float, **hardware: Value) -> Cell:
    """Args:
    folder: for files.
    fps: Hz of the cameras.
    hardware: more parameters of the stand-in.
    """
    robot, backend = str(fr3_called_panda(folder)), str(crisp_of_an_fr3(folder))
    (folder / "rig.yaml").write_text(
        paths.shared("config", "cameras", "four_d415.yaml").read_text().replace("640x480x30", "256x256x30")
    )
    driven = {"arm": backend, "gripper": GRIPPER}
    file = write_cell(folder, "fr3_crisp", robot=robot, driver=driven, cameras="rig.yaml", calibration="sim")
    described = load_cell(file)
    drivers = {"robot": robot, "backend": backend, "gripper": GRIPPER, "fps": fps, "state_every": 5}
    ours = [*adapters(described), *driver_support_nodes(described)]
    return Cell(robot, NodeSpec("standins", "hardware", drivers | hardware), tuple(ours))


def fr3_called_panda(folder: Path) -> Path:
    """The robot's file."""
    data = yaml.safe_load(paths.shared("config", "robots", "fr3.yaml").read_text())
    for joint in data["joints"]:
        joint["name"] = joint["name"].replace("fr3", "panda")
    file = folder / "fr3_called_panda.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def crisp_of_an_fr3(folder: Path) -> Path:
    """The file of the controller, with the driver's own names for these joints."""
    data = yaml.safe_load(paths.shared("config", "backends", "crisp.yaml").read_text())
    data["joints"] = list(RobotModel.load("fr3").joint_names)
    file = folder / "crisp.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


CALLEES = {
    ResetScene: "sim/reset",
    SetBool: "standin/user_stop",
    Trigger: "command_guard/resume",
}


def prepare(driver: GraphClient) -> None:
    """Have it know the services of :func:`set_scene` long before they are called."""
    for kind, name in CALLEES.items():
        driver.client(kind, name)


def set_scene(driver: GraphClient, task: str, seed: int, alive: Callable[[], None]) -> str:
    """A task's scene is set by hand, and the arm put to its start, as with a real one: with the user stop pressed;
    then the robot is recovered. Returns the instruction."""

    def all_are(state: int) -> bool:
        return all(driver.statuses[name].state == state for name in ("arm_recovery", "command_guard"))

    driver.call(SetBool, "standin/user_stop", SetBool.Request(data=True), alive)
    driver.spin_until(lambda: all_are(NodeStatus.FAULT), _NOTICED, alive)
    instruction = driver.reset(task, seed, alive)
    driver.spin_until(lambda: False, _BY_HAND, alive)
    driver.call(SetBool, "standin/user_stop", SetBool.Request(data=False), alive)
    for _ in range(_ATTEMPTS):
        driver.trigger("command_guard/resume", alive)
        if driver.spin_until(lambda: all_are(NodeStatus.OK), _RECOVERY, alive):
            return instruction
    raise GenimaError(f"the robot does not recover: {'; '.join(driver.faults())}")
