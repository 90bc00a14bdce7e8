"""One process for each role: a second one refuses, a restart after a crash does not."""

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


class Started:
    """Task runners, which are quick to start, in one domain."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        domain = {"ROS_DOMAIN_ID": str(free_domain())}
        self._environment = ros_environment() | domain
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, node: str = "genima_nodes.task_runner") -> int:
        """Start one; return its number."""
        with open(self._folder / f"{len(self.processes)}.log", "wb") as log:
            command = [sys.executable, "-P", "-m", node, "--ros-args", *arguments]
            environment = os.environ | self._environment
            self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
        return len(self.processes) - 1

    def log(self, number: int) -> str:
        return (self._folder / f"{number}.log").read_text("utf-8")

    def until(self, number: int, words: str) -> None:
        deadline = time.monotonic() + 60
        while words not in self.log(number):
            assert time.monotonic() < deadline, self.log(number)
            time.sleep(0.05)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    found = Started(tmp_path)
    yield found
    for process in found.processes:
        process.kill()
        process.wait()


def test_a_second_one_refuses_and_another_namespace_does_not(started: Started) -> None:
    first = started.start()
    started.until(first, "ready")
    second, elsewhere = started.start(), started.start(*NAMESPACE)
    assert started.processes[second].wait(60) == 2
    line = started.log(second).splitlines()[-1]
    assert line.startswith("genima: error: task_runner: runs already on ") and "ROS_DOMAIN_ID" in line
    assert f"process {started.processes[first].pid}" in line
    started.until(elsewhere, "ready")
    assert started.processes[first].poll() is None and started.processes[elsewhere].poll() is None


@pytest.mark.real_time
def test_a_restart_after_a_crash_is_not_held_up(started: Started) -> None:
    """DDS believes for 10 s that the killed one is there."""
    first = started.start()
    started.until(first, "ready")
    started.processes[first].send_signal(signal.SIGKILL)
    started.processes[first].wait()
    begin = time.monotonic()
    second = started.start()
    started.until(second, "ready")
    assert time.monotonic() - begin < 10


def test_of_two_that_start_at_once_one_remains(started: Started) -> None:
    both = [started.start(), started.start()]
    deadline = time.monotonic() + 60
    while all(started.processes[number].poll() is None for number in both):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(2.0)
    codes = [started.processes[number].poll() for number in both]
    assert sorted(codes, key=str) == [2, None]


def test_a_second_graph_in_a_domain_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: Started
) -> None:
    """As `./genima demo` twice in one ROS_DOMAIN_ID: the second used to wait for minutes."""
    from genima.errors import GenimaError
    from genima_bringup.node_specs import TASK_RUNNER

    started.until(started.start(), "ready")
    monkeypatch.setenv("ROS_DOMAIN_ID", started._environment["ROS_DOMAIN_ID"])
    with Supervisor([TASK_RUNNER], tmp_path / "logs", ros_environment()) as supervisor:
        deadline = time.monotonic() + 60
        with pytest.raises(GenimaError, match="task_runner ended with code 2: .*runs already on"):
            while time.monotonic() < deadline:
                supervisor.check()
                time.sleep(0.1)


@pytest.mark.parametrize(
    "text", ["", "a b c", "1", "1 2", "1 2 ", "-1 2 h", "\u0663 2 h", f"{'9' * 30} 2 h", "1.0 2 h"]
)
def test_announcements_that_are_none_are_ignored(text: str) -> None:
    assert Instance.parse(text) is None


def test_an_announcement_comes_back() -> None:
    assert Instance.parse(str(OWN)) == OWN
    assert Instance(1, "b", 9) < Instance(2, "a", 1)


@pytest.mark.any_pace
def test_a_domain_that_a_process_is_in_is_not_free(graph: Graph) -> None:
    """Whether or not its environment names it."""
    domain = graph.probe.context.get_domain_id()
    graph.until(lambda: domain not in free_domains(), "it is free")
    assert len(free_domains()) > 50
