"""Bundled models with all processes of a real robot and a stand-in for the hardware."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from ros_graph import diagnostic_values
from sensor_msgs.msg import JointState
from standins import interfaces
from standins.cell import Cell, cell, prepare, set_scene
from std_msgs.msg import UInt32
from std_srvs.srv import SetBool

from genima.control.command_guard import GuardSettings
from genima.control.limit_violations import count_violations
from genima.robot.model import RobotModel
from genima_bringup.node_specs import CLOCK_WATCH
from genima_cli.graph_client import GraphClient
from genima_cli.supervisor import Supervisor
from genima_interfaces.action import RunTask
from genima_interfaces.msg import DrawnTarget
from genima_nodes.ros import messages, qos
from genima_nodes.ros.ros_environment import ros_environment

# Daily: test_standins.py (guard, adapters and reflexes), test_nodes.py (a camera that stops holds the arm), and
# test_faults.py (the whole graph with the bundled models).
pytestmark = [pytest.mark.nightly, pytest.mark.real_time]

_START, _LIMIT = 200.0, 20.0  # s; a busy machine loads models slowly
_SEED = 3
_LATE = (
    "no complete set of valid images",
    "no message for",
    "late",
    "commands have stopped",
)
"""Reasons of a held arm on a machine that is too slow."""


@dataclass(frozen=True)
class TaskRecording:
    """Messages recorded during a task."""

    result: RunTask.Result
    faults: list[str]
    commands: list[JointState]
    targets: list[JointState]  # of the controller
    reflexes: int
    views_in_tf: str  # comma-separated
    agent_status: str  # of the diffusion agent while a camera was unplugged
    controller_status: str  # of the controller meanwhile
    motion_while_unplugged: float  # rad, commanded
    drawn_after_reconnect: bool  # a target was drawn from images after the reconnection


def run_task(robot_cell: Cell, logs: Path, environment: dict[str, str]) -> TaskRecording:
    """Run a task in which a camera is unplugged for a while.

    Needs a process of its own: DDS reads its profile once per process.
    """
    os.environ.update(environment)  # this process joins the same graph
    commands: list[JointState] = []
    targets: list[JointState] = []
    reflexes: list[int] = []
    target_stamps: list[float] = []  # stamps, s
    views_in_tf: dict[str, str] = {}
    with Supervisor(robot_cell.processes, logs, environment) as supervisor:
        rclpy.init()
        driver, check_processes = GraphClient("judge"), supervisor.check
        prepare(driver)
        try:
            driver.create_subscription(JointState, "joint_command", commands.append, qos.COMMAND_LOG)
            driver.create_subscription(JointState, "target_joint", targets.append, qos.COMMAND_LOG)
            driver.create_subscription(UInt32, "standin/reflexes", lambda m: reflexes.append(m.data), qos.TASK)
            driver.create_subscription(
                DrawnTarget,
                "drawn_target",
                lambda m: target_stamps.append(messages.seconds(m.header.stamp)),
                qos.STATUS,
            )

            def on_diagnostics(message: DiagnosticArray) -> None:
                for status in message.status:
                    if status.name == "camera_transforms":
                        views_in_tf.update(diagnostic_values(status))

            driver.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, qos.STATUS)
            unplug = "cameras/wrist/standin/unplug"
            driver.client(SetBool, unplug)
            driver.wait_ready([p.node for p in robot_cell.ours if p != CLOCK_WATCH], _START, check_processes)
            assert any(name.startswith("clock_watch") for name in driver.statuses)
            instruction = set_scene(driver, "push_button", _SEED, check_processes)
            commands.clear()
            targets.clear()
            future = driver.begin_task(instruction, _LIMIT, check_processes)
            driver.spin_until(lambda: len(target_stamps) > 3 or future.done(), _LIMIT, check_processes)

            driver.call(SetBool, unplug, SetBool.Request(data=True), check_processes)
            driver.spin_until(
                lambda: "wrist timeout" in driver.statuses["diffusion_agent"].message, 5.0, check_processes
            )
            driver.spin_until(lambda: False, 0.5, check_processes)  # the arm comes to rest
            held_from = len(commands)
            driver.spin_until(lambda: False, 0.5, check_processes)
            held_positions = np.array([message.position[:7] for message in commands[held_from:]])
            agent_status, controller_status = (
                driver.statuses[name].message for name in ("diffusion_agent", "controller")
            )
            driver.call(SetBool, unplug, SetBool.Request(data=False), check_processes)
            reconnected_at = time.time()
            driver.spin_until(lambda: future.done() or target_stamps[-1] > reconnected_at, _LIMIT, check_processes)

            result = driver.wait_for(future, "run_task", _LIMIT + 30, check_processes).result
            driver.spin_until(lambda: False, 0.5, check_processes)
        finally:
            driver.close()
            rclpy.shutdown()
    motion_while_unplugged = float(np.ptp(held_positions, axis=0).max()) if len(held_positions) else 0.0
    drawn_after_reconnect = bool(target_stamps) and target_stamps[-1] > reconnected_at
    views = views_in_tf["cameras in tf"]
    return TaskRecording(
        result,
        driver.faults_so_far,
        commands,
        targets,
        reflexes[-1],
        views,
        agent_status,
        controller_status,
        motion_while_unplugged,
        drawn_after_reconnect,
    )


def test_task_runs_without_reflex_and_survives_unplugged_camera(tmp_path: Path) -> None:
    robot_cell = cell(tmp_path, fps=10.0)
    environment = ros_environment() | interfaces.environment()
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        recording = pool.submit(run_task, robot_cell, tmp_path / "logs", environment).result()
    result = recording.result
    print(f"{result.outcome} after {result.elapsed:.1f} s ({result.reason})")
    assert recording.reflexes == 0
    assert set(recording.views_in_tf.split(", ")) == {"front", "wrist", "left_shoulder", "right_shoulder"}
    model = RobotModel.load(robot_cell.robot)
    stamps = np.array([messages.seconds(message.header.stamp) for message in recording.commands])
    positions = np.array([message.position[:7] for message in recording.commands])
    assert count_violations(stamps, positions, model, GuardSettings().late) == 0  # a machine may pause for longer
    assert np.all((positions > model.position_min) & (positions < model.position_max))
    steps = np.diff(np.array([message.position for message in recording.targets]), axis=0)
    assert np.abs(steps).max() < 0.15  # also where the stream restarts at the arm's position after a pause

    assert "camera wrist timeout: no image" in recording.agent_status, "the unplugged camera is not reported"
    assert "camera front timeout" not in recording.agent_status and "shoulder timeout" not in recording.agent_status
    assert "holding" in recording.controller_status or result.outcome == RunTask.Result.STOPPED
    assert recording.motion_while_unplugged < 0.01, "the arm moves without the camera"

    if result.outcome == RunTask.Result.STOPPED and any(text in result.reason for text in _LATE):
        pytest.skip(f"this machine is too slow, so the arm was held: {result.reason}")
    assert result.outcome in (RunTask.Result.SUCCEEDED, RunTask.Result.TIMEOUT), recording.faults[-5:]
    assert recording.drawn_after_reconnect, "no drawn target after the camera is reconnected"
    assert len(recording.commands) > 50 and np.ptp(positions, axis=0).max() > 0.2
