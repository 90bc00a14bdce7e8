"""Checks of Python, its packages, ROS 2 and off-screen rendering."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata, util
from pathlib import Path

from genima.doctor.findings import Finding, fail, ok, skipped, warn
from genima.errors import GenimaError
from genima.io import paths

_PYTHONS = (3, 11), (3, 14)  # first supported version, first unsupported one
_WHEELS = "ros-rclpy"
_SETUP = "./genima setup"
_RENDER = """
import mujoco
from OpenGL import GL
renderer = mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8)
renderer.render()
print("renderer:", GL.glGetString(GL.GL_RENDERER).decode())
renderer.close()
"""
_SOFTWARE = ("llvmpipe", "softpipe", "swrast")


def installed_version(package: str) -> str | None:
    """Return the version of an installed Python package; None where it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def has_wheels() -> bool:
    """Return whether ROS 2 is installed from Python wheels."""
    return installed_version(_WHEELS) is not None


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Check that the packages support this Python version."""
    found = ".".join(map(str, version))
    if _PYTHONS[0] <= version < _PYTHONS[1]:
        return ok("Python", found)
    return fail("Python", f"{found}; 3.11 to 3.13 are known to work", f"install one of these, then {_SETUP}")


def check_packages(lock: Path | None = None, version: Callable[[str], str | None] = installed_version) -> Finding:
    """Check that installed packages match the lock file.

    Args:
        lock: requirements.lock; the project's if None.
        version: returns the version of an installed package.
    """
    what = "packages"
    try:
        text = (lock or paths.shared("requirements.lock")).read_text(encoding="utf-8")
    except (GenimaError, OSError):
        return skipped(what, "requirements.lock is not here: not run from the source tree")
    wanted, section = {}, ""
    for line in text.splitlines():
        if line.startswith("# ["):
            section = line[2:].split("]")[0] + "]"
        elif "==" in line and not line.startswith("#") and (section != "[ros]" or version(_WHEELS)):
            name, _, pin = line.strip().partition("==")
            wanted[name] = pin
    installed = {name: version(name) for name in wanted}
    missing = [name for name, found in installed.items() if found is None]
    other = [f"{name} {found} for {wanted[name]}" for name, found in installed.items() if _differs(found, wanted[name])]
    if missing:
        return fail(what, f"{_shorten_list(missing)} not installed, of {len(wanted)}", _SETUP)
    if other:
        return warn(what, f"other versions than were tested: {_shorten_list(other)}", f"{_SETUP}, unless intended")
    return ok(what, f"all {len(wanted)} as locked")


def _differs(found: str | None, pin: str) -> bool:
    return found is not None and found.partition("+")[0] != pin  # builds of torch: 2.13.0+cpu


def _shorten_list(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def check_ros(distribution: str) -> Iterator[Finding]:
    """Check that ROS 2 and genima_interfaces are installed.

    Args:
        distribution: the variable ROS_DISTRO.
    """
    if has_wheels():
        yield ok("ROS 2", f"rclpy {installed_version(_WHEELS)} from wheels")
    elif util.find_spec("rclpy"):
        yield ok("ROS 2", f"{distribution or 'unknown'}, installed and sourced")
    else:
        yield fail("ROS 2", "there is no rclpy", f"source /opt/ros/jazzy/setup.bash if you have it, then {_SETUP}")
    if util.find_spec("genima_interfaces"):
        yield ok("Genima's messages", "built")
    else:
        yield fail("Genima's messages", "genima_interfaces is not built", f"{_SETUP}, or colcon build")


def check_rendering(command: tuple[str, ...] = (sys.executable, "-P", "-c", _RENDER)) -> Finding:
    """Check off-screen rendering, in a separate process because drivers may crash."""
    what, remedy = "rendering (EGL)", "sudo apt install libegl1 libopengl0 libgl1-mesa-dri, or NVIDIA's driver"
    try:
        process = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=60)
    except subprocess.TimeoutExpired:
        return fail(what, "it hangs", remedy)
    names = [line for line in process.stdout.splitlines() if line.startswith("renderer:")]
    if process.returncode or not names:
        last = (process.stderr.strip().splitlines() or [f"ended with code {process.returncode}"])[-1]
        return fail(what, f"rendering failed: {last}", remedy)
    name = names[0].removeprefix("renderer:").strip()
    return ok(what, f"{name}{', on the CPU' if any(each in name for each in _SOFTWARE) else ''}")
