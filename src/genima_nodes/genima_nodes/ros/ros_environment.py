"""Environment variables of ROS processes: domain, discovery, transport."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from pathlib import Path

import psutil

from genima.doctor import installation, ros
from genima.errors import GenimaError
from genima.io import paths
from genima.system.terminal import printable

_REMOTE_DISCOVERY = ("ROS_DISCOVERY_SERVER", "ROS_STATIC_PEERS")  # discovery of other machines
_DOMAINS = range(1, 102)  # 0 is the default; above 101 the ports collide with ephemeral ones
_FIRST_PORT, _PORTS = 7400, 250  # RTPS: first port of domain 0, and ports per domain


def ros_environment() -> dict[str, str]:
    """Return environment variables for processes that communicate on this machine alone, in a domain of their own."""
    for name in _REMOTE_DISCOVERY:
        if os.environ.pop(name, ""):
            print(f"genima: {name}: ignored; these nodes run on this machine alone", file=sys.stderr)
    environment = _environment()
    ros.require_valid_environment(os.environ | environment, installation.has_wheels())
    return environment


def _environment(dds: str = "shared_memory") -> dict[str, str]:
    os.environ.pop("ROS_LOCALHOST_ONLY", None)  # older than the range below, and takes precedence over it
    return {
        "ROS_DOMAIN_ID": os.environ.get("ROS_DOMAIN_ID") or str(random.SystemRandom().choice(free_domains())),
        # with LOCALHOST, Fast DDS replaces the transports of the profile
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",
        ros.PROFILE: str(dds_profile(dds)),
        "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",
        "PYTHONUNBUFFERED": "1",
    }


def robot_environment() -> dict[str, str]:
    """Return environment variables for a real robot on this machine: in the user's domain, by default 0."""
    os.environ["ROS_DOMAIN_ID"] = os.environ.get("ROS_DOMAIN_ID") or "0"
    return ros_environment()


def joining_environment(dds: str = "shared_memory") -> dict[str, str]:
    """Return environment variables to join a running robot, with a profile of config/dds, that of its launch file.

    The profile and the middleware of the user's shell take precedence.

    Raises:
        GenimaError: for an unknown profile, and variables that ROS would refuse.
    """
    os.environ["ROS_DOMAIN_ID"] = os.environ.get("ROS_DOMAIN_ID") or "0"
    chosen = {name: os.environ[name] for name in (ros.PROFILE, "RMW_IMPLEMENTATION") if os.environ.get(name)}
    environment = _environment(dds) | chosen
    ros.require_valid_environment(os.environ | environment, installation.has_wheels())
    return environment


def dds_profile(name: str) -> Path:
    """Return the file of a profile of config/dds.

    Raises:
        GenimaError: for an unknown name.
    """
    folder = paths.shared("config", "dds")
    known = sorted(file.stem for file in folder.glob("*.xml"))
    if name not in known:
        raise GenimaError(f"DDS profile: unknown ({printable(name)}); use {' or '.join(known)}")
    return folder / f"{name}.xml"


def free_domains() -> list[int]:
    """Return the domains that no process of this machine has in its environment or an open port of."""
    used = _domains_with_ports()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ValueError):
            used.add(int(process.environ().get("ROS_DOMAIN_ID", "0")))
    return [domain for domain in _DOMAINS if domain not in used]


def _domains_with_ports() -> set[int]:
    """Return the domains with open UDP ports on this machine: the environment of a process need not name them."""
    domains = set()
    for table in ("udp", "udp6"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
                domains.add((int(line.split()[1].rpartition(":")[2], 16) - _FIRST_PORT) // _PORTS)
    return domains
