"""Checks of `./genima doctor`: machine, files, drivers, and the running graph."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from genima.cameras.camera import Camera
from genima.cameras.camera_devices import CameraDevice
from genima.cell import Cell, DriverConfig
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
from genima.policy.spec import PolicySpec, read_pair
from genima_nodes.drivers.optional_library import TESTED_VERSIONS, import_library
from genima_nodes.ros.ros_context import create, ros_context
from genima_nodes.ros.ros_environment import joining_environment

if TYPE_CHECKING:
    from genima_cli.doctor import Doctor

_RESERVE = 2.0  # GB that the recorder leaves free
_JPEG = 11e6  # bytes/s of four cameras of 640x480 at 30 Hz (docs/demos.md)
_FEW = 60.0  # minutes
_SYS, _PROC, _DEV = Path("/sys"), Path("/proc"), Path("/dev")


def check_machine(options: Doctor) -> tuple[list[Group], Cell | None]:
    """Run all checks but those of the running graph; return the cell, too, where it can be read."""
    cell, cell_found = configuration.check_cell(options.cell)
    if cell is not None and cell.driver is not None:
        cell = cell.with_robot_ip(options.robot_ip)
    driver = None if cell is None else cell.driver
    real = driver is not None
    controlled = driver if options.hardware else None  # of a robot that this machine controls
    loop = controlled is not None and controlled.kind == "franka_ros2"  # at 1 kHz
    robot, devices = (None, {}) if cell is None else (cell.robot, cell.camera_devices)
    named = options.checkpoint if options.checkpoint is not None else _default_checkpoint(cell)
    spec, folders, checkpoint_found = configuration.check_checkpoint(named, robot)
    fitting = configuration.check_camera_devices(devices, spec) if devices and spec else ()
    connected = devices if options.cameras else {}
    groups = [
        Group("installation", [installation.check_python(), installation.check_packages(),
                               *installation.check_ros(os.environ.get("ROS_DISTRO", "")),
                               installation.check_rendering()]),
        Group("ROS and DDS", [*ros.check_variables(os.environ, installation.has_wheels(), real),
                              *ros.check_transport(os.environ, _PROC, _DEV / "shm", real)]),
        Group("control in real time", list(kernel.check_kernel(_SYS, _PROC, controlled is not None, loop))),
        Group("cell", [cell_found]),
        Group("robot", [configuration.describe_robot(cell), *_check_robot_link(controlled)]),
        Group("drivers", list(_check_drivers(cell, options))),
        Group("clocks", [clock.check_synchronisation(real), *_check_other_clock(options.clock_of)]),
        Group("cameras", [configuration.describe_cameras(cell), *usb.check_connections(_SYS, _DEV, connected),
                          *_check_serials(connected)]),
        Group("checkpoint", [*checkpoint_found, *fitting]),
        Group("graphics card", list(gpu.check_cards(folders or None))),
        Group("calibration", list(_check_calibration(cell, spec))),
        Group("disk", [disk_space(options.demos)]),
    ]  # fmt: skip
    return groups, cell


def _default_checkpoint(cell: Cell | None) -> str | None:
    """Return the bundled models for a simulated cell of their robot."""
    if cell is None or cell.driver is not None:
        return None
    try:
        read_pair("")[0].require_robot(cell.robot, "it")
    except GenimaError:
        return None
    return ""


def _check_calibration(cell: Cell | None, spec: PolicySpec | None) -> Iterator[Finding]:
    if cell is None:
        yield skipped("calibration", "unknown without the cell")
    elif cell.calibration and not cell.calibrated and spec is None:
        found = f"not calibrated yet: {cell.calibration} is not there"
        yield warn("calibration", found, "calibrate the cameras: docs/calibration.md")
    else:
        yield from configuration.check_calibrations(cell.calibration or None, spec, cell.camera_devices, cell.robot)


def _check_drivers(cell: Cell | None, options: Doctor) -> Iterator[Finding]:
    if cell is None:
        yield skipped("drivers", "unknown without the cell")
    elif cell.driver is None:
        yield skipped("drivers", "not needed for the simulator")
    elif options.hardware:
        backend = cell.arm_backend
        yield from drivers.check_drivers(
            drivers.OURS if backend is None else backend.name, cell.robot.gripper,
            cell.driver.cameras if options.cameras else "", Path(cell.driver.com_port), import_library,
            TESTED_VERSIONS["pylibfranka"],
        )  # fmt: skip
    elif options.cameras:
        yield drivers.check_camera_driver(cell.driver.cameras, import_library)
    else:
        yield skipped("drivers", "none on this machine")


def _check_robot_link(driver: DriverConfig | None) -> Iterator[Finding]:
    if driver is None:
        yield skipped("network", "no robot is driven from here")
    else:
        yield from network.check_robot_link(_SYS, driver.robot_ip)


def _check_other_clock(host: str | None) -> Iterator[Finding]:
    if host is None:
        yield skipped("another machine's clock", "not given", "--clock-of HOST, where nodes run on two machines")
    else:
        yield clock.check_other_clock(host)


def _check_serials(devices: Mapping[str, CameraDevice]) -> Iterator[Finding]:
    if not devices:
        return
    try:
        yield from usb.check_serials(devices, usb.find_librealsense_cameras(import_library("pyrealsense2")))
    except GenimaError as error:
        yield skipped("serial numbers", str(error))


def check_graph(options: Doctor, cell: Cell | None) -> list[Group]:
    """Monitor the running graph for a while."""
    try:
        os.environ.update(joining_environment(options.dds))
        with ros_context():
            return _monitor_graph(options, cell)
    except GenimaError as error:
        return [Group("running graph", [fail("ROS 2", str(error), "correct that, then ./genima doctor --live")])]


def _monitor_graph(options: Doctor, cell: Cell | None) -> list[Group]:
    from rclpy.experimental import EventsExecutor  # imported here: only --live needs ROS

    from genima_nodes.ros.topic_listener import TopicListener

    node = create(lambda: TopicListener("doctor", options.namespace))
    executor = EventsExecutor()
    executor.add_node(node)
    try:
        if cell is not None:
            node.expect(cell.views, cell.camera_devices, _readable_cameras(cell), cell.robot)
        end = time.monotonic() + options.seconds
        with tqdm(total=options.seconds, desc="listening", unit="s", bar_format="{desc} {bar} {remaining}") as progress:
            while (left := end - time.monotonic()) > 0:
                executor.spin_once(timeout_sec=min(0.1, left))
                progress.update(options.seconds - left - progress.n)
        return [*node.check(), node.node_diagnostics()]
    finally:
        executor.shutdown()
        node.destroy_node()


def _readable_cameras(cell: Cell) -> Mapping[str, Camera]:
    try:
        return cell.load_cameras() if cell.calibrated else {}
    except GenimaError:
        return {}  # reported above


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
