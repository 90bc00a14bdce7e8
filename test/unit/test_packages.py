"""The workspace as colcon and rosdep see it."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
PACKAGES = ("genima", "genima_bringup", "genima_nodes", "genima_sim")
ROS = re.compile(r"genima\w*|rclpy|builtin_interfaces|\w+_(msgs|srvs)")


def imported(package: str) -> set[str]:
    """ROS packages, ours included, that a package imports anywhere."""
    modules = set()
    for file in (SOURCE / package / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module)
    tops = {module.split(".")[0] for module in modules}
    return {top for top in tops if ROS.fullmatch(top)} - {package}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_declares_the_ros_packages_that_it_imports(package: str) -> None:
    root = ET.parse(SOURCE / package / "package.xml").getroot()
    declared = {element.text for element in root.iter("exec_depend")}
    assert imported(package) <= declared
    assert package == "genima" or imported(package), "the scan finds nothing"


@pytest.mark.parametrize("package", PACKAGES)
def test_installed_nodes_run_on_the_python_of_the_environment(package: str) -> None:
    assert "executable=/usr/bin/env python3" in (SOURCE / package / "setup.cfg").read_text()


def test_all_packages_have_one_version() -> None:
    from genima import __version__

    for package in (*PACKAGES, "genima_interfaces"):
        assert ET.parse(SOURCE / package / "package.xml").getroot().findtext("version") == __version__, package
    for package in PACKAGES:
        assert f'version="{__version__}"' in (SOURCE / package / "setup.py").read_text(encoding="utf-8"), package
