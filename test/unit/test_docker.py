"""Container files, checked without building them."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import pytest
import yaml
from launch_arguments import RECORDED, declared

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
LINES = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
TARGETS = {name for _, name in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)}


def test_stages_build_on_each_other() -> None:
    known = {"ros:jazzy-ros-base"}
    for parent, name in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE):
        assert parent in known
        known.add(name)
    assert {"robot", "gpu"} <= known


def test_copied_files_exist() -> None:
    copied = [line.split()[1] for line in LINES if line.startswith("COPY ")]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source


def test_instructions_are_valid() -> None:
    """A line without its continuation backslash would not be an instruction."""
    known = {"FROM", "SHELL", "ENV", "RUN", "ARG", "WORKDIR", "COPY", "ENTRYPOINT", "CMD"}
    assert {line.split()[0] for line in LINES if line.strip()} == known


def test_driver_versions_match_records() -> None:
    versions = dict(re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE, re.MULTILINE))
    assert versions["FRANKA_ROS2"] == f"v{RECORDED['franka_bringup']['version']}"
    assert versions["REALSENSE"] == RECORDED["realsense2_camera"]["version"]
    assert versions["ROBOTIQ"] == RECORDED["robotiq_description"]["commit"]


def test_system_packages_match_set_up() -> None:
    """The packages that ./genima would install in a later layer."""
    packages = set(re.findall(r"\|\| echo (lib[\w.-]+|cmake|g\+\+|make)$", (ROOT / "genima").read_text(), re.MULTILINE))
    assert len(packages) > 5
    for package in packages:
        assert re.search(rf"\s{re.escape(package)}\s", DOCKERFILE), package


def test_entry_point_is_executable() -> None:
    assert os.stat(ROOT / "docker" / "entrypoint.sh").st_mode & stat.S_IXUSR
    lines = (ROOT / "docker" / "entrypoint.sh").read_text().splitlines()
    sourced = [line.split()[-1] for line in lines if "source " in line]
    (environment,) = (i for i, file in enumerate(sourced) if ".venv" in file)
    assert environment < sourced.index("/opt/genima/install/setup.bash"), "the environment hides the interfaces"


def test_user_variables_are_documented_with_defaults() -> None:
    """No variable is required: compose would ask for it even if only the other service is built."""
    documented = (ROOT / "docker" / "compose.yaml").read_text().partition("x-common")[0]
    commands = {name: service["command"] for name, service in COMPOSE["services"].items()}
    for name in re.findall(r"\$\{(\w+)", " ".join(commands.values())):
        assert f"{name}=" in documented
    assert all(command.count("${") == command.count(":-") for command in commands.values())
    assert all("cell:=${CELL:-" in command for command in commands.values())  # the policy is checked against it


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_service_is_complete(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["build"]["target"] in TARGETS
    assert (ROOT / "docker" / service["build"]["context"] / service["build"]["dockerfile"]).resolve().exists()
    assert service["network_mode"] == service["ipc"] == "host"
    assert service["ulimits"]["rtprio"] == 99 and service["ulimits"]["memlock"] == -1
    passed = set(re.findall(r"(\w+):=", service["command"]))
    assert passed <= declared(ROOT / "launch" / "real_robot.launch.py")
    for volume in service["volumes"]:
        source = volume.split(":")[0]
        assert source.startswith("/") or source in ("../runs", "../data") or (ROOT / "docker" / source).exists()


def test_dev_container_uses_robot_image() -> None:
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text()
    data = json.loads(re.sub(r"^//.*$", "", text, flags=re.MULTILINE))
    assert data["build"]["target"] in TARGETS
    assert data["postCreateCommand"].startswith("bash -c "), "/bin/sh has no source command"
    assert (ROOT / ".devcontainer" / data["build"]["dockerfile"]).resolve().exists()
