"""`./genima calibrate live` as separate processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from domains import free_domain
from real_command import MISSING, RobotSetup
from terminal import Terminal

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.calibration_file import CameraCalibration
from genima.cell import load_cell
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.model import RobotModel
from genima_bringup.node_specs import command_guard, simulator_with_board
from genima_calibration.board_detection import detect
from genima_calibration.sample_folder import CameraInfo, sample_names
from genima_calibration.session import Session
from genima_cli.calibrate_live import main
from genima_cli.supervisor import Supervisor
from genima_nodes.ros.ros_environment import ros_environment
from genima_sim.mounted_board import MountedBoard
from genima_sim.rendering import SceneRenderer
from genima_sim.scene_node import camera_info
from genima_sim.simulation import Simulation

PANDA = RobotModel.load("panda")
COMMAND = [sys.executable, "-m", "genima_cli", "calibrate", "live", "--sim", "--view", "wrist"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "ROS_DOMAIN_ID"} | {"MUJOCO_GL": "egl", "TERM": "xterm"}
BOARD = CalibrationBoard.load(paths.shared("calibration", "boards", "charuco_7x5_a4.yaml"))


@pytest.mark.real_time
def test_simulated_camera_calibration_matches_ground_truth(tmp_path: Path) -> None:
    command = [*COMMAND, "--auto", "--most", "7", "--out", str(tmp_path / "out"), "--logs", str(tmp_path / "logs")]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    print(result.stdout, result.stderr, sep="\n")
    assert result.returncode == 0 and "from where the simulated camera is" in result.stdout
    assert "owner: calibrator" in (tmp_path / "logs" / "command_guard.log").read_text()
    saved = CameraCalibration.load(tmp_path / "out" / "wrist.yaml")
    session = Session(tmp_path / "out" / "samples" / "wrist", "wrist", "flange", BOARD, PANDA)
    assert session.info is not None and len(session.names) <= 7
    again = session.compute(session.samples, session.info).calibration  # as ./genima calibrate FOLDER does
    assert again is not None and again.samples == saved.samples
    np.testing.assert_allclose(again.camera.T_parent_camera, saved.camera.T_parent_camera, atol=1e-6)


def write_samples(folder: Path, count: int) -> None:
    """Write samples of the simulator's wrist camera."""
    simulation = Simulation(board=MountedBoard.at(BOARD, "table"))
    camera = simulation.cameras["wrist"]
    info = CameraInfo.of(camera_info(camera))
    session = Session(folder, "wrist", "flange", BOARD, PANDA)
    renderer, rng = SceneRenderer(simulation.model, {"wrist": camera}), np.random.default_rng(0)
    while len(session.names) < count:
        offset = np.array([0, 0, 0, 0.1, 0.25, 0.25, 0.35]) * rng.choice([-1, 1], 7) * rng.uniform(0.6, 1, 7)
        simulation.reset("push_button", 0, PANDA.home + offset)
        image = renderer.render(simulation.qpos(), simulation.model)["wrist"]
        with contextlib.suppress(GenimaError):  # the board is at the edge
            session.take(image, info, simulation.joints(), detect(image, BOARD, info.intrinsics))
    renderer.close()


@pytest.mark.real_time
def test_keys_take_drop_compute_and_save_samples(tmp_path: Path) -> None:
    samples, out = tmp_path / "samples", tmp_path / "out"
    write_samples(samples, 6)  # two fewer than automatic mode ends with
    command = [*COMMAND, "--samples", str(samples), "--out", str(out), "--logs", str(tmp_path / "logs")]
    with Terminal(command, ENVIRONMENT) as terminal:
        terminal.until("t take")
        terminal.until("6 samples (")  # computed
        terminal.until("ready to take")
        terminal.press("t")
        terminal.until("sample 0007: taken")
        assert len(sample_names(samples)) == 7
        terminal.press("t")
        terminal.until("same pose as sample 0007")
        terminal.until("7 samples (")
        terminal.press("c")
        terminal.until("7 samples; residuals")
        terminal.press("x")
        terminal.until("sample 0007: dropped")
        assert len(sample_names(samples)) == 6
        terminal.until("6 samples (")
        terminal.press("m")
        terminal.until("the arm moves automatically")
        terminal.until("samples; moving")
        terminal.press("m")
        terminal.until("stopping the arm")
        terminal.until("residuals", "c")  # of the samples taken meanwhile
        terminal.press("v")
        terminal.until("saved ")
        terminal.press("q")
        terminal.until("from where the simulated camera is")
        assert terminal.process.wait(30) == 0
    assert CameraCalibration.load(out / "wrist.yaml").samples


@pytest.mark.nightly  # daily for ./genima record and ./genima real, which start the same nodes
@pytest.mark.real_time
def test_robot_ip_starts_drivers_camera_guard_and_calibrator(robot_setup: RobotSetup, tmp_path: Path) -> None:
    pytest.importorskip("pyrealsense2", reason=MISSING, exc_type=ImportError)
    folders = [word for name in ("out", "samples", "logs") for word in (f"--{name}", str(tmp_path / name))]
    robot = ["--robot-ip", "robot.here", "--cell", robot_setup.cell(), "--view", "front"]
    with Terminal([*COMMAND[:5], *robot, *folders], ENVIRONMENT | robot_setup.environment) as terminal:
        terminal.until("w/s forwards, back")
        terminal.until("m start or stop the automatic motion")
        terminal.until("0 samples, 0% covered: board: not detected")
        terminal.press("t")
        terminal.until("board: not detected (0 of its 24 points")
        terminal.press(" ")
        terminal.until("MIRRORING")
        terminal.press("q")
        assert terminal.process.wait(60) == 0
    logs = {file.stem for file in (tmp_path / "logs").glob("*.log")}
    assert logs == {
        "franka_arm", "franka_hand", "front_camera", "command_guard", "jog", "teleop", "calibrator", "clock_watch",
    }  # fmt: skip


@pytest.mark.real_time
def test_calibrator_joins_running_robot(tmp_path: Path) -> None:
    environment = {"ROS_DOMAIN_ID": str(free_domain())}
    os.environ.update(environment)
    try:
        environment_of_nodes = ros_environment()
    finally:
        del os.environ["ROS_DOMAIN_ID"]
    folders = [word for name in ("out", "samples", "logs") for word in (f"--{name}", str(tmp_path / name))]
    robot = ["--view", "wrist", "--parent", "flange", "--cell", "sim_panda", "--flange-frame", "left_panda_link8"]
    write_samples(tmp_path / "samples", 6)
    running = [
        *simulator_with_board(load_cell("sim_panda"), "wrist", "table"),
        command_guard(load_cell("sim_panda"), 200),
    ]
    with (
        Supervisor(running, tmp_path / "robot", environment_of_nodes),
        Terminal([*COMMAND[:5], *robot, *folders], ENVIRONMENT | environment) as terminal,
    ):
        terminal.until("t take")
        terminal.until("6 samples (")
        terminal.press("v")
        terminal.until("saved ")
        terminal.press("q")
        assert terminal.process.wait(60) == 0
    saved = CameraCalibration.load(tmp_path / "out" / "wrist.yaml")
    assert saved.frames is not None and saved.frames.parent == "left_panda_link8"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "calibrating by hand needs a terminal"),
        (["--auto"], "--auto goes with --sim"),
        (["--out", "somewhere"], "--out goes with --sim, or with the --view of a real robot"),
        (["--most", "7"], "--most goes with --sim, or with the --view of a real robot"),
        (["--sim", "--auto", "--most", "3"], "--most 3: must be greater than or equal to 5"),
        (["--sim", "--auto", "--speed", "nan"], "--speed nan: must be a finite number"),
        (["--sim", "--auto", "--view", "top"], "--view top: cell sim_panda has wrist"),
        (["--sim", "--view", "left-shoulder"], "--view left-shoulder: .*for example left_shoulder"),
        (["--sim", "--auto", "--cell", "fr3_crisp"], "cell fr3_crisp: "),
        (["--view", "front"], "give --parent base or --parent flange"),
        (["--view", "front", "--parent", "base", "--auto"], "--auto goes with --sim; on a real robot key m"),
        (["--robot-ip", "robot.here", "--cell", "cell.yaml"], "--view is missing"),
        (["--robot-ip", "robot.here", "--view", "front"], "--cell is missing"),
        (["--robot-ip", "x", "--view", "front", "--cell", "y", "--parent", "base"], "--parent goes without"),
        (["--sim", "--auto", "--board", "nowhere.yaml"], "board nowhere.yaml does not exist"),
    ],
)
def test_invalid_arguments_are_rejected_in_one_line(
    arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(GenimaError, match=expected):
        main(arguments)


@pytest.mark.parametrize("view", ["front", "left_shoulder", "right_shoulder"])
def test_board_in_gripper_faces_calibrated_camera(view: str) -> None:
    simulation = Simulation(board=MountedBoard.at(BOARD, "gripper"), facing=view)
    positions, mounted = simulation.joints().positions, simulation.board
    assert mounted is not None
    T = PANDA.link_poses(positions)[-2] @ mounted.T_parent_board
    towards = simulation.cameras[view].T_parent_camera[:3, 3] - T[:3, 3]
    assert -T[:3, 2] @ towards / np.linalg.norm(towards) > np.cos(np.radians(50))
    assert np.all((positions > PANDA.position_min + 0.2) & (positions < PANDA.position_max - 0.2))


def test_rviz_config_shows_calibrator_topics() -> None:
    config = yaml.safe_load(paths.shared("config", "rviz", "calibrate.rviz").read_text())
    displays = {display["Name"]: display for display in config["Visualization Manager"]["Displays"]}
    assert displays["live view"]["Topic"]["Value"] == "calibrator/image"  # in RViz's namespace
    assert displays["live view"]["Topic"]["Reliability Policy"] == "Reliable"
    assert set(displays) == {"live view", "robot", "frames"} and "live view" in config["Window Geometry"]
