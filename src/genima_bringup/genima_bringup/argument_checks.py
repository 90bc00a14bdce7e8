"""Checks of launch arguments, before anything is started; without an installed ROS 2.

A check takes an argument's text and raises a GenimaError for an invalid one.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from genima.cameras.calibration_board import CalibrationBoard
from genima.cell import HAND, ROBOTIQ, Cell, load_cell
from genima.data.episodes.robot import require_episode_robot
from genima.doctor import installation, ros
from genima.errors import GenimaError
from genima.io import paths
from genima.io.files import shorten
from genima.policy import registry
from genima.policy import spec as checkpoints
from genima.policy.chunk_sampling_options import SAMPLERS
from genima.policy.names import EXPERT, GENIMA, REMOTE, REPLAY
from genima.policy.remote import read_spec
from genima.system.ros_names import require_namespace, require_ros_name, require_topic
from genima.system.terminal import printable
from genima.teleop.leader_mapping import LeaderMapping
from genima_bringup.node_specs import simulator
from genima_nodes.ros.ros_environment import dds_profile
from genima_sim.perturbations import get_perturbations
from genima_sim.simulators import get_simulator, require_perturbations

NO_POLICY = "false"  # in place of a policy's name: another machine runs one, or none does
Check: TypeAlias = Callable[[str], object]


def require(name: str, values: Mapping[str, str], check: Check) -> None:
    """Check one argument.

    Raises:
        GenimaError: with its name and value, where it makes no sense.
    """
    try:
        check(values[name])
    except GenimaError as error:
        place = ""
        if any(words in str(error) for words in ("exist", "no such", "not found")):
            place = f"; relative paths begin at {Path.cwd()}"
        raise GenimaError(f"{name}:={printable(shorten(values[name]))}: {error}{place}") from None


def number(low: float, high: float) -> Check:
    """Return the check of a number from ``low`` to ``high``."""

    def check(text: str) -> None:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and low <= value <= high):
            raise GenimaError(f"not a number from {low:g} to {high:g}")

    return check


def integer(low: int, high: int) -> Check:
    """Return the check of a whole number from ``low`` to ``high``."""

    def check(text: str) -> None:
        if not re.fullmatch(r"-?[0-9]{1,19}", text) or not low <= int(text) <= high:
            raise GenimaError(f"not a whole number from {low} to {high}")

    return check


def flag(text: str) -> None:
    """Check a boolean."""
    if text.lower() not in ("true", "false", "1", "0"):
        raise GenimaError("neither true nor false")


def sampler(text: str) -> None:
    """Check the name of a sampler of action chunks."""
    if text not in SAMPLERS:
        raise GenimaError(f"not one of {', '.join(SAMPLERS)}")


def namespace(text: str) -> None:
    """Check a namespace of nodes; empty: the root."""
    require_namespace(text)


def topic(text: str) -> None:
    """Check the name of a topic."""
    require_topic(text, "topic")


def frame(text: str) -> None:
    """Check the name of a frame, which may have a namespace."""
    require_namespace(text, "frame")
    if not text.strip("/"):
        raise GenimaError("empty")


def view(text: str) -> None:
    """Check the name of a camera."""
    require_ros_name(text, "view")


def filled(text: str) -> None:
    """Check a text that must not be empty, nor have control characters."""
    if not text.strip() or not text.isprintable():
        raise GenimaError("empty" if not text.strip() else "has control characters")


def host(text: str) -> None:
    """Check an address or a name of a host."""
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,253}", text):
        raise GenimaError("not an address or a name of a host")


def device(text: str) -> None:
    """Check the device of the networks."""
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,2})?", text):
        raise GenimaError("not cpu, cuda or cuda:1")


def dds(text: str) -> None:
    """Check a profile of config/dds, and the variables that ROS reads with it."""
    environment = os.environ | {ros.PROFILE: str(dds_profile(text))}
    ros.require_valid_environment(environment, installation.has_wheels())


def board(text: str) -> None:
    """Check a board's file; empty: the project's."""
    if text:
        CalibrationBoard.load(Path(text))


def cell(text: str) -> None:
    """Check a robot cell: a name in config/cells, or a YAML file."""
    load_cell(text)


def optional_host(text: str) -> None:
    """Check an address or a name of a host; empty: the cell's."""
    if text:
        host(text)


def checkpoint(text: str) -> None:
    """Check the folder of a trained policy; empty: the project's."""
    checkpoints.read_policy(text or GENIMA)


def policy(text: str) -> None:
    """Check the name of a policy."""
    registry.require_policy(text)


def optional_policy(text: str) -> None:
    """Check the name of a policy; ``false``: none."""
    if text != NO_POLICY:
        policy(text)


def episode(text: str) -> None:
    """Check the folder of an episode; empty: none."""
    if text and not Path(text).is_dir():
        raise GenimaError("no such folder")


def existing_file(text: str) -> None:
    """Check a file."""
    if not Path(text).is_file():
        raise GenimaError("no such file")


def output_folder(text: str) -> None:
    """Check that a folder can be made, or written into."""
    filled(text)
    folder = Path(text).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise GenimaError(f"{there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise GenimaError(f"{there} cannot be written")


def names(text: str) -> list[str]:
    """Return the names of an argument, which commas separate."""
    return [name.strip() for name in text.split(",") if name.strip()]


def perturbations(text: str) -> None:
    """Check names of perturbations, which commas separate; empty: none."""
    get_perturbations(names(text))


def anything(text: str) -> None:
    """Accept every text."""


def is_true(text: str) -> bool:
    """Return the value of a boolean argument."""
    return text.lower() in ("true", "1")


# ------------------------------------------------------------------------------------------ arguments that go together


def require_teleop(values: Mapping[str, str]) -> None:
    """Check that a leader fits its follower.

    Raises:
        GenimaError: for a leader's file that is missing or malformed, or an arm with another number of joints; and for
            the simulation of a real robot.
    """
    cell = load_cell(values["cell"])
    LeaderMapping.load(values["leader"], cell.robot)
    if is_true(values["sim"]):
        simulator(cell)


def require_driver(values: Mapping[str, str]) -> None:
    """Check that a cell is that of a real robot; GenimaError where it is simulated."""
    load_cell(values["cell"]).require_driver()


def require_simulation(values: Mapping[str, str]) -> None:
    """Check that the cell of sim.launch.py is simulated, and fits the policy.

    Raises:
        GenimaError: for files that are missing, malformed, or of another robot.
    """
    cell = load_cell(values["cell"])
    simulator(cell)
    require_policy(cell, values["policy"], values["checkpoint"], values["episode"])
    get_simulator(cell, real_time=True).check_cell(cell)
    require_perturbations(cell, names(values["perturbations"]))


def require_policy(cell: Cell, name: str = GENIMA, checkpoint: str = "", episode: str = "") -> None:
    """Check that a policy fits a cell, and that its arguments go together.

    Args:
        cell: in which it runs.
        name: of the registry, a folder like ``checkpoint``, or a server, which must run.
        checkpoint: folder of a trained policy; empty: the bundled one.
        episode: folder of the episode that ``replay`` replays.

    Raises:
        GenimaError: for arguments of another policy, and files that are missing, malformed, or of another cell.
    """
    policy(name)
    registry.require_options(name, checkpoint, episode)
    if checkpoints.is_trained(name):
        trained = checkpoints.read_policy(name, checkpoint)
        cell.require_policy(trained.spec, trained.title)
    elif name == REMOTE or registry.is_server(name):
        server = "" if name == REMOTE else name
        options = registry.PolicyOptions(robot=cell.robot_reference, views=cell.views, server=server)
        cell.require_policy(read_spec(options), f"policy {name}")
    elif name == EXPERT and cell.driver is not None:
        raise GenimaError(f"policy expert: needs the objects of a simulated scene; cell {cell.name} is real")
    elif name == REPLAY:
        if not episode or not Path(episode).is_dir():
            found = f"no such folder ({episode})" if episode else "missing"
            raise GenimaError(
                f"policy replay: episode {found}; name the folder of one, such as one of those that "
                "./genima record --lockstep --task push_button --episodes 1 makes in data/demos"
            )
        require_episode_robot(Path(episode), cell.robot)


def require_real_robot(values: Mapping[str, str]) -> None:
    """Check that the arguments of real_robot.launch.py go together.

    Raises:
        GenimaError: naming those that do not.
    """
    cell = load_cell(values["cell"])
    driver = cell.require_driver()
    if is_true(values["hardware"]):
        if cell.robot.arm == "panda" and driver.kind != "external":
            raise GenimaError(
                f"cell {cell.name}: robot {cell.robot.name} takes kind: external, such as multipanda; franka_ros2 and "
                "pylibfranka drive an FR3"
            )
        if cell.robot.arm == "panda" and driver.gripper == HAND:
            raise GenimaError(
                f"cell {cell.name}: config/backends/franka_hand.yaml is the hand of an FR3, by its joint; take "
                "robotiq_2f140 for a Panda"
            )
        if values["namespace"].strip("/") and driver.arm == "gello":
            raise GenimaError(
                f"namespace:={values['namespace']} does not go with the controller gello, which puts its namespace "
                "before the names of its joints; take a cell with crisp or jtc"
            )
        if driver.kind == "franka_ros2":
            paths.shared("config", "controllers", f"{Path(driver.arm or '').stem}.yaml")
    if values["policy"] != NO_POLICY:
        cell.load_cameras()
        require_policy(cell, values["policy"], values["checkpoint"], values["episode"])
    if is_true(values["record"]):
        require("folder", values, output_folder)


def require_view(values: Mapping[str, str]) -> None:
    """Check that view.launch.py has a description of the robot.

    Raises:
        GenimaError: for a Panda without one, and a file that does not exist.
    """
    cell = load_cell(values["cell"])
    if cell.robot.arm == "panda" and values["description"].endswith("/robots/panda/panda.urdf.xacro"):
        raise GenimaError(
            f"cell {cell.name}: franka_description has no robot whose joints are a Panda's; give a xacro file that "
            "has, by description:=FILE"
        )
    require("description", values, existing_file)


def require_robotiq(values: Mapping[str, str]) -> None:
    """Check that the cell of robotiq.launch.py has that gripper; GenimaError where it has another, or is simulated."""
    cell = load_cell(values["cell"])
    if cell.require_driver().gripper != ROBOTIQ:
        raise GenimaError(f"cell {cell.name}: its gripper is a {cell.robot.gripper}; name a cell with {ROBOTIQ}")


def require_calibration(values: Mapping[str, str]) -> None:
    """Check what calibrate.launch.py is asked to calibrate.

    Raises:
        GenimaError: for a simulated camera that does not exist, the simulation of a real robot, and folders that
            cannot be written.
    """
    cell = load_cell(values["cell"])
    if is_true(values["sim"]):
        simulator(cell)
        if values["view"] not in cell.views:
            raise GenimaError(f"view:={values['view']}: cell {cell.name} has {', '.join(cell.views)}")
    require("calibration", values, output_folder)
    if values["samples"]:
        require("samples", values, output_folder)
