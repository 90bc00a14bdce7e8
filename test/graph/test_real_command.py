"""`./genima real` as a user meets it, with stand-ins for the libraries that speak to robot and cameras."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from untrained import save_checkpoints

from genima.cameras.camera import Camera
from genima.robot.model import RobotModel
from genima_nodes.ros.ros_environment import free_domains
from genima_sim.rendering import SceneRenderer
from genima_sim.simulation import Simulation

MISSING = "pyrealsense2, or Debian's libusb-1.0-0, is not installed"
pytest.importorskip("pyrealsense2", reason=MISSING, exc_type=ImportError)

HERE = Path(__file__).resolve().parents[1]
PATIENCE = 240.0  # s: a busy machine takes its time to load models
SERIALS = {"front": "0000000001", "wrist": "0000000002", "left_shoulder": "0000000003", "right_shoulder": "0000000004"}


class Command:
    """The command in a terminal of its own."""

    def __init__(self, environment: Mapping[str, str], *arguments: str) -> None:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 2000, 0, 0))  # wide: nothing is cut off
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "genima_cli", "real", *arguments],
            env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        self._reading = threading.Thread(target=self._read, args=(master,), daemon=True)
        self._reading.start()

    def _read(self, master: int) -> None:
        while True:
            try:
                said = os.read(master, 65536)
            except OSError:  # the command has ended
                break
            self.said += said.decode(errors="replace")
        os.close(master)

    def until(self, words: str, after: int = 0) -> int:
        """Wait until it has said something that matches; where that ends."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(words, self.said[after:])):
            assert self.process.poll() is None and time.monotonic() < deadline, self.said[-3000:]
            time.sleep(0.05)
        return after + found.end()

    def end(self) -> int:
        """Its exit code; it is told to end if it has not yet."""
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.kill()

    def kill(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()


class Place:
    """A robot at `robot.here`, four cameras that see the scene as it is when the arm is at home, and their files."""

    def __init__(self, folder: Path, simulation: Simulation) -> None:
        self.folder, self.bus = folder, folder / "bus"
        self.bus.mkdir()
        renderer = SceneRenderer(simulation.model, simulation.cameras)
        images = renderer.render(simulation.qpos())
        renderer.close()
        for view, serial in SERIALS.items():
            self._save(self.bus / f"{serial}.npz", images[view], simulation.cameras[view])
        given = filter(None, [os.environ.get("PYTHONPATH")])
        self.environment = {
            "ROS_DOMAIN_ID": str(random.SystemRandom().choice(free_domains())),
            "PYTHONPATH": os.pathsep.join([str(HERE / "standins" / "libraries"), str(HERE), *given]),
            "STANDIN_CAMERAS": str(self.bus),
        }

    @staticmethod
    def _save(file: Path, image: np.ndarray, camera: Camera) -> None:
        lens = [camera.fx, camera.fy, camera.cx - 0.5, camera.cy - 0.5]  # librealsense counts from a pixel's middle
        np.savez(file, image=image, lens=lens)

    def rig(self, views: Sequence[str] = tuple(SERIALS), **changes: object) -> str:
        """A cameras file of views; changes are of the view front's entry, None leaves a field out."""
        entry = {"model": "D415", "profile": "256x256x30"}
        rig = {
            view: {"serial": serial, "mounted_on": "flange" if view == "wrist" else "base"} | entry
            for view, serial in SERIALS.items()
            if view in views
        }
        rig["front"] = {k: v for k, v in (rig["front"] | changes).items() if v is not None}
        file = self.folder / f"cameras_{len(list(self.folder.glob('cameras_*')))}.yaml"
        file.write_text(yaml.safe_dump(rig))
        return str(file)

    def start(self, **options: str | None) -> Command:
        """The command, with what is fine where nothing else is said; None leaves an option out."""
        fine = {"robot": "panda", "robot-ip": "robot.here", "calibration": "sim", "device": "cpu"}
        given = {"cameras": self.rig(), "logs": str(self.folder / "logs")} | fine | options
        words = [(f"--{name}", value) for name, value in given.items() if value is not None]
        return Command(self.environment, *(word for pair in words for word in pair if word))


@pytest.fixture
def place(tmp_path: Path, simulation: Simulation, robot: RobotModel) -> Place:
    simulation.reset("push_button", 0, robot.home)
    return Place(tmp_path, simulation)


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
        ({"cameras": place.rig(serial=None)}, "front.serial: Field required"),
        ({"cameras": place.rig(serial=SERIALS["wrist"])}, "front, wrist have the same serial 0000000002"),
        ({"cameras": place.rig(profile="640x480x30")}, "front camera: its images are 640x480, the checkpoint takes"),
        ({"robot": "fr3"}, "the checkpoint of Genima .*fr3"),
        ({"calibration": str(place.folder / "nowhere")}, "nowhere"),
    ]:
        command = started(**options)
        assert command.end() == 2
        (line,) = [line for line in command.said.splitlines() if line.strip()]
        assert line.startswith("genima: error: ") and re.search(words, line), line
    assert not (place.folder / "logs").exists(), "nothing was started"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"robot-ip": "robot.nowhere"}, r"franka_arm ended with code 2: .*robot.nowhere.*Connection timeout"),
        ({"serial": "777"}, r"front_camera ended with code 2: .*camera 777 is not plugged in; there are: 0000000001 "),
    ],
)
def test_hardware_that_is_not_there_ends_it_with_its_name(
    place: Place, started: Callable[..., Command], options: dict[str, str], words: str
) -> None:
    """Without models, and with one camera, which start sooner."""
    given = {"robot-ip": options.get("robot-ip", "robot.here"), "no-policy": "", "calibration": None, "device": None}
    cameras = place.rig(["front"], serial=options.get("serial", SERIALS["front"]))
    command = started(**given, cameras=cameras)
    assert command.end() == 2
    assert re.search(rf"genima: error: {words}", command.said), command.said[-2000:]


@pytest.mark.nightly
@pytest.mark.real_time
def test_the_arm_is_an_fr3_with_its_hand_where_nothing_else_is_said(
    place: Place, started: Callable[..., Command], tmp_path: Path
) -> None:
    """Only for that robot this checkpoint is taken. `test_real_without_policy.py` starts it without models."""
    checkpoint = save_checkpoints(tmp_path / "checkpoint", 256, "fr3_franka_hand")
    command = started(**{"robot": None, "robot-ip": "fr3.here", "checkpoint": str(checkpoint)})
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
    gone = first.until(r"! front_camera: camera: camera 0000000001 is not plugged in", ready)
    first.until(r"! diffusion_agent: camera front silent: no image", ready)
    away.rename(front)
    first.until("all fine", gone)
    first.process.send_signal(signal.SIGINT)
    assert first.end() == 130
