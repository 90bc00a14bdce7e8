"""ROS context: invalid environments and arguments are one-line errors; nodes are local unless opened."""

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
    """Return this environment without ROS variables of other tests; None removes a variable."""
    drop = {name for name in os.environ if name.startswith(("ROS_", "RMW_", "FAST", "RCUTILS_"))}
    given = {name: value for name, value in os.environ.items() if name not in drop}
    given["ROS_DOMAIN_ID"] = str(free_domain())
    return {name: value for name, value in (given | changes).items() if value is not None}


def run(arguments: list[str], wrapper: tuple[str, ...] = (), **changes: str | None) -> tuple[int, list[str]]:
    """Run a process; return its exit code and lines on standard error. A node is ended when it is ready."""
    command = [*wrapper, sys.executable, "-P", *arguments]
    with subprocess.Popen(command, env=clean_environment(**changes), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line.rstrip("\n"))
            if line.rstrip().endswith("]: ready"):
                process.send_signal(signal.SIGTERM)
        return process.wait(60), lines


WRONG = [
    ("ROS_DOMAIN_ID", "abc", "not a number ('abc')"),
    ("ROS_DOMAIN_ID", "300", "300 does not exist"),
    ("ROS_DOMAIN_ID", "-1", "not a number ('-1')"),
    ("ROS_DOMAIN_ID", "5x", "not a number ('5x')"),
    ("ROS_DOMAIN_ID", "\u0663", "not a number"),
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


@pytest.mark.parametrize(("name", "value", "expected"), WRONG)
def test_invalid_environment_is_rejected(name: str, value: str, expected: str) -> None:
    with pytest.raises(GenimaError) as error:
        ros.require_valid_environment({name: value}, wheels=True)
    assert expected in str(error.value) and str(error.value).isprintable()


def test_requested_security_needs_keystore(tmp_path: Path) -> None:
    """An installed ROS without a keystore would run unprotected."""
    asked = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_KEYSTORE": str(tmp_path / "keystore")}
    with pytest.raises(GenimaError, match="is no keystore"):
        ros.require_valid_environment(asked, wheels=False)
    (tmp_path / "keystore" / "enclaves").mkdir(parents=True)
    ros.require_valid_environment(asked, wheels=False)
    assert any("join unprotected" in finding.found for finding in ros.check_variables(asked, wheels=False, robot=True))


@pytest.mark.parametrize("text", ["not xml <", "<a/>", "", "<profiles"])
def test_malformed_profile_is_rejected(tmp_path: Path, text: str) -> None:
    """Fast DDS would print a line and use its default, which listens on all addresses."""
    file = tmp_path / "profile.xml"
    file.write_text(text)
    with pytest.raises(GenimaError, match=ros.PROFILE):
        ros.require_valid_environment({ros.PROFILE: str(file)}, wheels=True)


def test_local_profile_with_discovery_server_is_rejected() -> None:
    environment = {ros.PROFILE: LOCAL, "ROS_DISCOVERY_SERVER": "10.0.0.1:11811"}
    with pytest.raises(GenimaError, match="cannot reach a discovery server"):
        ros.require_valid_environment(environment, wheels=True)
    ros.require_valid_environment(environment | {ros.PROFILE: OPEN}, wheels=True)


@pytest.mark.parametrize("arguments", [CALL, NODE], ids=["command", "node"])
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
def test_process_with_invalid_environment_ends_with_one_line(arguments: list[str], changes: dict[str, str]) -> None:
    code, lines = run(arguments, **changes)
    (line,) = (line for line in lines if line)
    assert code and next(iter(changes)) in line or "RMW implementation" in line


@pytest.mark.parametrize("changes", [{"HOME": None}, {"HOME": "/proc/nobody"}, {"ROS_LOG_DIR": "/proc/nowhere"}])
def test_unwritable_log_folder_is_a_warning(changes: dict[str, str | None]) -> None:
    code, (line,) = run(CALL, **changes)
    assert code == 2 and "service /command_guard/stop: not available" in line
    code, lines = run(NODE, **changes)
    assert code == 0 and "ROS log folder" in lines[0] and "ready" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-p", "allowed:="], "Couldn't parse parameter"),
        (["-p", "allowed:=fast"], "parameter allowed is fast"),
        (["-r", "__ns:=/left-arm"], "left-arm"),
        (["--params-file", "nowhere.yaml"], "nowhere.yaml"),
        (["--unknown"], "--unknown"),
        (["--log-level", "loud"], "loud"),
    ],
)
def test_arguments_rejected_by_ros_are_one_line(arguments: list[str], expected: str) -> None:
    code, (*own, line) = run([*NODE, "--ros-args", *arguments])  # ROS itself logs before
    assert code == 2 and len(own) < 3 and line.startswith("genima: error: ")
    assert expected in line and "/project/" not in line


def test_arguments_ignored_by_ros_are_one_line() -> None:
    code, lines = run([*NODE, "allowed:=0.1"])
    assert code == 2 and lines[-1].startswith("genima: error: arguments: unknown (allowed:=0.1); ")


def test_misspelt_parameter_is_a_warning() -> None:
    code, lines = run([*NODE, "--ros-args", "-p", "alowed:=0.1"])
    assert code == 0 and any("parameters: unknown (alowed); not used" in line for line in lines)


@pytest.mark.parametrize("namespace", ["left-arm", "/left//arm", "1"])
def test_invalid_namespace_is_one_line(namespace: str) -> None:
    code, lines = run([*CALL, "--namespace", namespace])
    assert code == 2 and "ROS does not allow the name" in lines[-1] and len(lines) == 1


@pytest.mark.parametrize("options", ["size=1m", "ro"])
def test_unusable_shared_memory_is_one_line(options: str) -> None:
    script = f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$@"'
    wrapper = ("unshare", "-m", "sh", "-c", script, "sh")
    if (
        os.geteuid()
        or shutil.which("unshare") is None
        or subprocess.run([*wrapper, "true"], capture_output=True).returncode
    ):
        pytest.skip("only root mounts")
    for arguments in (CALL, NODE):
        code, (line,) = run(arguments, wrapper)
        assert code == 2 and line.startswith("genima: error: ROS: cannot start (shared memory /dev/shm"), line


# ------------------------------------------------------------------------------------------------------ reachability


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
def test_open_variable_names_what_opens_network(environment: dict[str, str], opened: str) -> None:
    found = ros.open_variable(environment)
    assert found.endswith(opened) and bool(found) == bool(opened)


def test_node_is_local_by_default_and_logs_it() -> None:
    code, lines = run(NODE)
    assert code == 0 and any(f"transport: this machine alone ({ros.PROFILE}={LOCAL})" in line for line in lines)
    assert not any("WARN" in line for line in lines)


@pytest.mark.parametrize("changes", [{ros.PROFILE: OPEN}, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}])
def test_node_open_to_network_logs_warning(changes: dict[str, str]) -> None:
    _, lines = run(NODE, **changes)
    (line,) = (line for line in lines if "WARN" in line)
    assert "open to the network" in line and "UDP ports" in line and "command_guard/resume" in line


def test_profile_in_current_folder_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "DEFAULT_FASTRTPS_PROFILES.xml").write_text("<nonsense")
    monkeypatch.chdir(tmp_path)
    code, lines = run(NODE)
    assert code == 0 and not any("nonsense" in line or "XMLPARSER" in line for line in lines)


def test_shared_memory_is_private() -> None:
    """Fast DDS creates it with 0644 and ignores the umask: every user of the machine could read the images."""
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


def test_own_graph_ignores_discovery_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROS_DISCOVERY_SERVER", "10.0.0.1:11811")
    monkeypatch.setenv(ros.PROFILE, OPEN)
    environment = ros_environment.ros_environment()
    assert environment[ros.PROFILE] == LOCAL and "ROS_DISCOVERY_SERVER" not in os.environ
    assert "ROS_DISCOVERY_SERVER: ignored" in capsys.readouterr().err


@pytest.mark.parametrize("dds", ["nope", "../rviz/calibrate", "", "shared_memory.xml"])
def test_unknown_dds_profile_is_rejected(monkeypatch: pytest.MonkeyPatch, dds: str) -> None:
    monkeypatch.delenv(ros.PROFILE, raising=False)
    with pytest.raises(GenimaError, match="use shared_memory or two_machines"):
        ros_environment.joining_environment(dds)


def test_empty_domain_is_domain_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "")
    assert ros_environment.joining_environment()["ROS_DOMAIN_ID"] == "0"


def test_prepare_environment_keeps_chosen_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ros.PROFILE, *ros_context._TRANSPORT_VARIABLES, "RMW_IMPLEMENTATION", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.delenv(name, raising=False)
    ros_context.prepare_environment()
    assert os.environ[ros.PROFILE] == LOCAL
    monkeypatch.setenv(ros.PROFILE, OPEN)
    ros_context.prepare_environment()
    assert os.environ[ros.PROFILE] == OPEN


def test_rclpy_is_initialised_in_one_module() -> None:
    source = Path(__file__).resolve().parents[3] / "src"
    found = {file.name for file in source.rglob("*.py") if "rclpy.init(" in file.read_text("utf-8")}
    assert found == {"ros_context.py"}
