"""`./genima real` with stand-ins for the libraries of robot and cameras."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from real_command import MISSING, SERIALS, Command, RobotSetup
from untrained import save_checkpoints

from genima.cell import load_cell
from genima.types import Joints
from genima_calibration.pose_check import CalibrationChecker, PoseVerdict

pytest.importorskip("pyrealsense2", reason=MISSING, exc_type=ImportError)


@pytest.fixture
def start_command(robot_setup: RobotSetup) -> Iterator[Callable[..., Command]]:
    """Function that starts a command; the fixture ends all of them."""
    commands: list[Command] = []

    def start(**options: str | None) -> Command:
        commands.append(robot_setup.start(**options))
        return commands[-1]

    yield start
    for command in commands:
        command.kill()


def test_images_of_standins_agree_with_calibration(robot_setup: RobotSetup) -> None:
    """Otherwise calibration_watch reports a fault after ten checks, which a fast machine's tests do not see."""
    cell = load_cell(robot_setup.cell())
    cameras, joints = cell.load_cameras(), Joints(0.0, cell.robot.home, 1.0)
    for view, serial in SERIALS.items():
        with np.load(robot_setup.bus / f"{serial}.npz") as camera:
            image = camera["image"]
        checker = CalibrationChecker(cameras[view], cell.robot)
        try:
            checked = checker.check(image, joints)
        finally:
            checker.close()
        assert checked.verdict is PoseVerdict.FINE, f"{view}: {checked.reason}"


def test_invalid_files_are_rejected_before_start(
    robot_setup: RobotSetup, start_command: Callable[..., Command]
) -> None:
    """Missing or duplicate serial number, other robot than the checkpoint's, no calibration."""
    for options, expected in [
        ({"cell": robot_setup.cell(cameras=robot_setup.rig(serial=None))}, "front.serial: Field required"),
        (
            {"cell": robot_setup.cell(cameras=robot_setup.rig(serial=SERIALS["wrist"]))},
            r"serial used twice \(0000000002, by front, wrist\)",
        ),
        (
            {"cell": robot_setup.cell(cameras=robot_setup.rig(profile="640x480x30"))},
            r"front camera: image size differs from the checkpoint's \(640x480",
        ),
        ({"cell": robot_setup.cell(robot="fr3_franka_hand")}, "the checkpoint of Genima .*fr3"),
        ({"cell": robot_setup.cell(calibration=str(robot_setup.folder / "nowhere"))}, "nowhere"),
    ]:
        command = start_command(**options)
        assert command.end() == 2
        (line,) = [line for line in command.output.splitlines() if line.strip()]
        assert line.startswith("genima: error: ") and re.search(expected, line), line
    assert not (robot_setup.folder / "logs").exists(), "a node was started"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"robot-ip": "robot.nowhere"}, r"franka_arm: ended with code 2 .*robot.nowhere.*Connection timeout"),
        pytest.param(
            {"serial": "777"},
            r"front_camera: ended with code 2 .*camera 777: not connected; connected: 0000000001 ",
            marks=pytest.mark.nightly,  # in test_realsense_camera.py without the processes
        ),
    ],
)
def test_missing_hardware_is_reported_by_name(
    robot_setup: RobotSetup, start_command: Callable[..., Command], options: dict[str, str], expected: str
) -> None:
    """Start without models and with one camera, which is faster."""
    given = {"robot-ip": options.get("robot-ip", "robot.here"), "no-policy": "", "device": None}
    cameras = robot_setup.rig(["front"], serial=options.get("serial", SERIALS["front"]))
    command = start_command(**given, cell=robot_setup.cell(cameras=cameras, views=["front"], calibration="not_yet"))
    assert command.end() == 2
    assert re.search(rf"genima: error: {expected}", command.output), command.output[-2000:]


@pytest.mark.nightly
@pytest.mark.real_time
def test_checkpoint_of_fr3_with_hand_is_accepted(
    robot_setup: RobotSetup, start_command: Callable[..., Command], tmp_path: Path
) -> None:
    """The checkpoint is of this robot only. `test_real_without_policy.py` starts the robot without models."""
    checkpoint = save_checkpoints(tmp_path / "checkpoint", 256, "fr3_franka_hand")
    command = start_command(
        **{"cell": robot_setup.cell(robot="fr3_franka_hand"), "robot-ip": "fr3.here", "checkpoint": str(checkpoint)}
    )
    command.until("ready: ./genima task")
    command.process.send_signal(signal.SIGINT)
    assert command.end() == 130


@pytest.mark.nightly
@pytest.mark.real_time
def test_second_start_is_rejected_and_camera_reconnects(
    robot_setup: RobotSetup, start_command: Callable[..., Command]
) -> None:
    first = start_command()
    ready = first.until("ready: ./genima task")
    second = start_command(logs=str(robot_setup.folder / "others"))
    assert second.end() == 2
    assert re.search(r"genima: error: .*command_guard.* run already in ROS_DOMAIN_ID \d+: end them", second.output)
    assert not (robot_setup.folder / "others").exists(), "the second command started nodes"
    front = robot_setup.bus / f"{SERIALS['front']}.npz"
    unplugged = front.rename(robot_setup.folder / "unplugged.npz")
    unplugged_at = first.until(r"! front_camera: camera: camera 0000000001: not connected", ready)
    timeout_at = first.until(r"! diffusion_agent: camera front timeout: no image", ready)
    unplugged.rename(front)
    first.until("all fine", max(unplugged_at, timeout_at))
    first.process.send_signal(signal.SIGINT)
    assert first.end() == 130
