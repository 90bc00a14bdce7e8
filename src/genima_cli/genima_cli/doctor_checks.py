"""Checks of `./genima doctor`: machine, files, drivers, and the running graph."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from genima.cameras.calibration_file import load_cameras
from genima.cameras.camera import VIRTUAL, Camera
from genima.cameras.camera_devices import CameraDevice
from genima.doctor import (
    Finding,
    Group,
    clock,
    configuration,
    drivers,
    fail,
    gpu,
    installation,
    kernel,
    network,
    ok,
    ros,
    skipped,
    usb,
    warn,
)
from genima.errors import GenimaError
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima_nodes.drivers.optional_library import TESTED_VERSIONS, import_library
from genima_nodes.ros.ros_context import create, ros_context
from genima_nodes.ros.ros_environment import joining_environment

if TYPE_CHECKING:
    from genima_cli.doctor import Doctor

_RESERVE = 2.0  # GB that the recorder leaves free
_JPEG = 11e6  # bytes/s of four cameras of 640x480 at 30 Hz (docs/demos.md)
_FEW = 60.0  # minutes
_SYS, _PROC, _DEV = Path("/sys"), Path("/proc"), Path("/dev")


@dataclass(frozen=True)
class Files:
    """Contents of the configuration files, as far as readable."""

    rig: Mapping[str, CameraDevice]
    robot: RobotModel | None
    spec: PolicySpec | None
    cameras: Mapping[str, Camera]

    @property
    def views(self) -> list[str]:
        """Return the views in the order of the cameras file, else of the checkpoint."""
        return list(self.rig) or [view for view in (self.spec.views if self.spec else ()) if view != VIRTUAL]


def check_machine(options: Doctor) -> tuple[list[Group], Files]:
    """Run all checks but those of the running graph; return the files' contents, too."""
    robot_there = options.robot_ip is not None
    loop = robot_there and options.backend != "franka_arm"  # at 1 kHz, on this machine
    rig, cameras_found = configuration.check_cameras(options.cameras)
    robot, robot_found = configuration.check_robot(options.robot)
    spec, folders, checkpoint_found = configuration.check_checkpoint(options.checkpoint_folder, robot)
    calibrated = list(configuration.check_calibrations(options.calibration_name, spec, rig, robot))
    fitting = configuration.check_rig(rig, spec) if rig and spec else ()
    groups = [
        Group("installation", [installation.check_python(), installation.check_packages(),
                               *installation.check_ros(os.environ.get("ROS_DISTRO", "")),
                               installation.check_rendering()]),
        Group("ROS and DDS", [*ros.check_variables(os.environ, installation.has_wheels(), options.real),
                              *ros.check_transport(os.environ, _PROC, _DEV / "shm", options.real)]),
        Group("control in real time", list(kernel.check_kernel(_SYS, _PROC, robot_there, loop))),
        Group("robot", [robot_found, *_check_robot_link(options.robot_ip)]),
        Group("drivers", list(_check_drivers(options, robot))),
        Group("clocks", [clock.check_synchronisation(options.real), *_check_other_clock(options.clock_of)]),
        Group("cameras", [cameras_found, *usb.check_connections(_SYS, _DEV, rig), *_check_serials(rig)]),
        Group("checkpoint", [*checkpoint_found, *fitting]),
        Group("graphics card", list(gpu.check_cards(folders or None))),
        Group("calibration", calibrated),
        Group("disk", [disk_space(options.demos)]),
    ]  # fmt: skip
    return groups, Files(rig, robot, spec, _readable_cameras(options.calibration_name))


def _check_drivers(options: Doctor, robot: RobotModel | None) -> Iterator[Finding]:
    if options.robot_ip is None:
        yield skipped("drivers", "not given; not needed for the simulator", "--robot-ip ADDRESS, --backend NAME")
        return
    gripper = robot.gripper if robot is not None else "unknown"
    cameras = options.cameras is not None
    yield from drivers.check_drivers(
        options.backend, gripper, cameras, options.com_port, import_library, TESTED_VERSIONS["pylibfranka"]
    )


def _check_robot_link(address: str | None) -> Iterator[Finding]:
    if address is None:
        yield skipped("way to the robot", "not given; not needed for the simulator", "--robot-ip ADDRESS")
    else:
        yield from network.check_robot_link(_SYS, address)


def _check_other_clock(host: str | None) -> Iterator[Finding]:
    if host is None:
        yield skipped("another machine's clock", "not given", "--clock-of HOST, where nodes run on two machines")
    else:
        yield clock.check_other_clock(host)


def _check_serials(rig: Mapping[str, CameraDevice]) -> Iterator[Finding]:
    if not rig:
        return
    try:
        yield from usb.check_serials(rig, usb.find_librealsense_cameras(import_library("pyrealsense2")))
    except GenimaError as error:
        yield skipped("serial numbers", str(error))


def _readable_cameras(calibration: str | None) -> Mapping[str, Camera]:
    try:
        return load_cameras(calibration) if calibration is not None else {}
    except GenimaError:
        return {}  # reported above


def check_graph(options: Doctor, files: Files) -> list[Group]:
    """Monitor the running graph for a while."""
    try:
        os.environ.update(joining_environment(options.dds))
        with ros_context():
            return _monitor_graph(options, files)
    except GenimaError as error:
        return [Group("running graph", [fail("ROS 2", str(error), "correct that, then ./genima doctor --live")])]


def _monitor_graph(options: Doctor, files: Files) -> list[Group]:
    from rclpy.experimental import EventsExecutor  # imported here: only --live needs ROS

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


def disk_space(folder: Path) -> Finding:
    """Check how long a recording fits on the disk of the demos' folder, existing or not."""
    what, place = f"disk of {folder}", folder.resolve()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        return fail(what, f"{place} is not writable", "choose another folder for demos, or change its owner")
    free = shutil.disk_usage(place).free / 1e9
    minutes = max(0.0, free - _RESERVE) * 1e9 / _JPEG / 60
    found = f"{free:.0f} GB free: {minutes / 60:.1f} h of four cameras of 640x480 at 30 Hz, as JPEG; raw a tenth of it"
    if free < _RESERVE:
        return fail(
            what, f"{free:.1f} GB free; the recorder leaves {_RESERVE:g} free", "free space, or choose another disk"
        )
    if minutes < _FEW:
        found = f"{free:.1f} GB free: {minutes:.0f} min of four cameras of 640x480 at 30 Hz, as JPEG"
        return warn(what, found, "free space, or choose another disk")
    return ok(what, found)
