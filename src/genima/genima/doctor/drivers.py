"""Driver checks of arm, gripper and cameras."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from genima.doctor.findings import Finding, fail, ok, skipped, warn
from genima.errors import GenimaError

OURS, ELSEWHERE = "franka_arm", "multipanda"
FRANKA_ROS2 = {  # packages of each controller, in addition to franka_ros2's own
    "crisp": ("crisp_controllers",),
    "gello": ("franka_fr3_arm_controllers",),
    "jtc": ("joint_trajectory_controller",),
}
_FRANKA = (
    *("franka_bringup", "franka_hardware", "franka_description", "franka_msgs", "franka_robot_state_broadcaster"),
    *("controller_manager", "controller_manager_msgs", "joint_state_broadcaster"),
)
_GRIPPERS = {
    "franka_hand": ("franka_gripper", "franka_msgs"),
    "robotiq_2f140": ("robotiq_driver", "robotiq_description", "controller_manager", "xacro"),
}
_CAMERAS, OUR_CAMERAS = "realsense2_camera", "realsense_camera"
_USED = ("Robot", "Gripper", "AsyncPositionControlHandler", "RealtimeConfig", "FrankaException")  # of pylibfranka
_OURS_INSTEAD = "or use our own drivers, which need no ROS package of the robot's: a cell such as fr3_own_driver"


def check_drivers(
    backend: str,
    gripper: str,
    cameras: str,
    com_port: Path,
    load: Callable[[str], Any],
    tested: str,
    prefixes: Sequence[Path] | None = None,
) -> Iterator[Finding]:
    """Check the drivers of arm, gripper and cameras.

    Args:
        backend: of the arm: a name in config/backends, or franka_arm, our own driver.
        gripper: model of the robot's gripper.
        cameras: their driver: realsense2_camera, or realsense_camera, our own; empty: not on this machine.
        com_port: of a Robotiq's adapter.
        load: imports a driver's library, or raises a GenimaError with the installation as remedy.
        tested: the version of pylibfranka that franka_arm is written for.
        prefixes: of installed ROS packages; those of the shell's environment if None.
    """
    where = prefixes if prefixes is not None else ros_prefixes()
    if backend == OURS:
        yield (arm := check_libfranka(load, tested))
        if gripper == "franka_hand":
            yield arm._replace(what="gripper's driver (franka_hand)")
    elif backend == ELSEWHERE:
        yield skipped("arm's driver", "multipanda_ros2 runs with ROS 2 Humble, on a machine of its own")
    elif backend not in FRANKA_ROS2:
        yield skipped("arm's driver", f"unknown controller {backend}")
    else:
        yield check_packages(f"arm's driver ({backend})", (*_FRANKA, *FRANKA_ROS2[backend]), where, _OURS_INSTEAD)
    if backend == OURS and gripper == "franka_hand":
        pass  # the same library
    elif gripper in _GRIPPERS:
        yield check_packages(f"gripper's driver ({gripper})", _GRIPPERS[gripper], where, "")
        if gripper.startswith("robotiq"):
            yield check_serial_port(com_port)
    else:
        yield skipped("gripper's driver", f"unknown gripper {gripper}")
    if cameras:
        yield check_camera_driver(cameras, load, where)


def check_camera_driver(driver: str, load: Callable[[str], Any], prefixes: Sequence[Path] | None = None) -> Finding:
    """Check the driver of the cameras; the arguments as of :func:`check_drivers`."""
    if driver == OUR_CAMERAS:
        return check_library("cameras' driver", "pyrealsense2", load)
    where = prefixes if prefixes is not None else ros_prefixes()
    otherwise = f"or name our own in the cell: cameras: {OUR_CAMERAS}"
    return check_packages("cameras' driver", (_CAMERAS,), where, otherwise)


def check_libfranka(load: Callable[[str], Any], tested: str) -> Finding:
    """Check that pylibfranka is installed in the version that our driver is written for."""
    what = "arm's driver (franka_arm)"
    try:
        module = load("pylibfranka")
    except GenimaError as error:
        return fail(what, *_split(f"{error}{_python_remedy()}"))
    if missing := [name for name in _USED if not hasattr(module, name)]:
        return fail(what, f"pylibfranka has no {', '.join(missing)}", f"install pylibfranka=={tested}")
    try:
        version = metadata.version("pylibfranka")
    except metadata.PackageNotFoundError:
        version = str(getattr(module, "__version__", "unknown"))
    if version.split(".")[:2] != tested.split(".")[:2]:
        return warn(what, f"pylibfranka {version}; {tested} was tested", f"install pylibfranka=={tested}")
    return ok(what, f"pylibfranka {version}")


def check_library(what: str, module: str, load: Callable[[str], Any]) -> Finding:
    """Check that a driver's Python library can be imported."""
    try:
        load(module)
    except GenimaError as error:
        return fail(what, *_split(str(error)))
    return ok(what, module)


def check_packages(what: str, names: Sequence[str], prefixes: Sequence[Path], otherwise: str) -> Finding:
    """Check that ROS packages are installed in the sourced prefixes."""
    missing = [name for name in names if not any(_has_package(prefix, name) for prefix in prefixes)]
    if not missing:
        return ok(what, f"{len(names)} ROS packages installed")
    if len(missing) == len(names) and "ROS_DISTRO" not in os.environ:
        remedy = "source /opt/ros/jazzy/setup.bash and the workspace with the drivers (docs/real_robot.md)"
        found = f"no ROS 2 is sourced; it needs {', '.join(names)}"
    else:
        found = f"not installed, or their workspace is not sourced: {', '.join(missing)}"
        remedy = "build them as docker/Dockerfile does, and source the workspace"
    return fail(what, found, f"{remedy}{', ' if otherwise else ''}{otherwise}")


def check_serial_port(port: Path) -> Finding:
    """Check that this user may open a Robotiq's adapter."""
    what = "gripper's port"
    if not port.exists():
        remedy = "plug the adapter in, or name another in the cell: com_port: /dev/serial/by-id/..."
        return fail(what, f"{port} is not there", remedy)
    if not os.access(port, os.R_OK | os.W_OK):
        return fail(what, f"{port} may not be opened by this user", "sudo usermod -aG dialout $USER, and log in again")
    return ok(what, str(port))


def ros_prefixes() -> list[Path]:
    """Return the folders of installed ROS packages that the shell has sourced."""
    return [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]


def _has_package(prefix: Path, name: str) -> bool:
    return (prefix / "share" / "ament_index" / "resource_index" / "packages" / name).exists()


def _split(line: str) -> tuple[str, str]:
    found, _, remedy = line.partition("; ")
    return found, remedy


def _python_remedy() -> str:
    """Return the remedy where this Python has no wheels of pylibfranka."""
    major, minor, _ = platform.python_version_tuple()
    return " (it has wheels for Python up to 3.12)" if (int(major), int(minor)) > (3, 12) else ""
