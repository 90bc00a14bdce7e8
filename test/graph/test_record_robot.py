"""`./genima record --robot-ip` with the stand-ins of `test_real_command.py`."""

from __future__ import annotations

import os
import sys

import pytest
import yaml
from real_command import MISSING, SERIALS, RobotSetup
from terminal import Terminal

from genima.data.episodes import Episode, find_episodes
from genima.robot.model import RobotModel
from genima_cli.__main__ import main

pytest.importorskip("pyrealsense2", reason=MISSING, exc_type=ImportError)


@pytest.mark.real_time
def test_record_starts_robot_with_keyboard_leader(robot_setup: RobotSetup) -> None:
    rig, logs, out = robot_setup.folder / "one.yaml", robot_setup.folder / "logs", robot_setup.folder / "demos"
    camera = {"serial": SERIALS["front"], "model": "D415", "profile": "256x256x30", "mounted_on": "base"}
    rig.write_text(yaml.safe_dump({"front": camera}), encoding="utf-8")
    command = [sys.executable, "-m", "genima_cli", "record", "--robot-ip", "robot.here"]
    command += [
        "--cell",
        robot_setup.cell(cameras=str(rig), views=["front"]),
        "--leader",
        "keyboard",
        "--instruction",
        "wave",
    ]
    command += ["--out", str(out), "--logs", str(logs)]
    environment = {key: value for key, value in os.environ.items() if key != "ROS_DOMAIN_ID"} | {"TERM": "xterm"}
    with Terminal(command, environment | robot_setup.environment) as terminal:
        terminal.until("b begin to record")
        terminal.press("g")
        terminal.until("opening unknown; start to follow first")
        terminal.press(" ")
        terminal.until("follower: aligning with the leader")
        terminal.until("MIRRORING")
        terminal.press("b")
        terminal.until("recording 1 s")
        terminal.press("y")
        terminal.until(": complete")
        terminal.press(" ")
        terminal.until("space to continue")
        terminal.press("q")
        assert terminal.process.wait(40) == 0
    nodes = {"franka_arm", "franka_hand", "front_camera", "command_guard", "teleop", "jog", "recorder"}
    nodes |= {"camera_transforms"}
    assert {log.stem for log in logs.glob("*.log")} >= nodes
    transforms = (logs / "camera_transforms.log").read_text(encoding="utf-8")
    assert "not among the views, skipped" in transforms and "wrist:" not in transforms
    (demo,) = find_episodes(out)
    episode = Episode.load(demo, RobotModel.load("panda"))
    assert episode.success and episode.instruction == "wave" and len(episode) > 5


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--robot-ip", "10.0.0.1"], "--leader is missing"),
        (["--robot-ip", "10.0.0.1", "--leader", "keyboard"], "cell sim_panda: simulated by mujoco"),
        (["--robot-ip", "10.0.0.1", "--leader", "expert"], "simulated robot only"),
        (["--robot-ip", "10.0.0.1", "--sim"], "--robot-ip is of a real robot"),
        (["--robot-ip", "10.0.0.1", "--namespace", "left"], "--namespace is of a robot that runs already"),
        (["--unwrap-at-start"], "--unwrap-at-start goes with --robot-ip"),
        (["--leader", "gello"], "--leader goes with --sim or --robot-ip"),
        (["--sim", "--leader", "gello"], "expert, keyboard or gamepad"),
        (["--robot-ip", "10.0.0.1", "--speed", "2"], "--speed 2"),
    ],
)
def test_conflicting_options_are_rejected_in_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", "--instruction", "wave", *arguments]) == 2
    line = capsys.readouterr().err.strip()
    assert expected in line and "\n" not in line
