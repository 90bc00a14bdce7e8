"""`./genima real` as a user meets it, with stand-ins for the libraries that speak to robot and cameras."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_command import MISSING, SERIALS, Command, Place
from untrained import save_checkpoints

pytest.importorskip("pyrealsense2", reason=MISSING, exc_type=ImportError)


@pytest.fixture
def started(place: Place) -> Iterator[Callable[..., Command]]:
    """Starts commands, and ends them all."""
    commands: list[Command] = []

    def start(**options: str | None) -> Command:
        commands.append(place.start(**options))
        return commands[-1]

    yield start
    for command in commands:
        command.kill()


def test_what_the_files_say_is_found_before_anything_starts(place: Place, started: Callable[..., Command]) -> None:
    """A number that is not written down, one written twice; a robot that the checkpoint is not of; no calibration."""
    for options, words in [
        ({"cell": place.cell(cameras=place.rig(serial=None))}, "front.serial: Field required"),
        (
            {"cell": place.cell(cameras=place.rig(serial=SERIALS["wrist"]))},
            r"serial used twice \(0000000002, by front, wrist\)",
        ),
        (
            {"cell": place.cell(cameras=place.rig(profile="640x480x30"))},
            r"front camera: image size differs from the checkpoint's \(640x480",
        ),
        ({"cell": place.cell(robot="fr3_franka_hand")}, "the checkpoint of Genima .*fr3"),
        ({"cell": place.cell(calibration=str(place.folder / "nowhere"))}, "nowhere"),
    ]:
        command = started(**options)
        assert command.end() == 2
        (line,) = [line for line in command.said.splitlines() if line.strip()]
        assert line.startswith("genima: error: ") and re.search(words, line), line
    assert not (place.folder / "logs").exists(), "nothing was started"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"robot-ip": "robot.nowhere"}, r"franka_arm: ended with code 2 .*robot.nowhere.*Connection timeout"),
        pytest.param(
            {"serial": "777"},
            r"front_camera: ended with code 2 .*camera 777: not connected; connected: 0000000001 ",
            marks=pytest.mark.nightly,  # in test_realsense_camera.py without the processes
        ),
    ],
)
def test_hardware_that_is_not_there_ends_it_with_its_name(
    place: Place, started: Callable[..., Command], options: dict[str, str], words: str
) -> None:
    """Without models, and with one camera, which start sooner."""
    given = {"robot-ip": options.get("robot-ip", "robot.here"), "no-policy": "", "device": None}
    cameras = place.rig(["front"], serial=options.get("serial", SERIALS["front"]))
    command = started(**given, cell=place.cell(cameras=cameras, views=["front"], calibration="not_yet"))
    assert command.end() == 2
    assert re.search(rf"genima: error: {words}", command.said), command.said[-2000:]


@pytest.mark.nightly
@pytest.mark.real_time
def test_the_arm_is_an_fr3_with_its_hand_where_nothing_else_is_said(
    place: Place, started: Callable[..., Command], tmp_path: Path
) -> None:
    """Only for that robot this checkpoint is taken. `test_real_without_policy.py` starts it without models."""
    checkpoint = save_checkpoints(tmp_path / "checkpoint", 256, "fr3_franka_hand")
    command = started(
        **{"cell": place.cell(robot="fr3_franka_hand"), "robot-ip": "fr3.here", "checkpoint": str(checkpoint)}
    )
    command.until("ready: ./genima task")
    command.process.send_signal(signal.SIGINT)
    assert command.end() == 130


@pytest.mark.nightly
@pytest.mark.real_time
def test_a_camera_is_unplugged_and_comes_back_and_nobody_else_starts_beside(
    place: Place, started: Callable[..., Command]
) -> None:
    first = started()
    ready = first.until("ready: ./genima task")
    second = started(logs=str(place.folder / "others"))
    assert second.end() == 2
    assert re.search(r"genima: error: .*command_guard.* run already in ROS_DOMAIN_ID \d+: end them", second.said)
    assert not (place.folder / "others").exists(), "it started something"
    front = place.bus / f"{SERIALS['front']}.npz"
    away = front.rename(place.folder / "unplugged.npz")
    gone = first.until(r"! front_camera: camera: camera 0000000001 is not connected", ready)
    first.until(r"! diffusion_agent: camera front timeout: no image", ready)
    away.rename(front)
    first.until("all fine", gone)
    first.process.send_signal(signal.SIGINT)
    assert first.end() == 130
