"""The bundled models on a robot that is driven as a real one: every process, against a stand-in for the hardware."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import rclpy
import yaml
from sensor_msgs.msg import JointState
from standins import interfaces
from std_msgs.msg import UInt32

from genima import paths
from genima.guard.limits import violations
from genima.robot.model import RobotModel
from genima_bringup.driver import Driver
from genima_bringup.processes import TASK_RUNNER, Process, adapters, guard, policy
from genima_bringup.supervisor import Supervisor, ros_environment
from genima_interfaces.action import RunTask
from genima_nodes import messages, qos

pytestmark = pytest.mark.real_time

_START, _LIMIT = 200.0, 20.0  # s; a busy machine takes its time to load models
_SEED = 3


def fr3_called_panda(folder: Path) -> Path:
    """The arm of the stand-in: an FR3, but with the joints' names that the bundled models were trained with."""
    data = yaml.safe_load(paths.shared("config", "robots", "fr3.yaml").read_text())
    for joint in data["joints"]:
        joint["name"] = joint["name"].replace("fr3", "panda")
    file = folder / "fr3_called_panda.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def crisp_of_an_fr3(folder: Path) -> Path:
    """The controller, with the driver's own names for these joints."""
    data = yaml.safe_load(paths.shared("config", "backends", "crisp.yaml").read_text())
    data["joints"] = list(RobotModel.load("fr3").joint_names)
    file = folder / "crisp.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


@dataclass(frozen=True)
class Played:
    """What was said while a task was in force."""

    result: RunTask.Result
    complaints: list[str]
    commands: list[JointState]
    targets: list[JointState]  # of the controller
    reflexes: int


def play(robot: str, backend: str, logs: Path, environment: dict[str, str]) -> Played:
    """A task from start to end. In a process of its own: DDS reads its profile once in a process's life."""
    os.environ.update(environment)  # this process takes part in the same graph
    hardware = Process("standins", "hardware", {"robot": robot, "backend": backend, "fps": 10.0, "state_every": 5})
    ours = [
        guard(robot, 50, "robot/recover"),
        *adapters(robot, backend, "robotiq_2f140"),
        *policy(),
        TASK_RUNNER,
    ]
    commands: list[JointState] = []
    targets: list[JointState] = []
    reflexes: list[int] = []
    with Supervisor([hardware, *ours], logs, environment) as supervisor:
        rclpy.init()
        driver = Driver("judge")
        try:
            driver.create_subscription(JointState, "joint_command", commands.append, qos.EVERY_COMMAND)
            driver.create_subscription(JointState, "target_joint", targets.append, qos.EVERY_COMMAND)
            driver.create_subscription(UInt32, "standin/reflexes", lambda m: reflexes.append(m.data), qos.TASK)
            driver.wait_ready([process.node for process in ours], _START, supervisor.check)
            instruction = driver.reset("push_button", _SEED, supervisor.check)
            ended = driver.begin_task(instruction, _LIMIT, supervisor.check)
            result = driver.answer(ended, "run_task", _LIMIT + 30, supervisor.check).result
            driver.spin_until(lambda: False, 0.5, supervisor.check)
        finally:
            driver.close()
            rclpy.shutdown()
    return Played(result, driver.complaints, commands, targets, reflexes[-1])


def test_a_policy_moves_the_arm_by_its_drivers_and_never_trips_it(tmp_path: Path) -> None:
    robot, backend = str(fr3_called_panda(tmp_path)), str(crisp_of_an_fr3(tmp_path))
    environment = ros_environment() | interfaces.environment()
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        played = pool.submit(play, robot, backend, tmp_path / "logs", environment).result()
    result = played.result
    print(f"{result.outcome} after {result.elapsed:.1f} s ({result.reason})")
    assert played.reflexes == 0
    model = RobotModel.load(robot)
    stamps = np.array([messages.seconds(message.header.stamp) for message in played.commands])
    positions = np.array([message.position[:7] for message in played.commands])
    assert violations(stamps, positions, model) == 0
    said = {tuple(p) for p in positions}
    mine = [message for message in played.targets if tuple(message.position) not in said]
    assert not any(np.any(message.velocity) for message in mine)  # what is not the guard's holds the arm where it is
    if result.outcome == RunTask.Result.STOPPED and "no complete set of good images" in result.reason:
        pytest.skip(f"this machine renders too slowly, so the arm was held: {result.reason}")
    assert result.outcome in (RunTask.Result.SUCCEEDED, RunTask.Result.TIMEOUT), played.complaints[-5:]
    assert len(played.commands) > 50 and np.ptp(positions, axis=0).max() > 0.2
    assert len(mine) < 0.1 * len(played.targets)
