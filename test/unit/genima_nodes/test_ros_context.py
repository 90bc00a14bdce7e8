"""Joining ROS: what ROS refuses, or would replace by something open to the network, is one line."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from domains import free_domain

from genima.doctor import ros
from genima.errors import GenimaError
from genima.io import paths
from genima_nodes.ros import ros_context, ros_environment

LOCAL = str(paths.shared("config", "dds", "shared_memory.xml"))
OPEN = str(paths.shared("config", "dds", "two_machines.xml"))
CALL = ["-m", "genima_cli", "call", "stop", "--patience", "0.2"]
NODE = ["-m", "genima_nodes.clock_watch"]


def clean_environment(**changes: str | None) -> dict[str, str]:
    """This environment without what tests before this one chose; None removes a variable."""
    drop = {name for name in os.environ if name.startswith(("ROS_", "RMW_", "FAST", "RCUTILS_"))}
    given = {name: value for name, value in os.environ.items() if name not in drop}
    given["ROS_DOMAIN_ID"] = str(free_domain())
    return {name: value for name, value in (given | changes).items() if value is not None}


def run(words: list[str], wrapper: tuple[str, ...] = (), **changes: str | None) -> tuple[int, list[str]]:
    """Exit code and lines on standard error; a node that comes up is ended."""
    command = [*wrapper, sys.executable, "-P", *words]
    with subprocess.Popen(command, env=clean_environment(**changes), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line.rstrip("\n"))
            if line.rstrip().endswith("]: ready"):
                process.send_signal(signal.SIGTERM)
        return process.wait(60), lines


WRONG = [
    ("ROS_DOMAIN_ID", "abc", "'abc' is no number"),
    ("ROS_DOMAIN_ID", "300", "300 does not exist"),
    ("ROS_DOMAIN_ID", "-1", "'-1' is no number"),
    ("ROS_DOMAIN_ID", "5x", "'5x' is no number"),
    ("ROS_DOMAIN_ID", "\u0663", "is no number"),
    ("ROS_DOMAIN_ID", "9" * 40, "does not exist"),
    (ros.PROFILE, "/nowhere.xml", "No such file"),
    (ros.PROFILE, "/tmp", "Is a directory"),
    ("FASTDDS_DEFAULT_PROFILES_FILE", "/nowhere.xml", "No such file"),
    ("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp", "does not have"),
    ("ROS_DISCOVERY_SERVER", ";;", "not a list of servers"),
    ("ROS_DISCOVERY_SERVER", "a b", "not a list of servers"),
    ("RCUTILS_COLORIZED_OUTPUT", "yes", "neither 0 nor 1"),
    ("RCUTILS_LOGGING_USE_STDOUT", "abc", "neither 0 nor 1"),
    ("RCUTILS_LOGGING_BUFFERED_STREAM", "2", "neither 0 nor 1"),
    ("ROS_AUTOMATIC_DISCOVERY_RANGE", "everywhere", "unknown ('everywhere"),
    ("ROS_SECURITY_ENABLE", "true", "without its security plugins"),
]


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_what_ros_would_refuse_or_ignore_is_refused(name: str, value: str, words: str) -> None:
    with pytest.raises(GenimaError) as error:
        ros.require_valid_environment({name: value}, wheels=True)
    assert words in str(error.value) and str(error.value).isprintable()


def test_security_that_is_asked_for_is_enforced_or_refused(tmp_path: Path) -> None:
    """An installed ROS without a keystore would go on unprotected."""
    asked = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_KEYSTORE": str(tmp_path / "keystore")}
    with pytest.raises(GenimaError, match="is no keystore"):
        ros.require_valid_environment(asked, wheels=False)
    (tmp_path / "keystore" / "enclaves").mkdir(parents=True)
    ros.require_valid_environment(asked, wheels=False)
    assert any("join unprotected" in finding.found for finding in ros.check_variables(asked, wheels=False, robot=True))


@pytest.mark.parametrize("text", ["not xml <", "<a/>", "", "<profiles"])
def test_a_broken_profile_does_not_open_the_network(tmp_path: Path, text: str) -> None:
    """Fast DDS would print a line and take its default, which listens on all addresses."""
    file = tmp_path / "profile.xml"
    file.write_text(text)
    with pytest.raises(GenimaError, match=ros.PROFILE):
        ros.require_valid_environment({ros.PROFILE: str(file)}, wheels=True)


def test_a_local_profile_and_a_discovery_server_do_not_go_together() -> None:
    environment = {ros.PROFILE: LOCAL, "ROS_DISCOVERY_SERVER": "10.0.0.1:11811"}
    with pytest.raises(GenimaError, match="cannot reach a discovery server"):
        ros.require_valid_environment(environment, wheels=True)
    ros.require_valid_environment(environment | {ros.PROFILE: OPEN}, wheels=True)


@pytest.mark.parametrize("words", [CALL, NODE], ids=["command", "node"])
@pytest.mark.parametrize(
    "changes",
    [
        {"ROS_DOMAIN_ID": "abc"},
        {"ROS_DOMAIN_ID": "300"},
        {ros.PROFILE: "/nowhere.xml"},
        {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"},
        {"RCUTILS_COLORIZED_OUTPUT": "yes"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_processes_end_with_one_line(words: list[str], changes: dict[str, str]) -> None:
    code, lines = run(words, **changes)
    (line,) = (line for line in lines if line)
    assert code and next(iter(changes)) in line or "RMW implementation" in line


@pytest.mark.parametrize("changes", [{"HOME": None}, {"HOME": "/proc/nobody"}, {"ROS_LOG_DIR": "/proc/nowhere"}])
def test_where_no_log_can_be_written_the_arm_can_still_be_stopped(changes: dict[str, str | None]) -> None:
    code, (line,) = run(CALL, **changes)
    assert code == 2 and "nobody serves /command_guard/stop" in line
    code, lines = run(NODE, **changes)
    assert code == 0 and "ROS cannot write its log file" in lines[0] and "ready" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "allowed:="], "Couldn't parse parameter"),
        (["-p", "allowed:=fast"], "the parameter allowed is fast"),
        (["-r", "__ns:=/left-arm"], "left-arm"),
        (["--params-file", "nowhere.yaml"], "nowhere.yaml"),
        (["--unknown"], "--unknown"),
        (["--log-level", "loud"], "loud"),
    ],
)
def test_arguments_that_ros_refuses_are_one_line(arguments: list[str], words: str) -> None:
    code, (*own, line) = run([*NODE, "--ros-args", *arguments])  # ROS itself logs before
    assert code == 2 and len(own) < 3 and line.startswith("genima: error: ")
    assert words in line and "/project/" not in line


def test_arguments_that_ros_ignores_are_one_line() -> None:
    code, lines = run([*NODE, "allowed:=0.1"])
    assert code == 2 and lines[-1].startswith("genima: error: unknown arguments (allowed:=0.1); ")


def test_a_misspelt_parameter_is_told() -> None:
    code, lines = run([*NODE, "--ros-args", "-p", "alowed:=0.1"])
    assert code == 0 and any("parameters: unknown (alowed); not used" in line for line in lines)


@pytest.mark.parametrize("namespace", ["left-arm", "/left//arm", "1"])
def test_a_namespace_that_ros_refuses(namespace: str) -> None:
    code, lines = run([*CALL, "--namespace", namespace])
    assert code == 2 and "ROS does not allow the name" in lines[-1] and len(lines) == 1


@pytest.mark.parametrize("options", ["size=1m", "ro"])
def test_shared_memory_that_is_full_or_read_only(options: str) -> None:
    script = f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$@"'
    wrapper = ("unshare", "-m", "sh", "-c", script, "sh")
    if (
        os.geteuid()
        or shutil.which("unshare") is None
        or subprocess.run([*wrapper, "true"], capture_output=True).returncode
    ):
        pytest.skip("only root mounts")
    for words in (CALL, NODE):
        code, (line,) = run(words, wrapper)
        assert code == 2 and line.startswith("genima: error: cannot join ROS: shared memory /dev/shm"), line


# -------------------------------------------------------------------------------------------------- who can reach it


@pytest.mark.parametrize(
    ("environment", "opened"),
    [
        ({}, f"no {ros.PROFILE}"),
        ({ros.PROFILE: LOCAL}, ""),
        ({ros.PROFILE: OPEN}, OPEN),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "SHM"}, ""),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}, "LARGE_DATA"),
        ({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, "rmw_cyclonedds_cpp"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, ""),
        ({ros.PROFILE: OPEN, "ROS_SECURITY_ENABLE": "true"}, OPEN),
        ({ros.PROFILE: OPEN, "ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce"}, ""),
    ],
)
def test_what_opens_a_process_to_the_network(environment: dict[str, str], opened: str) -> None:
    found = ros.open_variable(environment)
    assert found.endswith(opened) and bool(found) == bool(opened)


def test_a_node_that_is_started_by_hand_is_local_and_says_so() -> None:
    code, lines = run(NODE)
    assert code == 0 and any(f"reachable from this machine alone ({ros.PROFILE}={LOCAL})" in line for line in lines)
    assert not any("WARN" in line for line in lines)


@pytest.mark.parametrize("changes", [{ros.PROFILE: OPEN}, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}])
def test_opening_a_node_is_a_choice_that_is_logged(changes: dict[str, str]) -> None:
    _, lines = run(NODE, **changes)
    (line,) = (line for line in lines if "WARN" in line)
    assert "open to the network" in line and "UDP ports" in line and "command_guard/resume" in line


def test_a_profile_in_the_current_folder_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "DEFAULT_FASTRTPS_PROFILES.xml").write_text("<nonsense")
    monkeypatch.chdir(tmp_path)
    code, lines = run(NODE)
    assert code == 0 and not any("nonsense" in line or "XMLPARSER" in line for line in lines)


def test_other_users_cannot_read_the_shared_memory_of_a_node() -> None:
    """Fast DDS makes it with 0644, whatever the umask: camera images for every user of the machine."""
    script = (
        "import os, re, sys, rclpy\n"
        "from genima_nodes.ros.ros_context import create, ros_context\n"
        "with ros_context():\n"
        "    node = create(lambda: rclpy.create_node('x'))\n"
        "    found = set(re.findall(r'/dev/shm/fast\\w+', open('/proc/self/maps').read()))\n"
        "    print(*(f'{name}:{os.stat(name).st_mode:o}' for name in found))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], env=clean_environment(), capture_output=True, text=True, check=True
    )
    segments = dict(word.split(":") for word in process.stdout.split())
    assert segments
    assert all(stat.S_IMODE(int(mode, 8)) == 0o600 for mode in segments.values())


def test_own_graphs_do_not_look_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ROS_DISCOVERY_SERVER", "10.0.0.1:11811")
    monkeypatch.setenv(ros.PROFILE, OPEN)
    environment = ros_environment.ros_environment()
    assert environment[ros.PROFILE] == LOCAL and "ROS_DISCOVERY_SERVER" not in os.environ
    assert "ROS_DISCOVERY_SERVER is not used" in capsys.readouterr().err


@pytest.mark.parametrize("dds", ["nope", "../rviz/calibrate", "", "shared_memory.xml"])
def test_a_dds_profile_that_does_not_exist(monkeypatch: pytest.MonkeyPatch, dds: str) -> None:
    monkeypatch.delenv(ros.PROFILE, raising=False)
    with pytest.raises(GenimaError, match="use shared_memory or two_machines"):
        ros_environment.joining_environment(dds)


def test_an_empty_domain_is_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "")
    assert ros_environment.joining_environment()["ROS_DOMAIN_ID"] == "0"


def test_the_environment_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ros.PROFILE, *ros_context._CHOICES, "RMW_IMPLEMENTATION", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.delenv(name, raising=False)
    ros_context.prepare_environment()
    assert os.environ[ros.PROFILE] == LOCAL
    monkeypatch.setenv(ros.PROFILE, OPEN)
    ros_context.prepare_environment()
    assert os.environ[ros.PROFILE] == OPEN


def test_ros_is_joined_in_one_place() -> None:
    source = Path(__file__).resolve().parents[3] / "src"
    found = {file.name for file in source.rglob("*.py") if "rclpy.init(" in file.read_text("utf-8")}
    assert found == {"ros_context.py"}
