"""Checks of a launch file's arguments, before anything is started. None of this needs an installed ROS 2.

A check takes an argument's text and raises a GenimaError for one that makes no sense.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.calibration_file import load_cameras
from genima.cameras.rig import load_rig
from genima.doctor import Status, installation, ros
from genima.doctor.configuration import check_rig
from genima.errors import GenimaError
from genima.io import paths
from genima.io.files import parse_yaml, shorten
from genima.policy import spec as checkpoints
from genima.robot.backend import ArmBackend
from genima.robot.model import RobotModel
from genima.system.ros_names import require_namespace, require_ros_name, require_topic
from genima.system.terminal import printable
from genima.teleop.leader_mapping import LeaderMapping
from genima_nodes.ros.ros_environment import dds_profile
from genima_sim.coppeliasim.names import SceneNames

Check: TypeAlias = Callable[[str], object]
UNCALIBRATED = "none"  # of the argument calibration


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
    """Make the check of a number from ``low`` to ``high``."""

    def check(text: str) -> None:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and low <= value <= high):
            raise GenimaError(f"not a number from {low:g} to {high:g}")

    return check


def integer(low: int, high: int) -> Check:
    """Make the check of a whole number from ``low`` to ``high``."""

    def check(text: str) -> None:
        if not re.fullmatch(r"-?[0-9]{1,19}", text) or not low <= int(text) <= high:
            raise GenimaError(f"not a whole number from {low} to {high}")

    return check


def flag(text: str) -> None:
    """Check a boolean."""
    if text.lower() not in ("true", "false", "1", "0"):
        raise GenimaError("neither true nor false")


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


def views(text: str) -> None:
    """Check a list of names of cameras: ``[front, wrist]``."""
    names = parse_yaml(text, "views")
    if not isinstance(names, list) or not names:
        raise GenimaError("not a list of cameras such as [front, wrist]")
    for name in names:
        require_ros_name(name, "view")
    if len(set(names)) < len(names):
        raise GenimaError("a camera comes twice")


def filled(text: str) -> None:
    """Check a text that must not be empty, nor have control characters."""
    if not text.strip() or not text.isprintable():
        raise GenimaError("empty" if not text.strip() else "has control characters")


def host(text: str) -> None:
    """Check an address or a name of a host."""
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,253}", text):
        raise GenimaError("not an address or a name of a host")


def device(text: str) -> None:
    """Check what networks compute on."""
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,2})?", text):
        raise GenimaError("not cpu, cuda or cuda:1")


def dds(text: str) -> None:
    """Check a profile of config/dds, and the variables that ROS reads beside it."""
    environment = os.environ | {ros.PROFILE: str(dds_profile(text))}
    ros.require_valid_environment(environment, installation.has_wheels())


def robot(text: str) -> None:
    """Check a robot model: a name in config/robots, or a YAML file."""
    RobotModel.load(text)


def board(text: str) -> None:
    """Check a board's file; empty: the project's."""
    if text:
        CalibrationBoard.load(Path(text))


def cameras(text: str) -> None:
    """Check which camera is which view: a name in config/cameras, or a YAML file."""
    load_rig(text)


def calibration(text: str) -> None:
    """Check a folder of calibrations, or a name in calibration; empty: none."""
    if text:
        load_cameras(text)


def checkpoint(text: str) -> None:
    """Check a folder with diffusion_agent/ and controller/; empty: the project's."""
    checkpoints.read_pair(text)


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


def anything(text: str) -> None:
    """Take every text."""


def is_true(text: str) -> bool:
    """Return what a boolean argument says."""
    return text.lower() in ("true", "1")


# ------------------------------------------------------------------------------------------ arguments that go together


def require_teleop(values: Mapping[str, str]) -> None:
    """Check that a leader fits its follower.

    Raises:
        GenimaError: for a leader's file that is missing or malformed, or an arm with another number of joints.
    """
    LeaderMapping.load(values["leader"], RobotModel.load(values["robot"]))


def require_simulation(values: Mapping[str, str]) -> None:
    """Check that checkpoint, robot and calibration of sim.launch.py fit.

    Raises:
        GenimaError: for files that are missing, malformed, or of another robot.
    """
    model = RobotModel.load(values["robot"])
    spec, _ = checkpoints.read_pair(values["checkpoint"])
    spec.require_robot(model, f"the checkpoint {values['checkpoint'] or 'of Genima'}")
    if values["backend"] == "coppeliasim":
        SceneNames.load(values["scene"], model)


def require_policy(model: str, cameras: str, calibration: str, checkpoint: str) -> None:
    """Check that a checkpoint fits the robot, its cameras and their calibration.

    Raises:
        GenimaError: for files that are missing, malformed, or of another cell.
    """
    rig, calibrated = load_rig(cameras), load_cameras(calibration)
    spec, _ = checkpoints.read_pair(checkpoint)
    spec.require_robot(RobotModel.load(model), f"the checkpoint {checkpoint or 'of Genima'}")
    if misfits := [finding for finding in check_rig(rig, spec) if finding.status is Status.FAIL]:
        raise GenimaError(f"{misfits[0].what}: {misfits[0].found}; {misfits[0].remedy}")
    if missing := [view for view in rig if view not in calibrated]:
        raise GenimaError(
            f"{calibration} has no calibration of {', '.join(missing)}: docs/calibration.md says how to make it"
        )


def require_real_robot(values: Mapping[str, str]) -> None:
    """Check that the arguments of real_robot.launch.py go together.

    Raises:
        GenimaError: naming those that do not.
    """
    arm, hand, backend = values["robot"], values["gripper"] == "franka_hand", values["backend"]
    model = f"{arm}_franka_hand" if hand else arm
    if is_true(values["hardware"]):
        if arm == "panda" and backend != "multipanda":
            raise GenimaError(
                "robot:=panda takes backend:=multipanda: what franka_ros2 and pylibfranka drive is an FR3"
            )
        if arm == "panda" and hand:
            raise GenimaError(
                "gripper:=franka_hand is an FR3's, by its joint in config/backends/franka_hand.yaml; with robot:=panda "
                "take robotiq_2f140"
            )
        if values["namespace"].strip("/") and backend == "gello":
            raise GenimaError(
                f"namespace:={values['namespace']} does not go with backend:=gello, whose controller puts its "
                "namespace before the names of its joints; take backend:=crisp or jtc"
            )
        if backend in ("crisp", "gello", "jtc"):
            ArmBackend.load(backend)
            paths.shared("config", "controllers", f"{backend}.yaml")
    if values["calibration"] == UNCALIBRATED:
        if is_true(values["policy"]):
            raise GenimaError("calibration:=none goes with policy:=false only: the policy draws on calibrated cameras")
    elif is_true(values["policy"]):
        require_policy(model, values["cameras"], values["calibration"], values["checkpoint"])
    elif is_true(values["hardware"]) or is_true(values["record"]):
        require("calibration", values, calibration)
    if is_true(values["record"]):
        require("folder", values, output_folder)


def require_view(values: Mapping[str, str]) -> None:
    """Check that view.launch.py has a description of the robot.

    Raises:
        GenimaError: for a Panda without one, and a file that does not exist.
    """
    if values["robot"] == "panda" and values["description"].endswith("/robots/panda/panda.urdf.xacro"):
        raise GenimaError(
            "franka_description has no robot whose joints are a Panda's: start view.launch.py robot:=panda with a "
            "xacro file that has, by description:=FILE"
        )
    require("description", values, existing_file)


def require_calibration(values: Mapping[str, str]) -> None:
    """Check what calibrate.launch.py is asked to calibrate.

    Raises:
        GenimaError: for a simulated camera that does not exist, and folders that cannot be written.
    """
    if is_true(values["sim"]) and values["view"] not in (known := load_cameras("sim")):
        raise GenimaError(f"view:={values['view']}: the simulator has {', '.join(known)}")
    require("calibration", values, output_folder)
    if values["samples"]:
        require("samples", values, output_folder)
