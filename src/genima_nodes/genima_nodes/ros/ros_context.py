"""Initialise and shut down ROS 2 in a process.

The environment is checked first: a value that ROS rejects, or for which it would open the transport to the network, is
a one-line error. ROS is imported inside the functions.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from genima.doctor import installation, ros
from genima.errors import GenimaError
from genima.io import paths
from genima.system.terminal import printable

_T = TypeVar("_T")
_NO_LOG_FILE = "--disable-external-lib-logs"
_SHARED_MEMORY = Path("/dev/shm")
_LOCAL = ("config", "dds", "shared_memory.xml")
_TRANSPORT_VARIABLES = (  # by which the user chooses a transport
    *ros.PROFILES,
    "FASTDDS_BUILTIN_TRANSPORTS",
    "ROS_DISCOVERY_SERVER",
    "ROS_STATIC_PEERS",
)


def prepare_environment() -> None:
    """Check this process's environment; set the shared-memory profile unless the user chose a transport.

    Raises:
        GenimaError: for a variable that ROS would refuse or ignore.
    """
    environment = os.environ
    fast_dds = environment.get("RMW_IMPLEMENTATION", "") in ("", ros.FAST_DDS)
    is_open = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "SUBNET"  # ROS's default, but set explicitly
    if fast_dds and not is_open and not any(environment.get(name) for name in _TRANSPORT_VARIABLES):
        environment[ros.PROFILE] = str(paths.shared(*_LOCAL))
    environment.setdefault("SKIP_DEFAULT_XML_FILE", "1")  # a DEFAULT_FASTRTPS_PROFILES.xml in the current folder
    ros.require_valid_environment(environment, installation.has_wheels())


@contextlib.contextmanager
def ros_context(args: Sequence[str] | None = None, log_file: bool = False) -> Iterator[None]:
    """Initialise ROS, without its signal handlers, and shut it down at the end.

    Args:
        args: command line with ROS arguments; None: none.
        log_file: write a log file, if its folder can be written.

    Raises:
        GenimaError: for an environment or arguments that ROS refuses.
    """
    prepare_environment()
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    arguments = list(args or [])
    if not log_file or not _logs_can_be_written():
        arguments += ["--ros-args", _NO_LOG_FILE, "--"]
    with _one_line():
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield
    finally:
        rclpy.try_shutdown()


def create(make: Callable[[], _T]) -> _T:
    """Create nodes, and deny other users of this machine access to their shared memory.

    Raises:
        GenimaError: for names and arguments that ROS refuses, and shared memory that cannot be used.
    """
    with _one_line(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Failed to fini")  # of a node that could not be created
        created = make()
    _restrict_shared_memory()
    return created


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    from rclpy import exceptions
    from rclpy._rclpy_pybind11 import RCLError, RCUtilsError, RMWError, UnknownROSArgsError

    try:
        yield
    except UnknownROSArgsError as error:
        raise GenimaError(f"ROS arguments: unknown ({printable(error)})") from None
    except (RCLError, RCUtilsError, RMWError) as error:
        raise GenimaError(f"ROS: cannot start ({_error_text(str(error))})") from None
    except (exceptions.NameValidationException, exceptions.ParameterException) as error:
        raise GenimaError(f"ROS: refused ({_error_text(str(error))})") from None


def _error_text(text: str) -> str:
    """Return ROS's message in one line, without places in its sources, with the likely cause."""
    line = printable(" ".join(re.sub(r",? at /\S+:\d+", "", text).split()))
    if "__ns:=" in line or "__node:=" in line:
        return f"{line}; a name has letters, digits and underscores, and does not begin with a digit"
    if "create_participant" not in line:
        return line
    finding = ros.check_shared_memory(_SHARED_MEMORY, ros.segment_size(os.environ))
    if not os.access(_SHARED_MEMORY, os.W_OK | os.X_OK):
        return f"shared memory {_SHARED_MEMORY} cannot be written; mount it for this user"
    if finding.remedy:
        return f"{finding.what}: {finding.found}; {finding.remedy}"
    return f"{line}; check the address and the transport of the DDS profile"


def _logs_can_be_written() -> bool:
    """Check that ROS can write log files; print a warning if not, as ROS itself would refuse to start."""
    environment = os.environ
    if folder := environment.get("ROS_LOG_DIR", ""):
        logs = Path(folder).expanduser()
    elif folder := environment.get("ROS_HOME", ""):
        logs = Path(folder).expanduser() / "log"
    else:
        logs = Path(environment.get("HOME", "")) / ".ros" / "log"
    try:
        if not logs.is_absolute() and not environment.get("HOME"):
            raise OSError("HOME is not set")
        logs.mkdir(parents=True, exist_ok=True)
        if not os.access(logs, os.W_OK | os.X_OK):
            raise OSError("no permission")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem = f"genima: ROS log folder {printable(logs)}: not writable ({reason})"
        print(f"{problem}; continuing without a log file; set ROS_LOG_DIR to a writable folder", file=sys.stderr)
        return False
    return True


def _restrict_shared_memory() -> None:
    """Deny other users of this machine access to the shared memory of this process, which contains images.

    Fast DDS makes it world-readable and ignores the umask. Other users' processes cannot communicate by it in either
    case, as that needs write access.
    """
    with contextlib.suppress(OSError):
        mapped = set(re.findall(rf"{_SHARED_MEMORY}/fast\w+", Path("/proc/self/maps").read_text("utf-8", "replace")))
        for name in mapped:
            with contextlib.suppress(OSError):  # of another user, or removed
                if os.stat(name).st_uid == os.geteuid():
                    os.chmod(name, 0o600)
