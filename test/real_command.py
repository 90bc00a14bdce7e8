"""`./genima real` in a terminal, with stand-ins for the libraries of robot and cameras."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import mujoco
import numpy as np
import yaml
from cells import write_cell
from domains import free_domain

from genima.cameras.calibration_file import load_cameras
from genima.cameras.camera import Camera
from genima.io import paths
from genima.robot.model import RobotModel
from genima.types import Image
from genima_sim.rendering import SceneRenderer
from genima_sim.scene import build_scene

MISSING = "pyrealsense2, or Debian's libusb-1.0-0, is not installed"
HERE = Path(__file__).resolve().parent
PATIENCE = 240.0  # s: a busy machine loads models slowly
SERIALS = {"front": "0000000001", "wrist": "0000000002", "left_shoulder": "0000000003", "right_shoulder": "0000000004"}


class Command:
    """`./genima real` in a terminal of its own."""

    def __init__(self, environment: Mapping[str, str], *arguments: str) -> None:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 2000, 0, 0))  # wide: nothing is cut off
        self.output = ""
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
                output = os.read(master, 65536)
            except OSError:  # the command has ended
                break
            self.output += output.decode(errors="replace")
        os.close(master)

    def until(self, pattern: str, after: int = 0) -> int:
        """Wait until the output matches; return the end of the match."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.output[after:])):
            assert self.process.poll() is None, self.output[-3000:]
            if time.monotonic() > deadline:
                raise TimeoutError(self.output[-3000:])
            time.sleep(0.05)
        return after + found.end()

    def end(self) -> int:
        """End the command if necessary; return its exit code."""
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the command."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()


def render_at_home(robot: RobotModel, cameras: Mapping[str, Camera]) -> dict[str, Image]:
    """Render a robot with any gripper, the arm at home above an empty table; return images by view."""
    model = build_scene(robot, cameras).model
    data = mujoco.MjData(model)
    for name, position in zip(robot.joint_names, robot.home, strict=True):
        data.joint(name).qpos = position
    renderer = SceneRenderer(model, cameras)
    images = renderer.render(data.qpos, model)
    renderer.close()
    return images


class RobotSetup:
    """Robot at `robot.here`, four cameras with images of it at home, and their files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bus = folder, folder / "bus"
        self.bus.mkdir()
        self._robot = folder / "panda_with_a_hand.yaml"  # with the joints that the bundled models were trained with
        text = paths.shared("config", "robots", "panda.yaml").read_text(encoding="utf-8")
        self._robot.write_text(text.replace("model: robotiq_2f140", "model: franka_hand"), encoding="utf-8")
        cameras = load_cameras("sim")
        images = render_at_home(RobotModel.load(self._robot), cameras)
        for view, serial in SERIALS.items():
            self._save(self.bus / f"{serial}.npz", images[view], cameras[view])
        existing = filter(None, [os.environ.get("PYTHONPATH")])
        self.environment = {
            "ROS_DOMAIN_ID": str(free_domain()),
            "PYTHONPATH": os.pathsep.join([str(HERE / "standins" / "libraries"), str(HERE), *existing]),
            "STANDIN_CAMERAS": str(self.bus),
        }

    @staticmethod
    def _save(file: Path, image: np.ndarray, camera: Camera) -> None:
        lens = [camera.fx, camera.fy, camera.cx - 0.5, camera.cy - 0.5]  # librealsense counts from pixel centres
        np.savez(file, image=image, lens=lens)

    def rig(self, views: Sequence[str] = tuple(SERIALS), **changes: object) -> str:
        """Write a cameras file of views; changes apply to the entry of view front, None removes a field."""
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

    def cell(self, **changes: object) -> str:
        """Write the file of a cell with our own driver; changes apply to its entries, as in ``write_cell``."""
        defaults = {"robot": str(self._robot), "cameras": self.rig(), "calibration": "sim"}
        return write_cell(self.folder, "fr3_own_driver", **defaults | changes)

    def start(self, **options: str | None) -> Command:
        """Start the command with default options unless given; None removes an option."""
        defaults = {"robot-ip": "robot.here", "device": "cpu"}
        cell = options.pop("cell", None) or self.cell()
        values = {"cell": cell, "logs": str(self.folder / "logs")} | defaults | options
        pairs = [(f"--{name}", value) for name, value in values.items() if value is not None]
        return Command(self.environment, *(word for pair in pairs for word in pair if word))
