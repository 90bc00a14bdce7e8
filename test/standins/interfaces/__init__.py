"""Messages of packages that come with a robot's drivers, and are not among ROS 2's wheels.

Built once, from the definitions in this folder, into the environment's ``build`` folder. Their names, and the fields
that are used, are those of the real packages; an installed package is left alone.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genima.io import paths

PACKAGES = ("control_msgs", "franka_msgs", "controller_manager_msgs", "realsense2_camera_msgs")
_FOLDER = Path(__file__).parent
_DEPENDENCIES = ("action_msgs", "builtin_interfaces", "lifecycle_msgs", "sensor_msgs", "std_msgs")
_CMAKE = """
cmake_minimum_required(VERSION 3.19)
project({package})
find_package(ament_cmake REQUIRED)
find_package(rosidl_default_generators REQUIRED)
foreach(used {dependencies})
  find_package(${{used}} REQUIRED)
endforeach()
# Python needs no C++ type support beyond Fast DDS's; without them, and with one C++ file per library, half the time
list(FILTER AMENT_EXTENSIONS_rosidl_generate_idl_interfaces EXCLUDE REGEX "^rosidl_typesupport_(introspection_)?cpp:")
rosidl_generate_interfaces({package} {files} DEPENDENCIES {dependencies})
set_target_properties({package}__rosidl_typesupport_fastrtps_c {package}__rosidl_typesupport_fastrtps_cpp
  PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
ament_package()
"""
_MANIFEST = """<package format="3">
  <name>{package}</name><version>0.0.0</version><description>Stand-in.</description>
  <maintainer email="genima-dev@users.noreply.github.com">Genima developers</maintainer><license>Apache-2.0</license>
  <member_of_group>rosidl_interface_packages</member_of_group>
</package>
"""


def environment() -> dict[str, str]:
    """Return environment variables for a process that uses the messages, in addition to this one's."""
    prefix = _built()
    if prefix is None:
        return {}
    python = _python_path(prefix)
    return {
        "AMENT_PREFIX_PATH": _joined(str(prefix), "AMENT_PREFIX_PATH"),
        "LD_LIBRARY_PATH": _joined(str(prefix / "lib"), "LD_LIBRARY_PATH"),
        "PYTHONPATH": os.pathsep.join([str(_FOLDER.parents[1]), _joined(str(python), "PYTHONPATH")]),
    }


def provide() -> None:
    """Make the messages importable in this process, or skip the test. The first build takes a minute."""
    prefix = _built()
    if prefix is None or (python := str(_python_path(prefix))) in sys.path:
        return
    sys.path.insert(0, python)
    os.environ["AMENT_PREFIX_PATH"] = _joined(str(prefix), "AMENT_PREFIX_PATH")
    libraries = sorted((prefix / "lib").glob("*.so"))
    while libraries:  # they need one another; once loaded, each is found by its name
        left = [library for library in libraries if not _loads(library)]
        if len(left) == len(libraries):
            raise OSError(f"cannot load {', '.join(map(str, left))}")
        libraries = left


def _built() -> Path | None:
    """The prefix that they are in; None where the real packages are installed."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    prefix = _prefix()
    if not missing or (prefix / "done").exists():
        return prefix if (prefix / "done").exists() else None
    if shutil.which("cmake") is None or importlib.util.find_spec("rosidl_pycommon") is None:
        pytest.skip("the drivers' messages are not installed, and there is no compiler to build stand-ins")
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with prefix.with_suffix(".lock").open("w", encoding="utf-8") as lock:  # tests in other processes need them, too
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build_all(prefix)


def _build_all(prefix: Path) -> Path:
    for package in PACKAGES:
        if not (finished := prefix / f"{package}.done").exists():  # on a busy machine, a test's time may be over before
            for folder in ("source", "build"):
                shutil.rmtree(prefix / folder / package, ignore_errors=True)
            _build(package, prefix)
            finished.touch()
    (prefix / "done").touch()
    return prefix


def _prefix() -> Path:
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(_FOLDER.rglob("*.*")) if p.suffix != ".pyc"))
    return Path(sys.prefix) / "build" / f"standins-{digest.hexdigest()[:12]}"


def _build(package: str, prefix: Path) -> None:
    source, build = prefix / "source" / package, prefix / "build" / package
    shutil.copytree(_FOLDER / package, source)
    files = [str(p.relative_to(source)) for p in sorted(source.rglob("*")) if p.suffix in (".msg", ".srv", ".action")]
    fields = {"package": package, "files": " ".join(files), "dependencies": " ".join(_DEPENDENCIES)}
    (source / "CMakeLists.txt").write_text(_CMAKE.format(**fields))
    (source / "package.xml").write_text(_MANIFEST.format(**fields))
    repair = paths.shared("src", "genima_interfaces", "cmake", "ros_wheels.cmake")
    configure = ["cmake", "-S", source, "-B", build, f"-DCMAKE_INSTALL_PREFIX={prefix}", "-DBUILD_TESTING=OFF"]
    configure += [f"-DCMAKE_PROJECT_INCLUDE={repair}", f"-DPython3_EXECUTABLE={sys.executable}"]
    # this environment first, then an installed ROS 2 that is sourced
    prefixes = {name: _joined(sys.prefix, name) for name in ("CMAKE_PREFIX_PATH", "AMENT_PREFIX_PATH")}
    environment = os.environ | prefixes
    build_all = ["cmake", "--build", build, "--parallel", str(os.cpu_count())]
    for command in (configure, build_all, ["cmake", "--install", build]):
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


def _python_path(prefix: Path) -> Path:
    return next((prefix / "lib").glob("python3*")) / "site-packages"


def _joined(first: str, variable: str) -> str:
    return os.pathsep.join([first, *filter(None, [os.environ.get(variable)])])


def _loads(library: Path) -> bool:
    try:
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
