"""Single instance: a second process of a role ends, a restart after a crash does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from domains import free_domain
from ros_graph import Graph

from genima_cli.supervisor import Supervisor
from genima_nodes.ros.ros_environment import free_domains, ros_environment
from genima_nodes.ros.single_instance import OWN, Instance

NAMESPACE = ("-r", "__ns:=/left")


class TaskRunners:
    """Task runner processes in one domain."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        domain = {"ROS_DOMAIN_ID": str(free_domain())}
        self._environment = ros_environment() | domain
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, node: str = "genima_nodes.task_runner") -> int:
        """Start a process; return its index."""
        with open(self._folder / f"{len(self.processes)}.log", "wb") as log:
            command = [sys.executable, "-P", "-m", node, "--ros-args", *arguments]
            environment = os.environ | self._environment
            self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
        return len(self.processes) - 1

    def log(self, number: int) -> str:
        return (self._folder / f"{number}.log").read_text("utf-8")

    def until(self, number: int, text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in self.log(number):
            assert time.monotonic() < deadline, self.log(number)
            time.sleep(0.05)


@pytest.fixture
def runners(tmp_path: Path) -> Iterator[TaskRunners]:
    found = TaskRunners(tmp_path)
    yield found
    for process in found.processes:
        process.kill()
        process.wait()


def test_second_process_ends_unless_in_other_namespace(runners: TaskRunners) -> None:
    first = runners.start()
    runners.until(first, "ready")
    second, elsewhere = runners.start(), runners.start(*NAMESPACE)
    assert runners.processes[second].wait(60) == 2
    line = runners.log(second).splitlines()[-1]
    assert line.startswith("genima: error: task_runner: already running on ") and "ROS_DOMAIN_ID" in line
    assert f"process {runners.processes[first].pid}" in line
    runners.until(elsewhere, "ready")
    assert runners.processes[first].poll() is None and runners.processes[elsewhere].poll() is None


@pytest.mark.real_time
def test_restart_after_crash_is_not_delayed(runners: TaskRunners) -> None:
    """DDS lists the killed process for 10 s."""
    first = runners.start()
    runners.until(first, "ready")
    runners.processes[first].send_signal(signal.SIGKILL)
    runners.processes[first].wait()
    begin = time.monotonic()
    second = runners.start()
    runners.until(second, "ready")
    assert time.monotonic() - begin < 10


def test_one_of_two_simultaneous_starts_remains(runners: TaskRunners) -> None:
    both = [runners.start(), runners.start()]
    deadline = time.monotonic() + 60
    while all(runners.processes[number].poll() is None for number in both):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(2.0)
    codes = [runners.processes[number].poll() for number in both]
    assert sorted(codes, key=str) == [2, None]


def test_second_graph_in_domain_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runners: TaskRunners
) -> None:
    """Two `./genima demo` in one ROS_DOMAIN_ID: the second one ends at once."""
    from genima.errors import GenimaError
    from genima_bringup.node_specs import TASK_RUNNER

    runners.until(runners.start(), "ready")
    monkeypatch.setenv("ROS_DOMAIN_ID", runners._environment["ROS_DOMAIN_ID"])
    with Supervisor([TASK_RUNNER], tmp_path / "logs", ros_environment()) as supervisor:
        deadline = time.monotonic() + 60
        with pytest.raises(GenimaError, match="task_runner: ended with code 2 ..*already running on"):
            while time.monotonic() < deadline:
                supervisor.check()
                time.sleep(0.1)


@pytest.mark.parametrize(
    "text", ["", "a b c", "1", "1 2", "1 2 ", "-1 2 h", "\u0663 2 h", f"{'9' * 30} 2 h", "1.0 2 h"]
)
def test_malformed_announcements_are_ignored(text: str) -> None:
    assert Instance.parse(text) is None


def test_announcement_round_trip() -> None:
    assert Instance.parse(str(OWN)) == OWN
    assert Instance(1, "b", 9) < Instance(2, "a", 1)


@pytest.mark.any_pace
def test_used_domain_is_not_free(graph: Graph) -> None:
    """Also if the process's environment does not name the domain."""
    domain = graph.probe.context.get_domain_id()
    graph.until(lambda: domain not in free_domains(), "the domain is free")
    assert len(free_domains()) > 50
