"""`./genima calibrate live` as separate processes: the simulated robot calibrates its camera by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from genima import paths
from genima.errors import GenimaError
from genima.handeye import Board, Calibration
from genima.handeye.session import Session
from genima.robot.model import RobotModel
from genima_bringup.calibrating import main
from genima_sim.mounted_board import MountedBoard
from genima_sim.simulation import Simulation

PANDA = RobotModel.load("panda")
BOARD = Board.load(paths.shared("calibration", "boards", "charuco_7x5_a4.yaml"))


@pytest.mark.real_time
def test_a_simulated_camera_is_found_where_it_is(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "ROS_DOMAIN_ID"} | {"MUJOCO_GL": "egl"}
    command = [sys.executable, "-m", "genima.cli", "calibrate", "live", "--sim", "--auto", "--view", "wrist"]
    command += ["--most", "7", "--out", str(tmp_path / "out"), "--logs", str(tmp_path / "logs")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    print(done.stdout, done.stderr, sep="\n")
    assert done.returncode == 0 and "from where the simulated camera is" in done.stdout
    assert "calibrator may move the arm" in (tmp_path / "logs" / "command_guard.log").read_text()
    saved = Calibration.load(tmp_path / "out" / "wrist.yaml")
    session = Session(tmp_path / "out" / "samples" / "wrist", "wrist", "flange", BOARD, PANDA)
    assert session.info is not None and len(session.names) <= 7
    again = session.compute(session.samples, session.info).calibration  # as ./genima calibrate FOLDER does
    assert again is not None and again.samples == saved.samples
    np.testing.assert_allclose(again.camera.T_parent_camera, saved.camera.T_parent_camera, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "calibrating by hand needs a terminal"),
        (["--auto"], "--auto goes with --sim"),
        (["--out", "somewhere"], "--out goes with --sim"),
        (["--sim", "--auto", "--most", "3"], "--most must be at least 5"),
        (["--sim", "--auto", "--board", "nowhere.yaml"], "board nowhere.yaml does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(GenimaError, match=words):
        main(arguments)


@pytest.mark.parametrize("view", ["front", "left_shoulder", "right_shoulder"])
def test_a_held_board_is_turned_to_the_camera_that_is_calibrated(view: str) -> None:
    simulation = Simulation(board=MountedBoard.at(BOARD, "gripper"), facing=view)
    positions, mounted = simulation.joints().positions, simulation.board
    assert mounted is not None
    T = PANDA.link_poses(positions)[-2] @ mounted.T_parent_board
    towards = simulation.cameras[view].T_parent_camera[:3, 3] - T[:3, 3]
    assert -T[:3, 2] @ towards / np.linalg.norm(towards) > np.cos(np.radians(50))
    assert np.all((positions > PANDA.position_min + 0.2) & (positions < PANDA.position_max - 0.2))


def test_rviz_shows_what_the_calibrator_publishes() -> None:
    config = yaml.safe_load(paths.shared("config", "rviz", "calibrate.rviz").read_text())
    displays = {display["Name"]: display for display in config["Visualization Manager"]["Displays"]}
    assert displays["live view"]["Topic"]["Value"] == "/calibrator/image"
    assert displays["live view"]["Topic"]["Reliability Policy"] == "Reliable"
    assert set(displays) == {"live view", "robot", "frames"} and "live view" in config["Window Geometry"]
