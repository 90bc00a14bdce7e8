"""`./genima call` with a running robot, from a terminal without a DDS profile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from command import run_call

from genima.cell import load_cell
from genima.doctor.ros import PROFILE
from genima.errors import GenimaError
from genima.io import paths
from genima_bringup.node_specs import TASK_RUNNER, command_guard
from genima_cli.supervisor import Supervisor
from genima_nodes.ros.ros_environment import joining_environment, ros_environment


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., tuple[int, str]]]:
    """Function that runs `./genima call` with a guard and a task runner; returns exit code and output."""
    environment = ros_environment()
    terminal = {name: value for name, value in os.environ.items() if name not in environment}
    terminal["ROS_DOMAIN_ID"] = environment["ROS_DOMAIN_ID"]

    with Supervisor([command_guard(load_cell("sim_panda")), TASK_RUNNER], tmp_path_factory.mktemp("logs"), environment):
        yield partial(run_call, terminal)


def test_arm_stops_and_resumes(call: Callable[..., tuple[int, str]]) -> None:
    assert call("stop", "--patience", "60") == (0, "stopped; resume with ./genima call resume")
    assert call("resume") == (0, "resumed: the next command near the arm moves it")


def test_rejected_request_is_one_line_with_exit_code_2(call: Callable[..., tuple[int, str]]) -> None:
    assert call("success", "--patience", "60") == (2, "genima: error: /run_task/judge: no task is running")


def test_missing_service_is_one_line_with_exit_code_2(call: Callable[..., tuple[int, str]]) -> None:
    code, output = call("stop", "--namespace", "left", "--patience", "1")
    assert code == 2 and "\n" not in output
    assert output.startswith("genima: error: service /left/command_guard/stop: not available in ROS_DOMAIN_ID "), output


def test_dds_profile_of_terminal_takes_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (PROFILE, "RMW_IMPLEMENTATION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROS_DOMAIN_ID", "17")
    for name in ("shared_memory", "two_machines"):
        assert joining_environment(name)[PROFILE] == str(paths.shared("config", "dds", f"{name}.xml"))
    (tmp_path / "mine.xml").write_text("<profiles/>")
    monkeypatch.setenv(PROFILE, str(tmp_path / "mine.xml"))
    joined = joining_environment("two_machines")
    assert joined[PROFILE] == str(tmp_path / "mine.xml") and joined["ROS_DOMAIN_ID"] == "17"
    assert joined["RMW_IMPLEMENTATION"] == "rmw_fastrtps_cpp"
    with pytest.raises(GenimaError, match="DDS profile: unknown .telepathy."):
        joining_environment("telepathy")
