"""Checks of `./genima doctor`: machine, files, drivers, and the running graph."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from genima.cameras.calibration_file import load_cameras
from genima.cameras.camera import VIRTUAL, Camera
from genima.cameras.rig import Device
from genima.doctor import (
    Finding,
    Group,
    clock,
    configuration,
    disk,
    drivers,
    fail,
    gpu,
    installation,
    kernel,
    network,
    ros,
    skipped,
    usb,
)
from genima.errors import GenimaError
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima_nodes.drivers.optional_library import TRIED, require
from genima_nodes.ros.ros_context import create, ros_context
from genima_nodes.ros.ros_environment import joining_environment

if TYPE_CHECKING:
    from genima_cli.doctor import Doctor

_SYS, _PROC, _DEV = Path("/sys"), Path("/proc"), Path("/dev")


@dataclass(frozen=True)
class Files:
    """Contents of the configuration files, as far as readable."""

    rig: Mapping[str, Device]
    robot: RobotModel | None
    spec: PolicySpec | None
    cameras: Mapping[str, Camera]

    @property
    def views(self) -> list[str]:
        """Return the views in the order of the cameras file, else of the checkpoint."""
        return list(self.rig) or [view for view in (self.spec.views if self.spec else ()) if view != VIRTUAL]


def look(options: Doctor) -> tuple[list[Group], Files]:
    """Run all checks but those of the running graph; return the files' contents, too."""
    robot_there = options.robot_ip is not None
    loop = robot_there and options.backend != "franka_arm"  # at 1 kHz, on this machine
    rig, cameras_found = configuration.cameras(options.cameras)
    robot, robot_found = configuration.robot(options.robot)
    spec, folders, checkpoint_found = configuration.checkpoint(options.checkpoint_folder, robot)
    calibrated = list(configuration.calibrations(options.calibration_name, spec, rig, robot))
    fitting = configuration.rig_fits(rig, spec) if rig and spec else ()
    groups = [
        Group("installation", [installation.python(), installation.packages(),
                               *installation.ros(os.environ.get("ROS_DISTRO", "")), installation.rendering()]),
        Group("ROS and DDS", [*ros.variables(os.environ, installation.has_wheels(), options.real),
                              *ros.transport(os.environ, _PROC, _DEV / "shm", options.real)]),
        Group("control in real time", list(kernel.findings(_SYS, _PROC, robot_there, loop))),
        Group("robot", [robot_found, *_way(options.robot_ip)]),
        Group("drivers", list(_drivers(options, robot))),
        Group("clocks", [clock.synchronised(options.real), *_other_clock(options.clock_of)]),
        Group("cameras", [cameras_found, *usb.connections(_SYS, _DEV, rig), *_serials(rig)]),
        Group("checkpoint", [*checkpoint_found, *fitting]),
        Group("graphics card", list(gpu.findings(folders or None))),
        Group("calibration", calibrated),
        Group("disk", [disk.room(options.demos)]),
    ]  # fmt: skip
    return groups, Files(rig, robot, spec, _readable_cameras(options.calibration_name))


def _drivers(options: Doctor, robot: RobotModel | None) -> Iterator[Finding]:
    if options.robot_ip is None:
        yield skipped("drivers", "no robot is given; the simulator needs none", "--robot-ip ADDRESS, --backend NAME")
        return
    gripper = robot.gripper if robot is not None else "unknown"
    cameras = options.cameras is not None
    yield from drivers.findings(options.backend, gripper, cameras, options.com_port, require, TRIED["pylibfranka"])


def _way(address: str | None) -> Iterator[Finding]:
    if address is None:
        yield skipped("way to the robot", "no address is given; the simulator needs none", "--robot-ip ADDRESS")
    else:
        yield from network.to_robot(_SYS, address)


def _other_clock(host: str | None) -> Iterator[Finding]:
    if host is None:
        yield skipped("another machine's clock", "none is named", "--clock-of HOST, where nodes run on two machines")
    else:
        yield clock.agrees(host)


def _serials(rig: Mapping[str, Device]) -> Iterator[Finding]:
    if not rig:
        return
    try:
        yield from usb.serials(rig, usb.known(require("pyrealsense2")))
    except GenimaError as error:
        yield skipped("serial numbers", str(error))


def _readable_cameras(calibration: str | None) -> Mapping[str, Camera]:
    try:
        return load_cameras(calibration) if calibration is not None else {}
    except GenimaError:
        return {}  # said already


def listen(options: Doctor, files: Files) -> list[Group]:
    """Monitor the running graph for a while."""
    try:
        os.environ.update(joining_environment(options.dds))
        with ros_context():
            return _listen(options, files)
    except GenimaError as error:
        return [Group("running graph", [fail("ROS 2", str(error), "correct that, then ./genima doctor --live")])]


def _listen(options: Doctor, files: Files) -> list[Group]:
    from rclpy.experimental import EventsExecutor  # only here: without --live, no ROS is needed

    from genima_nodes.ros.topic_listener import TopicListener

    node = create(lambda: TopicListener("doctor", options.namespace))
    executor = EventsExecutor()
    executor.add_node(node)
    try:
        node.expect(files.views, files.rig, files.cameras, files.robot)
        end = time.monotonic() + options.seconds
        with tqdm(total=options.seconds, desc="listening", unit="s", bar_format="{desc} {bar} {remaining}") as progress:
            while (left := end - time.monotonic()) > 0:
                executor.spin_once(timeout_sec=min(0.1, left))
                progress.update(options.seconds - left - progress.n)
        return [*node.groups(), node.told()]
    finally:
        executor.shutdown()
        node.destroy_node()
