"""Tests of ./genima doctor on simulated machines."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from cells import write_cell

from genima.cameras.calibration_file import CameraCalibration, Frames, Residuals, load_cameras
from genima.cameras.camera_devices import CameraDevice, load_camera_devices
from genima.doctor import (
    Finding,
    Group,
    Status,
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
    streams,
    usb,
    warn,
)
from genima.doctor.findings import as_json, format_table, has_failures
from genima.doctor.streams import TopicPublisher, TopicSamples
from genima.errors import GenimaError
from genima.io import paths
from genima.policy.spec import DIFFUSION_AGENT, FILE, PolicySpec, read_pair
from genima.robot.model import RobotModel
from genima_cli import doctor_checks as examination
from genima_cli.__main__ import main

WRIST = CameraDevice("831612070001", "D415", 640, 480, 30, "flange")
FRONT = CameraDevice("831612070002", "D415", 640, 480, 30, "base")
RIG = {"wrist": WRIST, "front": FRONT}


def by_name(findings: Iterable[Finding]) -> dict[str, Finding]:
    found = list(findings)
    assert len({each.what for each in found}) == len(found)
    assert all(each.remedy for each in found if each.status in (Status.WARN, Status.FAIL))
    return {each.what: each for each in found}


def write(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


# ---------------------------------------------------------------------------------------------------- how it is written


def test_table_fits_terminal_and_has_totals() -> None:
    groups = [
        Group("one", [ok("a", "fine"), warn("b", "word " * 60, "do " * 50)]),
        Group("two", [fail("a longer name", "broken", "mend it"), skipped("c", "there is none")]),
    ]
    for width in (60, 80, 200):
        lines = format_table(groups, width).splitlines()
        assert max(map(len, lines)) <= width
        assert lines[0] == "one" and lines[1].split() == ["ok", "a", "fine"]
        assert lines[-1] == "1 ok, 1 warn, 1 fail, 1 not looked at"
    text = format_table(groups, 200)
    assert "FAIL  a longer name" in text and "-> mend it" in text and "not looked at: there is none" in text
    assert has_failures(groups) and not has_failures(groups[:1])
    assert json.loads(json.dumps(as_json(groups)))[1]["findings"][0] == {
        "what": "a longer name", "status": "fail", "found": "broken", "remedy": "mend it",
    }  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- cameras


def camera(port: str, speed: int, model: str = "415", bus: int = 2) -> dict[str, object]:
    folder = f"bus/usb/devices/{port}"
    name = f"Intel(R) RealSense(TM) Depth Camera {model}"
    return {
        f"{folder}/idVendor": 8086, f"{folder}/product": name, f"{folder}/speed": speed, f"{folder}/busnum": bus,
        f"{folder}/devnum": 7,
    }  # fmt: skip


HUBS = {
    "bus/usb/devices/usb2/speed": 5000, "bus/usb/devices/usb1/speed": 480, "bus/usb/devices/usb4/speed": 10000,
    "bus/usb/devices/2-1/speed": 5000, "bus/usb/devices/2-1/idVendor": "0bda",
    "bus/usb/devices/1-9/idVendor": "8086", "bus/usb/devices/1-9/product": "AX201 Bluetooth",
}  # fmt: skip


def test_cameras_on_usb_3_pass_and_bandwidth_is_added(tmp_path: Path) -> None:
    sys = write(tmp_path, HUBS | camera("2-1.1", 5000) | camera("2-1.2", 5000) | camera("4-2", 5000, "435i", 4))
    found = by_name(usb.check_connections(sys, tmp_path / "dev", {}))
    assert all(each.status is Status.OK for each in found.values())
    assert set(found) == {"D415 at 2-1.1", "D415 at 2-1.2", "D435I at 4-2", "bus usb2", "hub at 2-1", "bus usb4"}
    assert "2 cameras of 640x480x30 take 295 of about 3200 Mbit/s" in found["bus usb2"].found  # 16 bits a pixel
    assert "of about 6400 Mbit/s" in found["bus usb4"].found


def test_camera_on_usb_2_fails(tmp_path: Path) -> None:
    sys = write(tmp_path, HUBS | camera("1-3", 480, bus=1) | camera("1-4", 480, bus=1))
    found = by_name(usb.check_connections(sys, tmp_path / "dev", RIG))
    assert found["D415 at 1-3"].status is Status.FAIL and "USB 2" in found["D415 at 1-3"].found
    assert found["bus usb1"].status is Status.FAIL  # two streams do not fit, either


def test_too_many_large_images_on_one_bus_fail(tmp_path: Path) -> None:
    large = CameraDevice("1", "D415", 1920, 1080, 30, "base")  # 995 Mbit/s
    for count, status in ((2, Status.OK), (3, Status.WARN), (4, Status.FAIL)):
        cameras = {key: value for n in range(count) for key, value in camera(f"2-{n + 2}", 5000).items()}
        sys = write(tmp_path / str(count), HUBS | cameras)
        assert by_name(usb.check_connections(sys, tmp_path, {"front": large}))["bus usb2"].status is status


def test_depth_counts_as_load_of_the_bus(tmp_path: Path) -> None:
    sys = write(tmp_path, HUBS | camera("2-2", 5000) | camera("2-3", 5000))
    deep = CameraDevice("1", "D415", 640, 480, 30, "base", "848x480x30")
    finding = by_name(usb.check_connections(sys, tmp_path, {"front": deep}))["bus usb2"]
    assert finding.found.endswith("2 cameras of 640x480x30 and depth 848x480x30 take 686 of about 3200 Mbit/s")


def test_camera_without_permission_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sys = write(tmp_path, HUBS | camera("2-2", 5000) | {"dev/bus/usb/002/007": ""})
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may open everything
    assert "udev" in by_name(usb.check_connections(sys, tmp_path / "dev", {}))["D415 at 2-2"].remedy


def test_missing_usb_is_skipped_and_missing_cameras_pass_without_cameras_file(tmp_path: Path) -> None:
    [hidden] = usb.check_connections(tmp_path, tmp_path, RIG)
    assert hidden.status is Status.SKIPPED
    sys = write(tmp_path, HUBS)
    [none] = usb.check_connections(sys, tmp_path, {})
    assert none.status is Status.SKIPPED
    [missing] = usb.check_connections(sys, tmp_path, RIG)
    assert missing.status is Status.FAIL


def test_serial_numbers_are_compared_with_cameras_file() -> None:
    right = usb.LibrealsenseCamera(WRIST.serial, "D415", "3.2", "5.16.0.1")
    found = by_name(usb.check_serials(RIG, [right, usb.LibrealsenseCamera("999", "D435I", "3.2", "5.16")]))
    assert found[f"wrist {WRIST.serial}"].status is Status.OK
    assert found[f"front {FRONT.serial}"].status is Status.FAIL and "999" in found[f"front {FRONT.serial}"].found
    assert found["D435I 999"].status is Status.WARN
    slow = by_name(usb.check_serials({"wrist": WRIST}, [usb.LibrealsenseCamera(WRIST.serial, "D415", "2.1", "")]))
    assert slow[f"wrist {WRIST.serial}"].status is Status.FAIL
    other = by_name(usb.check_serials({"wrist": WRIST}, [usb.LibrealsenseCamera(WRIST.serial, "D435", "3.2", "")]))
    assert "is a D435, not a D415" in other[f"wrist {WRIST.serial}"].found


def test_librealsense_devices_and_errors_are_reported() -> None:
    info = SimpleNamespace(serial_number=1, name=2, usb_type_descriptor=3, firmware_version=4)
    device = SimpleNamespace(
        supports=lambda what: what != 4, get_info={1: "831", 2: "Intel RealSense D435I", 3: "3.2"}.__getitem__
    )
    rs = SimpleNamespace(camera_info=info, context=lambda: SimpleNamespace(query_devices=lambda: [device]))
    assert usb.find_librealsense_cameras(rs) == [usb.LibrealsenseCamera("831", "D435I", "3.2", "")]

    def broken() -> None:
        raise RuntimeError("failed to set power state")

    rs.context = lambda: SimpleNamespace(query_devices=broken)
    with pytest.raises(GenimaError, match="power state"):
        usb.find_librealsense_cameras(rs)


def test_example_cameras_file_is_valid() -> None:
    rig = load_camera_devices("four_d415")
    assert set(rig) == set(PolicySpec("panda", ()).views)
    assert [device.mounted_on for device in rig.values()].count("flange") == 1
    assert {(device.width, device.height, device.rate) for device in rig.values()} == {(640, 480, 30)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no view; see"),
        ("- front", "no view; see"),
        ("front: [", "not YAML"),
        ("front: D415", "front: Input should be a valid dictionary"),
        ("front: {serial: '1', model: D415, profile: 640x480x30}", "front.mounted_on: Field required"),
        ("front: {serial: 047322071071, model: D415, profile: 640x480x30, mounted_on: base}", "in quotes"),
        ("left-shoulder: {serial: '1', model: D415, profile: 640x480x30, mounted_on: base}", "example left_shoulder"),
        ("front: {serial: '1', model: D415, profile: 99999x480x30, mounted_on: base}", "like 640x480x30"),
        ("front: {serial: _831612070001, model: D415, profile: 640x480x30, mounted_on: base}", "in quotes"),
        ("front: {serial: '1', model: Kinect, profile: 640x480x30, mounted_on: base}", "Input should be 'D405'"),
        ("front: {serial: '1', model: D415, profile: 640x480, mounted_on: base}", "like 640x480x30"),
        ("front: {serial: '1', model: D415, profile: 640x480x30, mounted_on: table}", "should be 'base' or"),
        (
            "front: &a {serial: '1', model: D415, profile: 640x480x30, mounted_on: base}\nwrist: *a",
            r"serial used twice \(1, by front, wrist\)",
        ),
    ],
)
def test_malformed_cameras_files_are_rejected_with_reason(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "rig.yaml"
    file.write_text(text)
    with pytest.raises(GenimaError, match=expected) as rejected:
        load_camera_devices(file)
    assert str(file) in str(rejected.value)
    cell, found = configuration.check_cell(write_cell(tmp_path, "fr3_crisp", cameras="rig.yaml"))
    assert cell is None and found.status is Status.FAIL and re.search(expected, found.found)


def test_cell_and_its_cameras_file_are_found_or_reported(tmp_path: Path) -> None:
    for name in ("nowhere.yaml", "nothing_like_it"):
        cell, found = configuration.check_cell(name)
        assert cell is None and found.status is Status.FAIL and name in found.found and "sim_fr3" in found.remedy
    cell, found = configuration.check_cell(write_cell(tmp_path, "fr3_crisp", cameras="nowhere.yaml"))
    assert cell is None and "nowhere.yaml" in found.found
    assert configuration.describe_cameras(cell).status is configuration.describe_robot(cell).status is Status.SKIPPED
    cell, found = configuration.check_cell("sim_fr3")
    assert found.status is Status.OK and configuration.describe_cameras(cell).status is Status.SKIPPED
    cell, found = configuration.check_cell("fr3_crisp")
    assert configuration.describe_robot(cell).status is configuration.describe_cameras(cell).status is Status.OK


def test_missing_folder_of_user_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIMA_PATH", "/nowhere")
    cell, found = configuration.check_cell("sim_fr3")
    assert cell is None and found.status is Status.FAIL and found.found == "GENIMA_PATH: no such folder (/nowhere)"


# ------------------------------------------------------------------------------------------------------------ kernel


PLAIN = "Linux version 6.8.0-40-generic (build@x) #40-Ubuntu SMP PREEMPT_DYNAMIC"
REAL_TIME = "Linux version 6.12.8-rt (build@x) #1 SMP PREEMPT_RT"


@pytest.mark.parametrize(
    ("version", "flag", "robot", "status"),
    [
        (PLAIN, None, True, Status.WARN),
        (PLAIN, None, False, Status.OK),
        (PLAIN, "0", True, Status.WARN),
        (REAL_TIME, "1", True, Status.OK),
        (REAL_TIME, None, True, Status.WARN),  # mainline since 6.12: libfranka does not see it
        (REAL_TIME, None, False, Status.OK),
        (None, None, True, Status.SKIPPED),
    ],
)
def test_kernel_is_checked(tmp_path: Path, version: str | None, flag: str | None, robot: bool, status: Status) -> None:
    if version:
        write(tmp_path, {"proc/version": version})
    if flag:
        write(tmp_path, {"sys/kernel/realtime": flag})
    finding = kernel.check_real_time_kernel(tmp_path / "sys", tmp_path / "proc", robot)
    assert finding.status is status


def test_priorities(monkeypatch: pytest.MonkeyPatch) -> None:
    for granted, robot, status in (
        (99, True, Status.OK), (20, True, Status.FAIL), (0, True, Status.FAIL), (20, False, Status.OK),
        (0, False, Status.WARN),
    ):  # fmt: skip
        monkeypatch.setattr(kernel, "can_set_priority", lambda wanted, granted=granted: wanted <= granted)
        assert kernel.check_priority(robot).status is status


def test_franka_arm_needs_no_real_time_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The README's limits suffice; the processor frequency is checked for every robot."""
    monkeypatch.setattr(kernel, "can_set_priority", lambda wanted: wanted <= 20)
    write(tmp_path, {"proc/version": PLAIN, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave"})
    for loop, statuses in ((False, [Status.OK, Status.OK, Status.OK]), (True, [Status.WARN, Status.FAIL])):
        found_statuses = [each.status for each in kernel.check_kernel(tmp_path / "sys", tmp_path / "proc", True, loop)]
        assert found_statuses[: len(statuses)] == statuses and found_statuses[3] is Status.WARN


def test_priority_check_keeps_thread_priority() -> None:
    before = os.sched_getscheduler(0)
    kernel.can_set_priority(1)
    assert os.sched_getscheduler(0) == before


def test_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, robot, status in (
        (resource.RLIM_INFINITY, True, Status.OK), (102400 * 1024, True, Status.OK), (8 << 20, True, Status.WARN),
        (8 << 20, False, Status.OK),
    ):  # fmt: skip
        monkeypatch.setattr(resource, "getrlimit", lambda what, soft=soft: (soft, soft))
        assert kernel.check_locked_memory(robot).status is status


def test_governors(tmp_path: Path) -> None:
    assert kernel.check_governors(tmp_path, True).status is Status.SKIPPED
    file = "devices/system/cpu/cpu{}/cpufreq/scaling_governor"
    sys = write(tmp_path, {file.format(n): "performance" for n in range(4)})
    assert kernel.check_governors(sys, True).status is Status.OK
    write(sys, {file.format(3): "powersave"})
    finding = kernel.check_governors(sys, True)
    assert finding.status is Status.WARN and finding.found.startswith("performance on 3, powersave on 1")
    assert kernel.check_governors(sys, False).status is Status.OK


# ----------------------------------------------------------------------------------------------------------- network


def test_network_cards(tmp_path: Path) -> None:
    sys = write(
        tmp_path,
        {
            "class/net/eth0/speed": 1000, "class/net/slow/speed": 10, "class/net/down/speed": -1,
            "class/net/wlan0/wireless/x": "", "class/net/wlan1/phy80211/x": "", "class/net/lo/x": "",
            "devices/pci0/usb1/1-2/net/usb0/speed": 1000,
        },
    )  # fmt: skip
    (sys / "class/net/usb0").symlink_to(sys / "devices/pci0/usb1/1-2/net/usb0")
    (sys / "class/net/usb0/device").symlink_to(sys / "devices/pci0/usb1/1-2")
    statuses = {name: network.check_card(sys, name).status for name in ("eth0", "slow", "down", "wlan0", "usb0", "lo")}
    assert statuses == {
        "eth0": Status.OK, "slow": Status.FAIL, "down": Status.OK, "wlan0": Status.FAIL, "usb0": Status.WARN,
        "lo": Status.OK,
    }  # fmt: skip
    assert network.check_card(sys, "wlan1").status is Status.FAIL
    assert network.check_card(sys, "gone").status is Status.SKIPPED


def test_round_trip_threshold_is_one_millisecond() -> None:
    for trips, status in (
        ([1e-4] * 100, Status.OK), ([1e-4] * 97 + [2e-3] * 3, Status.OK), ([1e-4] * 90 + [2e-3] * 10, Status.WARN),
        ([5e-4] * 100, Status.WARN), ([2e-3] * 100, Status.FAIL),
    ):  # fmt: skip
        assert network.check_round_trips(trips).status is status
    assert "0.10 ms" in network.check_round_trips([1e-4] * 100).found


def test_routes_to_this_machine_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert network.find_card("127.0.0.1") == ("lo", True)
    monkeypatch.setattr(network, "_TRIES", 3)
    found = by_name(network.check_robot_link(Path("/sys"), "127.0.0.1"))
    assert "of 3" in found["round trip to the robot"].found
    assert "network" not in found
    monkeypatch.setattr(network, "find_card", lambda host: ("lo", False))
    assert by_name(network.check_robot_link(Path("/sys"), "127.0.0.1"))["network"].status is Status.WARN
    assert found["control interface"].status is Status.SKIPPED  # a moving robot must not be disturbed

    def silent(host: str) -> float:
        raise TimeoutError("timed out")

    monkeypatch.setattr(network, "measure_round_trip", silent)
    assert by_name(network.check_robot_link(Path("/sys"), "127.0.0.1"))["robot"].status is Status.FAIL

    def unknown(name: str) -> str:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    [wrong] = network.check_robot_link(Path("/sys"), "no.such.robot")
    assert wrong.status is Status.FAIL and "not known" in wrong.found


# --------------------------------------------------------------------------------------------------------- ROS and DDS


@pytest.mark.parametrize(
    ("name", "value", "robot", "status", "what"),
    [
        ("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp", True, Status.FAIL, "RMW_IMPLEMENTATION"),
        ("ROS_DOMAIN_ID", "", True, Status.WARN, "ROS_DOMAIN_ID"),
        ("ROS_DOMAIN_ID", "0", True, Status.WARN, "ROS_DOMAIN_ID"),
        ("ROS_DOMAIN_ID", "", False, Status.OK, "ROS_DOMAIN_ID"),
        ("ROS_DOMAIN_ID", "42", True, Status.OK, "ROS_DOMAIN_ID"),
        ("ROS_DOMAIN_ID", "150", True, Status.WARN, "ROS_DOMAIN_ID"),
        ("ROS_DOMAIN_ID", "300", True, Status.FAIL, "ROS_DOMAIN_ID"),
        ("ROS_DOMAIN_ID", "mine", True, Status.FAIL, "ROS_DOMAIN_ID"),
        ("ROS_LOCALHOST_ONLY", "1", True, Status.WARN, "discovery range"),
        ("ROS_LOCALHOST_ONLY", "0", True, Status.OK, "discovery range"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF", True, Status.FAIL, "discovery range"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST", True, Status.WARN, "discovery range"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET", True, Status.OK, "discovery range"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "everywhere", True, Status.FAIL, "discovery range"),
        ("ROS_DISCOVERY_SERVER", "10.0.0.1:11811", True, Status.WARN, "ROS_DISCOVERY_SERVER"),
    ],
)
def test_variables(name: str, value: str, robot: bool, status: Status, what: str) -> None:
    assert by_name(ros.check_variables({name: value}, wheels=True, robot=robot))[what].status is status
    others = [each for each in ros.check_variables({}, wheels=True, robot=False) if each.what != what]
    assert all(each.status is Status.OK for each in others)


def test_other_middleware_is_a_warning() -> None:
    found = by_name(ros.check_variables({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, wheels=False, robot=True))
    assert found["RMW_IMPLEMENTATION"].status is Status.WARN


PROFILE = """<?xml version="1.0"?>
<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"><transport_descriptors>
<transport_descriptor><transport_id>a</transport_id><type>SHM</type><segment_size>{size}</segment_size>
</transport_descriptor>
<transport_descriptor><transport_id>b</transport_id><type>UDPv4</type></transport_descriptor></transport_descriptors>
<participant profile_name="p" is_default_profile="true"><rtps><useBuiltinTransports>{builtin}</useBuiltinTransports>
<userTransports><transport_id>a</transport_id>{more}</userTransports></rtps></participant></profiles>"""


@pytest.mark.parametrize(
    ("size", "builtin", "more", "read"),
    [
        (4194304, "false", "", (4194304, False)),
        (4194304, "false", "<transport_id>b</transport_id>", (4194304, True)),
        (4194304, "true", "", (4194304, True)),
        (100, "true", "", (524288, True)),
    ],
)
def test_profiles_are_understood(tmp_path: Path, size: int, builtin: str, more: str, read: tuple[int, bool]) -> None:
    file = tmp_path / "profile.xml"
    file.write_text(PROFILE.format(size=size, builtin=builtin, more=more))
    assert ros.read_profile(file) == read


def test_own_profile_needs_no_socket_buffers(tmp_path: Path) -> None:
    proc = write(tmp_path, {"sys/net/core/rmem_max": 212992, "sys/net/core/wmem_max": 212992})
    environment = {ros.PROFILE: str(paths.shared("config", "dds", "shared_memory.xml"))}
    found = by_name(ros.check_transport(environment, proc, tmp_path, robot=True))
    assert {each.status for each in found.values()} == {Status.OK}
    assert "shared memory only, 4 MiB a process" in found["DDS profile"].found
    without = by_name(ros.check_transport({}, proc, tmp_path, robot=True))
    assert without["DDS profile"].status is Status.SKIPPED
    assert without["socket buffers"].status is Status.WARN and "rmem_max 0.2 MiB" in without["socket buffers"].found
    assert by_name(ros.check_transport({}, proc, tmp_path, robot=False))["socket buffers"].status is Status.OK


@pytest.mark.parametrize("file", sorted(paths.shared("config", "dds").glob("*.xml")), ids=lambda file: file.stem)
def test_bundled_profiles_transport_tiles(tmp_path: Path, file: Path) -> None:
    found = by_name(ros.check_transport({ros.PROFILE: str(file)}, tmp_path, tmp_path, robot=True))
    assert found["DDS profile"].status is Status.OK


def test_lossy_and_unreadable_profiles_fail(tmp_path: Path) -> None:
    file = tmp_path / "profile.xml"
    environment = {ros.PROFILE: str(file)}
    [missing] = ros.check_transport(environment, tmp_path, tmp_path, robot=True)
    assert missing.status is Status.FAIL and "No such file" in missing.found
    file.write_text("<profiles>")
    [torn] = ros.check_transport(environment, tmp_path, tmp_path, robot=True)
    assert torn.status is Status.FAIL and "not XML" in torn.found
    file.write_text(PROFILE.format(size="big", builtin="false", more=""))
    [odd] = ros.check_transport(environment, tmp_path, tmp_path, robot=True)
    assert odd.status is Status.FAIL
    file.write_text(PROFILE.format(size=100_000, builtin="false", more=""))
    found = by_name(ros.check_transport(environment, tmp_path, tmp_path, robot=True))
    assert found["DDS profile"].status is Status.WARN
    assert found["socket buffers"].status is Status.SKIPPED  # there is no such file below this /proc


def test_small_or_missing_shared_memory_fails(tmp_path: Path, small_disk: Path) -> None:
    assert ros.check_shared_memory(small_disk, 4 << 20).status is Status.WARN
    assert ros.check_shared_memory(small_disk, 10_000).status is Status.OK
    assert ros.check_shared_memory(tmp_path / "nowhere", 4 << 20).status is Status.FAIL


# ----------------------------------------------------------------------------------------------------- clocks and disk


def test_this_machines_clock() -> None:
    assert (
        clock.check_synchronisation(True, lambda: clock.Kernel(True, 0.012)).found
        == "synchronised, off by at most 12 ms"
    )
    assert clock.check_synchronisation(True, lambda: clock.Kernel(False, 16.0)).status is Status.WARN
    assert clock.check_synchronisation(False, lambda: clock.Kernel(False, 16.0)).status is Status.OK

    def missing() -> clock.Kernel:
        raise OSError("no such call")

    assert clock.check_synchronisation(True, missing).status is Status.SKIPPED
    assert 0 <= clock.adjtimex().error < 1e4  # s: the kernel's own structure was read as it is laid out


@pytest.fixture
def time_server() -> Iterator[Callable[[float, int], int]]:
    """Function that starts an NTP server whose clock is ahead by some seconds, of a stratum; returns its port."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    state = {"ahead": 0.0, "stratum": 2}

    def serve() -> None:
        while True:
            try:
                asked, address = server.recvfrom(512)
            except OSError:
                return
            if not asked:
                return
            now = time.time() + state["ahead"] + 2_208_988_800
            stamp = struct.pack("!II", int(now), int(now % 1 * 2**32))
            server.sendto(bytes([0x24, int(state["stratum"])]) + bytes(30) + stamp + stamp, address)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def start(ahead: float, stratum: int) -> int:
        state.update(ahead=ahead, stratum=stratum)
        return int(server.getsockname()[1])

    yield start
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        last.sendto(b"", server.getsockname())
    thread.join()
    server.close()


@pytest.mark.parametrize("ahead", [0.0, 0.75, -3.0])
def test_another_machines_clock_is_measured(time_server: Callable[[float, int], int], ahead: float) -> None:
    measured, doubt = clock.clock_offset("127.0.0.1", time_server(ahead, 2))
    assert abs(measured - ahead) <= doubt + 1e-6
    finding = clock.check_other_clock("robot", lambda host: (measured, doubt))
    assert finding.status is (Status.FAIL if ahead and doubt < 0.5 else finding.status)


def test_unsynchronised_and_silent_time_servers_are_reported(time_server: Callable[[float, int], int]) -> None:
    port = time_server(0.0, 0)
    with pytest.raises(OSError, match="not synchronised"):
        clock.clock_offset("127.0.0.1", port)

    def silent(host: str) -> tuple[float, float]:
        raise TimeoutError("timed out")

    assert clock.check_other_clock("robot", silent).status is Status.SKIPPED
    assert clock.check_other_clock("robot", lambda host: (0.02, 0.001)).status is Status.WARN
    assert clock.check_other_clock("robot", lambda host: (-0.001, 0.001)).status is Status.OK


def test_disk_space_for_demos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for free, status in ((100e9, Status.OK), (20e9, Status.WARN), (1e9, Status.FAIL)):
        monkeypatch.setattr(examination.shutil, "disk_usage", lambda place, free=free: SimpleNamespace(free=free))
        assert examination.disk_space(tmp_path / "not/yet/there").status is status
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    assert examination.disk_space(tmp_path).status is Status.FAIL


# ------------------------------------------------------------------------------------------------- models and the GPU


CARD = gpu.GraphicsCard("NVIDIA GeForce RTX 4090", "570.1", 25.7, 0.5)


def memory_findings(
    cards: list[gpu.GraphicsCard] | str, problem: str, count: float, missing: str = ""
) -> list[Finding]:
    return list(by_name(gpu.check_memory(cards, problem, int(count), missing)).values())


def test_only_full_size_models_require_gpu() -> None:
    [small] = memory_findings("no driver", "", 9e6)
    [large] = memory_findings("no driver", "", 1.65e9)
    assert (small.status, large.status) == (Status.OK, Status.WARN)
    [fits] = memory_findings([CARD], "", 1.65e9)
    assert fits.status is Status.OK and "about 8.7 GB" in fits.found  # 4 bytes per weight, CUDA, decoding
    [tight] = memory_findings([CARD._replace(used=20.0)], "", 1.65e9)
    [too_small] = memory_findings([CARD._replace(total=8.1)], "", 1.65e9)
    assert (tight.status, too_small.status) == (Status.WARN, Status.FAIL)
    unusable = memory_findings([CARD], "PyTorch 2.13.0+cpu is built without CUDA", 1.65e9)
    assert [each.status for each in unusable] == [Status.WARN, Status.OK]
    absent = memory_findings([CARD], "", 4e8, "stabilityai/sd-turbo")
    assert absent[0].status is Status.WARN and "hf download stabilityai/sd-turbo" in absent[0].remedy
    [nothing] = gpu.check_cards(None)
    assert nothing.status is Status.SKIPPED


def test_weights_include_base_model(checkpoint_folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    _, folders = read_pair(checkpoint_folder)
    own, missing = gpu.count_weights(folders)
    assert own > 0 and missing == ""
    base = tmp_path / "base"
    for part, size in (("unet", 1000), ("vae", 200), ("text_encoder", 30), ("safety_checker", 5000)):
        (base / part).mkdir(parents=True)
        save_file({"w": np.zeros(size, np.float16)}, base / part / "model.safetensors")
        save_file({"w": np.zeros(size, np.float16)}, base / part / "model.fp16.safetensors")
    agent = tmp_path / "agent"
    agent.mkdir()
    alone = {**folders, DIFFUSION_AGENT: agent}
    (agent / FILE).write_text(json.dumps({"base": "nobody/has-this", "conditioning": "controlnet"}))
    without, missing = gpu.count_weights(alone)
    assert missing == "nobody/has-this"
    (agent / FILE).write_text(json.dumps({"base": str(base), "conditioning": "controlnet"}))
    assert gpu.count_weights(alone) == (without + 1230, "")  # one precision of each part that draws
    (agent / FILE).write_text(json.dumps({"base": str(base), "conditioning": "unet"}))
    assert gpu.count_weights(alone) == (without + 230, "")  # its own UNet lies in the checkpoint


def test_nvidia_smi_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for script, expected in (
        ("echo 'NVIDIA H100 80GB HBM3, 570.86.15, 81559, 1024'", "NVIDIA H100 80GB HBM3"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "nvidia-smi: NVIDIA-SMI has failed"),
        ("echo 'NVIDIA GB10, 580.1, [N/A], [N/A]'", "nvidia-smi: unknown output (NVIDIA GB10"),
    ):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        found = gpu.find_cards()
        assert (found if isinstance(found, str) else found[0].name).startswith(expected)
    program.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 570.86.15, 81559, 1024'\n")
    [card] = gpu.find_cards()
    assert isinstance(card, gpu.GraphicsCard) and 85 < card.total < 86  # GB of 81559 MiB


def test_checkpoint_is_compared_with_robots(checkpoint_folder: Path, robot: RobotModel) -> None:
    spec, _, found = configuration.check_checkpoint(str(checkpoint_folder), robot)
    assert spec is not None and {each.status for each in found} == {Status.OK}
    other = by_name(configuration.check_checkpoint(str(checkpoint_folder), RobotModel.load("fr3"))[2])
    assert other["its robot"].status is Status.FAIL and "fr3_joint1" in other["its robot"].found
    [missing] = configuration.check_checkpoint("nowhere", robot)[2]
    assert missing.status is Status.FAIL
    [unnamed] = configuration.check_checkpoint(None, robot)[2]
    assert unnamed.status is Status.SKIPPED


def test_cameras_are_compared_with_checkpoint(robot: RobotModel) -> None:
    spec = PolicySpec("panda", robot.joint_names, camera_size=(640, 480))
    slow = CameraDevice("3", "D415", 640, 480, 15, "base")
    small = CameraDevice("4", "D415", 424, 240, 30, "base")
    found = by_name(configuration.check_camera_devices({"wrist": WRIST, "front": slow, "right_shoulder": small}, spec))
    assert [each.status for each in found.values()] == [Status.OK, Status.WARN, Status.FAIL, Status.FAIL]
    assert "image size differs from the checkpoint's (424x240, 640x480)" in found["right_shoulder camera"].found
    assert "the cameras file has wrist, front, right_shoulder" in found["left_shoulder camera"].found


# -------------------------------------------------------------------------------------------------------- calibrations


NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def calibrated(tmp_path: Path) -> Callable[..., Finding]:
    """Findings about a front camera with the given calibration."""
    front = load_cameras("sim")["front"]

    def find(device: CameraDevice | None = None, camera: object = front, **fields: object) -> Finding:
        fields = {"date": (NOW - timedelta(days=3)).isoformat(), **fields}
        CameraCalibration(camera, **fields).save(tmp_path)  # type: ignore[arg-type]
        rig = {"front": device} if device else {}
        [finding] = configuration.check_calibrations(str(tmp_path), None, rig, RobotModel.load("panda"), NOW)
        return finding

    return find


def test_good_recent_calibration_passes(calibrated: Callable[..., Finding]) -> None:
    finding = calibrated(residuals=Residuals(0.3, 0.8, 0.1), covariance=1e-8 * np.eye(6))
    assert finding.status is Status.OK
    assert (
        finding.found == "on the base, 0.30 px, 0.8 mm, 0.10 deg off, standard deviation 0.1 mm, 0.01 deg, 3 days old"
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"date": (NOW - timedelta(days=200)).isoformat()}, "it is old"),
        ({"date": (NOW + timedelta(days=5)).isoformat()}, "dated in the future"),
        ({"date": None}, "no date and method"),
        ({"residuals": Residuals(2.0, 4.0, 0.5)}, "residuals are large"),
        ({"covariance": 1e-5 * np.eye(6)}, "uncertain"),
    ],
)
def test_doubtful_calibrations(calibrated: Callable[..., Finding], fields: dict[str, object], expected: str) -> None:
    finding = calibrated(**fields)
    assert finding.status is Status.WARN and expected in finding.found


def test_date_without_time_zone_is_accepted(calibrated: Callable[..., Finding]) -> None:
    assert "days old" in calibrated(date=(NOW - timedelta(days=3)).replace(tzinfo=None).isoformat()).found


def test_mismatched_calibrations_are_reported(calibrated: Callable[..., Finding]) -> None:
    square = CameraDevice("1", "D415", 480, 480, 30, "base")
    assert calibrated(square).status is Status.OK  # of 256x256, as if resized
    assert "calibrated at 256x256, its profile is 640x480" in calibrated(FRONT).found
    assert "names swapped" in calibrated(CameraDevice("1", "D415", 480, 480, 30, "flange")).remedy
    assert "not of a panda" in calibrated(frames=Frames("fr3_link0", "front_color_optical_frame")).found


def test_missing_and_malformed_calibrations(tmp_path: Path, robot: RobotModel) -> None:
    [unnamed] = configuration.check_calibrations(None, None, {}, robot)
    assert unnamed.status is Status.SKIPPED
    [nowhere] = configuration.check_calibrations("nowhere", None, {}, robot)
    assert nowhere.status is Status.FAIL
    [empty] = configuration.check_calibrations(str(tmp_path), None, {}, robot)
    assert empty.status is Status.FAIL
    (tmp_path / "front.yaml").write_text("translation: [0, 0")
    spec = PolicySpec("panda", robot.joint_names)
    found = by_name(configuration.check_calibrations(str(tmp_path), spec, {}, robot))
    assert set(found) == set(spec.views) and {each.status for each in found.values()} == {Status.FAIL}
    assert "not YAML" in found["front"].found and "there are front" in found["wrist"].found


def test_simulator_calibration_passes(robot: RobotModel) -> None:
    spec = PolicySpec("panda", robot.joint_names)
    assert {each.status for each in configuration.check_calibrations("sim", spec, {}, robot)} == {Status.OK}


# -------------------------------------------------------------------------------------------------------- installation


def test_packages_are_compared_with_lock(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("# words\n# [base]\nnumpy==2.0\ntorch==2.13.0\n# [ros] words\nros-rclpy==7.1.6\n")
    have: dict[str, str] = {"numpy": "2.0", "torch": "2.13.0+cpu"}
    assert installation.check_packages(lock, have.get).found == "all 2 as locked"  # ROS is installed otherwise
    assert installation.check_packages(lock, (have | {"ros-rclpy": "7.1.6"}).get).found == "all 3 as locked"
    other = installation.check_packages(lock, (have | {"numpy": "1.9"}).get)
    assert other.status is Status.WARN and "numpy 1.9 for 2.0" in other.found
    assert installation.check_packages(lock, {"numpy": "2.0"}.get).status is Status.FAIL
    assert installation.check_packages(tmp_path / "none", have.get).status is Status.SKIPPED


def test_python_versions() -> None:
    statuses = [
        installation.check_python(version).status for version in ((3, 10, 9), (3, 11, 0), (3, 13, 5), (3, 14, 0))
    ]
    assert statuses == [Status.FAIL, Status.OK, Status.OK, Status.FAIL]


def test_rendering_failure_has_reason() -> None:
    crash = installation.check_rendering(("/bin/sh", "-c", "echo 'Cannot find EGL' >&2; exit 1"))
    assert crash.status is Status.FAIL and "Cannot find EGL" in crash.found
    killed = installation.check_rendering(("/bin/sh", "-c", "kill -SEGV $$"))
    assert killed.status is Status.FAIL
    works = installation.check_rendering(("/bin/sh", "-c", "echo renderer: llvmpipe"))
    assert works.found == "llvmpipe, on the CPU"


# -------------------------------------------------------------------------------------------------------------- topics


ALONE = [TopicPublisher("/front/camera", reliable=True)]


def topic_samples(
    rate: float, publishers: Sequence[TopicPublisher] = ALONE, count: int = 100, age: float = 0.01
) -> TopicSamples:
    stamps = [1e9 + n / rate for n in range(count)]
    return TopicSamples(publishers, stamps, [stamp + age for stamp in stamps])


def front(stream: TopicSamples, size: tuple[int, int] = (640, 480), encoding: str = "rgb8") -> Finding:
    finding = streams.check_images("front", "cameras/front/color/image_raw", stream, size, encoding, FRONT)
    by_name([finding])
    return finding


def test_valid_camera_stream() -> None:
    finding = front(topic_samples(30.0))
    assert finding.status is Status.OK
    assert finding.found == "30.0 Hz, jitter 0.0 ms (99%), 0 lost, 10 ms old (at most 10), 640x480 rgb8"


@pytest.mark.parametrize(
    ("stream", "status", "expected"),
    [
        (TopicSamples(), Status.FAIL, "no publisher"),
        (TopicSamples([TopicPublisher("/camera", reliable=False)]), Status.FAIL, "best-effort"),
        (TopicSamples(ALONE), Status.FAIL, "0 messages received"),
        (
            topic_samples(30.0, [*ALONE, TopicPublisher("/other", True)]),
            Status.FAIL,
            "2 nodes publish it (/front/camera, /other)",
        ),
        (topic_samples(30.0, age=-0.8), Status.FAIL, "800 ms in the future"),
        (topic_samples(30.0, age=-0.003), Status.OK, "30.0 Hz"),
        (topic_samples(30.0, age=0.4), Status.WARN, "arrive late"),
        (topic_samples(25.0), Status.WARN, "30 Hz are expected"),
        (topic_samples(10.0), Status.FAIL, "30 Hz are expected"),
    ],
)
def test_invalid_camera_streams(stream: TopicSamples, status: Status, expected: str) -> None:
    finding = front(stream)
    assert finding.status is status and expected in finding.found


def test_lost_repeated_and_jittering_images() -> None:
    gaps = topic_samples(30.0)
    for stream in (gaps.stamps, gaps.arrivals):
        del stream[20:23], stream[60]
    lossy = front(gaps)
    assert lossy.status is Status.WARN and "4 lost" in lossy.found
    still = topic_samples(30.0)
    still.stamps[50] = still.stamps[49]
    assert front(still).status is Status.FAIL
    uneven = topic_samples(30.0)
    uneven.stamps = [stamp + 0.012 * (n % 2) for n, stamp in enumerate(uneven.stamps)]
    uneven.arrivals = [stamp + 0.01 for stamp in uneven.stamps]
    assert front(uneven).status is not Status.OK
    assert front(topic_samples(30.0), (320, 240)).status is Status.FAIL
    assert front(topic_samples(30.0), encoding="yuv422_yuy2").status is Status.FAIL


@pytest.mark.parametrize(
    ("stream", "problem", "status", "expected"),
    [
        (topic_samples(1000.0), "", Status.OK, "1000 Hz"),
        (topic_samples(30.0), "", Status.WARN, "50 Hz or more"),
        (topic_samples(5.0), "", Status.WARN, "holds the arm in gaps"),
        (topic_samples(1000.0, age=0.5), "", Status.FAIL, "does not move"),
        (topic_samples(1000.0, age=-0.2), "", Status.FAIL, "200 ms in the future"),
        (topic_samples(1000.0), "joint state lacks fr3_joint1", Status.FAIL, "lacks fr3_joint1"),
        (TopicSamples(), "", Status.FAIL, "no publisher"),
        (topic_samples(1000.0, [TopicPublisher("/robot", False)]), "", Status.OK, "1000 Hz"),  # read as best effort
        (topic_samples(1000.0, [*ALONE, *ALONE]), "", Status.FAIL, "2 nodes publish it"),
    ],
)
def test_joints(stream: TopicSamples, problem: str, status: Status, expected: str) -> None:
    finding = streams.check_joint_states(stream, problem)
    by_name([finding])
    assert finding.status is status and expected in finding.found


def test_command_publishers_and_nodes() -> None:
    guard, other = TopicPublisher("/command_guard", True), TopicPublisher("/b/command_guard", True)
    statuses = [streams.check_command_publishers(publishers).status for publishers in ([], [guard], [guard, other])]
    assert statuses == [Status.SKIPPED, Status.OK, Status.FAIL]
    own = "/doctor"
    assert streams.check_duplicate_nodes([own, "/_ros2cli_daemon_0"], own).status is Status.FAIL
    assert (
        streams.check_duplicate_nodes([own, "/controller", "/command_guard"], own).found
        == "/command_guard, /controller"
    )
    twice = streams.check_duplicate_nodes([own, "/controller", "/controller", "/command_guard"], own)
    assert twice.status is Status.FAIL and twice.found == "run twice: /controller"


# ----------------------------------------------------------------------------------------------------------- drivers


def ros_packages(prefix: Path, *names: str) -> list[Path]:
    """An installation of ROS packages."""
    folder = prefix / "share" / "ament_index" / "resource_index" / "packages"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return [prefix]


def no_library(module: str) -> Any:
    raise GenimaError(f"{module} is not installed; install it by: pip install {module}")


def library(version: str, *missing: str) -> Callable[[str], Any]:
    names = {"Robot", "Gripper", "AsyncPositionControlHandler", "RealtimeConfig", "FrankaException"} - set(missing)
    module = SimpleNamespace(__version__=version, **dict.fromkeys(names))
    return lambda name: module


@pytest.mark.parametrize(
    "load, status, expected",
    [
        (no_library, Status.FAIL, "pylibfranka is not installed"),
        (library("0.21.9"), Status.OK, "pylibfranka 0.21.9"),
        (library("0.15.0"), Status.WARN, "0.21.3 was tested"),
        (library("0.21.3", "AsyncPositionControlHandler"), Status.FAIL, "has no AsyncPositionControlHandler"),
    ],
)
def test_our_own_arms_driver_needs_pylibfranka(
    monkeypatch: pytest.MonkeyPatch, load: Callable[[str], Any], status: Status, expected: str
) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(drivers.metadata, "version", version)
    arm, gripper = drivers.check_drivers("franka_arm", "franka_hand", "", Path("/none"), load, "0.21.3", [])
    assert arm.status is status and expected in arm.found and gripper.status is status
    assert (arm.remedy != "") == (status is not Status.OK)


@pytest.mark.parametrize("backend, more", drivers.FRANKA_ROS2.items())
def test_franka_ros2s_controllers_need_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, more: tuple[str, ...]
) -> None:
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    port = tmp_path / "ttyUSB0"

    def found(where: list[Path], cameras: str = "realsense2_camera") -> list[Finding]:
        return list(drivers.check_drivers(backend, "robotiq_2f140", cameras, port, no_library, "0.21.3", where))

    none = found([])
    assert [each.status for each in none] == [Status.FAIL] * 4
    assert "no ROS 2 is sourced" in none[0].found and "a cell such as fr3_own_driver" in none[0].remedy
    hand = drivers._GRIPPERS["robotiq_2f140"]
    where = ros_packages(tmp_path / "ros", *drivers._FRANKA, *hand, "realsense2_camera")
    port.touch()
    lacking = found(where)
    assert [each.status for each in lacking] == [Status.FAIL, *[Status.OK] * 3]
    assert lacking[0].found.endswith(more[0])
    where = ros_packages(tmp_path / "all", *more) + where
    assert [each.status for each in found(where, cameras="")] == [Status.OK] * 3


def test_remote_driver_is_skipped() -> None:
    found = list(drivers.check_drivers("multipanda", "suction", "", Path("/none"), no_library, "0.21.3", []))
    assert [each.status for each in found] == [Status.SKIPPED] * 2
    found = list(drivers.check_drivers("mine", "suction", "", Path("/none"), no_library, "0.21.3", []))
    assert "unknown controller mine" in found[0].found
    camera = drivers.check_camera_driver("realsense_camera", no_library)
    assert camera.status is Status.FAIL and "pyrealsense2 is not installed" in camera.found


# --------------------------------------------------------------------------------------------------------- the command


def test_command_prints_groups_and_exit_code_reports_failures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in [name for name in os.environ if name.startswith(("ROS_", "RMW_", "FASTRTPS_"))]:
        monkeypatch.delenv(variable, raising=False)
    file = tmp_path / "findings.json"
    assert main(["doctor", "--json", str(file), "--demos", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    groups = {group["group"]: group["findings"] for group in json.loads(file.read_text())}
    for title, findings in groups.items():
        assert f"\n{title}\n" in f"\n{printed}" and findings
    assert set(groups) >= {"cameras", "robot", "clocks", "graphics card", "calibration", "disk", "ROS and DDS"}
    assert " 0 fail, " in printed.splitlines()[-1]


def test_command_continues_after_missing_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "check_rendering", lambda: ok("rendering (EGL)", "looked at elsewhere"))
    rig = {"front": {"serial": "1", "model": "D415", "profile": "640x480x30", "mounted_on": "flange"}}
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(rig))
    own = {"cameras": "rig.yaml", "views": ["front"], "calibration": "sim"}
    arguments = ["--cell", write_cell(tmp_path, "fr3_own_driver", **own), "--checkpoint", "nowhere"]
    assert main(["doctor", *arguments, "--no-hardware"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "no checkpoint at nowhere" in printed and "mounts it on the flange" in printed
    assert "no robot is driven from here" in printed and "cameras' driver" in printed
    assert main(["doctor", "--cell", "r2d2"]) == 1
    assert "r2d2" in " ".join(capsys.readouterr().out.split())
    for cell, calibration in (("sim_fr3", "the simulator's own"), ("fr3_own_driver", "not calibrated yet")):
        main(["doctor", "--cell", cell, "--no-hardware", "--no-cameras"])
        printed = " ".join(capsys.readouterr().out.split())
        assert "checkpoint not looked at" in printed and calibration in printed
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_of_nobody")
    monkeypatch.setattr(installation, "has_wheels", lambda: True)
    assert main(["doctor", "--live"]) == 1  # ROS would end the process
    assert "rmw_of_nobody, which ROS 2 from wheels does not have; unset" in " ".join(capsys.readouterr().out.split())
    assert main(["doctor", "--seconds", "0"]) == 2
    assert main(["doctor", "--json", str(tmp_path)]) == 2


def test_findings_replace_only_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "check_machine", lambda options: ([Group("disk", [ok("disk", "large")])], None))
    file = tmp_path / "findings.json"
    assert main(["doctor", "--json", str(file)]) == 0
    assert main(["doctor", "--json", str(file)]) == 2
    assert main(["doctor", "--json", str(file), "--overwrite"]) == 0
    for text in ('{"mine": 1}', "# mine"):
        file.write_text(text, encoding="utf-8")
        assert main(["doctor", "--json", str(file), "--overwrite"]) == 2
        assert file.read_text(encoding="utf-8") == text
