"""Packages for colcon and rosdep."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from imports import PACKAGES, SOURCE, imported, modules

ROOT = SOURCE.parent
KEYS = {"cv2": "opencv", "OpenGL": "opengl", "PIL": "pil", "coppeliasim_zmqremoteapi_client": "coppeliasim"}
"""Names in rosdep keys that differ from the module: ``python3-opengl`` for ``OpenGL``."""
NOT_REQUIRED = {"rlbench"}  # installed by hand, docs/coppeliasim.md


def third_party(package: str) -> set[str]:
    """Return the third-party modules that a package imports."""
    names = {name.split(".")[0] for file in modules(package).values() for name, _ in imported(file)}
    return names - set(sys.stdlib_module_names) - {package} - NOT_REQUIRED


def declared(package: str) -> set[str]:
    root = ET.parse(SOURCE / package / "package.xml").getroot()
    return {str(element.text) for element in root.iter("exec_depend")}


def names_of(module: str) -> set[str]:
    """Return the names that a dependency on a module may have in package.xml."""
    key = KEYS.get(module, module.replace("_", "-"))
    return {module, f"python3-{key}", f"python3-{key}-pip", f"genima-{key}-pip"}


@pytest.mark.parametrize("package", PACKAGES)
def test_package_declares_its_imports(package: str) -> None:
    missing = {module for module in third_party(package) if not names_of(module) & declared(package)}
    assert not missing
    assert third_party(package), "no third-party imports found"


@pytest.mark.parametrize("package", PACKAGES)
def test_package_declares_only_its_imports(package: str) -> None:
    allowed = set().union(*map(names_of, third_party(package)))
    started = {"genima_cli": {"genima_calibration"}, "genima_bringup": {"ros2launch"}, "genima": {"genima-daqp-pip"}}
    assert declared(package) <= allowed | started.get(package, set())


def test_own_rosdep_keys_match_requirements() -> None:
    defined = yaml.safe_load((ROOT / "rosdep.yaml").read_text(encoding="utf-8"))
    used = {key for package in PACKAGES for key in declared(package) if key.startswith("genima-")}
    assert set(defined) == used
    lines = (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()
    requirements = {re.split(r"[=<>]", line)[0]: line.split("#")[0].strip() for line in lines}
    for key, systems in defined.items():
        (requirement,) = systems["*"]["pip"]["packages"]
        name = re.split(r"[=<>]", requirement)[0]
        assert name not in requirements or requirements[name].split("==")[0] == requirement.split("==")[0], key


@pytest.mark.parametrize("package", PACKAGES)
def test_installed_nodes_use_python_of_environment(package: str) -> None:
    assert "executable=/usr/bin/env python3" in (SOURCE / package / "setup.cfg").read_text(encoding="utf-8")


def test_all_packages_have_one_version() -> None:
    from genima import __version__

    for package in (*PACKAGES, "genima_interfaces"):
        assert ET.parse(SOURCE / package / "package.xml").getroot().findtext("version") == __version__, package
    for package in PACKAGES:
        assert f'version="{__version__}"' in (SOURCE / package / "setup.py").read_text(encoding="utf-8"), package


def test_all_packages_are_installed_and_checked() -> None:
    entry = (ROOT / "genima").read_text(encoding="utf-8")
    assert f"PACKAGES=({' '.join(PACKAGES)})" in entry
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for package in PACKAGES:
        assert f'"src/{package}/{package}"' in settings and f'"src/{package}"' in settings
        assert Path(SOURCE / package / "resource" / package).is_file()
