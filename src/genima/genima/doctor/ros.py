"""ROS 2 and DDS checks: environment variables, profile, shared memory, socket buffers."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path

from genima.doctor.findings import Finding, Status, fail, ok, skipped, warn
from genima.doctor.system_files import read_number
from genima.errors import GenimaError

FAST_DDS = "rmw_fastrtps_cpp"
PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
PROFILES = (PROFILE, "FASTDDS_DEFAULT_PROFILES_FILE")  # of Fast DDS 2 and 3
_FLAGS = ("RCUTILS_LOGGING_USE_STDOUT", "RCUTILS_LOGGING_BUFFERED_STREAM", "RCUTILS_COLORIZED_OUTPUT")
_SERVER = re.compile(r"(TCPv[46]:|UDPv[46]:)?\[?[A-Za-z0-9_.:-]+?\]?(:([0-9]{1,5}))?")
_LAST_DOMAIN = 101  # above, ports collide with Linux's ephemeral ports
_TILE = 768 * 1024  # bytes of a drawn tile: the largest message
_DEFAULT_SEGMENT = 512 * 1024  # bytes of Fast DDS's shared memory for each process
_PROCESSES = 12  # that share it: cameras, robot, Genima's nodes, RViz
_BUFFER = 8 << 20  # bytes: several simultaneous 640x480 images


def check_variables(environment: Mapping[str, str], wheels: bool, robot: bool) -> Iterator[Finding]:
    """Check variables that separate nodes, or connect unrelated ones.

    Args:
        environment: of the shell that nodes are started from.
        wheels: True for ROS 2 from Python wheels, which have only Fast DDS.
        robot: True with a real robot, or its cameras.
    """
    yield check_middleware(environment, wheels)
    yield _domain(environment.get("ROS_DOMAIN_ID", ""), robot)
    yield _range(environment)
    if server := environment.get("ROS_DISCOVERY_SERVER"):
        yield _discovery_server(server)
    for name in _FLAGS:
        if (value := environment.get(name, "")) not in ("", "0", "1"):
            yield fail(name, f"{value!r} is neither 0 nor 1", f"unset {name}")
    if environment.get("ROS_SECURITY_ENABLE") == "true":
        yield _security(environment, wheels)


def require_valid_environment(environment: Mapping[str, str], wheels: bool) -> None:
    """Reject settings that ROS 2 would reject, or ignore and thereby open the network.

    Raises:
        GenimaError: the first variable that is wrong, with the remedy.
    """
    for finding in check_variables(environment, wheels, robot=False):
        if finding.status is Status.FAIL:
            raise GenimaError(f"{finding.what}: {finding.found}; {finding.remedy}")
    for name in PROFILES:
        if file := environment.get(name, ""):
            try:
                _, network = read_profile(Path(file))
            except GenimaError as error:  # Fast DDS would use its default: open on all addresses
                raise GenimaError(f"{name}: {error}; correct it, or unset {name}") from None
            if not network and environment.get("ROS_DISCOVERY_SERVER"):
                found = f"the profile {file} has only shared memory and cannot reach a discovery server"
                raise GenimaError(f"ROS_DISCOVERY_SERVER: {found}; unset one of the two")


def open_variable(environment: Mapping[str, str]) -> str:
    """Return the variable that opens processes to other hosts, with its value; empty without one."""
    security = environment.get("ROS_SECURITY_ENABLE") == "true"
    if security and environment.get("ROS_SECURITY_STRATEGY") == "Enforce":
        return ""
    if environment.get("RMW_IMPLEMENTATION", "") not in ("", FAST_DDS):
        return f"RMW_IMPLEMENTATION={environment['RMW_IMPLEMENTATION']}"
    local = environment.get("ROS_LOCALHOST_ONLY") == "1"
    if local or environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE") in ("LOCALHOST", "OFF"):
        return ""
    if file := environment.get(PROFILE, ""):
        return f"{PROFILE}={file}" if read_profile(Path(file))[1] else ""
    if (builtin := environment.get("FASTDDS_BUILTIN_TRANSPORTS", "")) == "SHM":
        return ""
    return f"FASTDDS_BUILTIN_TRANSPORTS={builtin}" if builtin else f"no {PROFILE}"


def check_middleware(environment: Mapping[str, str], wheels: bool) -> Finding:
    """Check that the middleware is installed: ROS ends the process otherwise."""
    what = "RMW_IMPLEMENTATION"
    name = environment.get(what, "")
    if name in ("", FAST_DDS):
        return ok(what, name or "not set: Fast DDS")
    if wheels:
        return fail(what, f"{name}, which ROS 2 from wheels does not have", f"unset {what}, also on other machines")
    return warn(what, f"{name}: only rmw_fastrtps_cpp is tested", f"unset {what} in all shells of all machines")


def _domain(value: str, robot: bool) -> Finding:
    what = "ROS_DOMAIN_ID"
    if value and not re.fullmatch("[0-9]+", value):  # ROS reads 5x as 5, and -1 as none
        return fail(what, f"not a number ({value!r})", f"export {what}=42 in all shells of all machines")
    domain = int(value[:9] or 0)
    if domain > 232:
        return fail(what, f"{domain} does not exist", f"export {what}=42 in all shells of all machines")
    if domain > _LAST_DOMAIN:
        return warn(what, f"{domain}: its ports collide with others'", f"use 1 to {_LAST_DOMAIN}")
    if domain:
        return ok(what, value)
    if not robot:
        return ok(what, f"{value or 'not set'}: ./genima demo uses its own domain")
    return warn(
        what,
        f"{value or 'not set'}: domain 0 is shared with all machines of the network",
        f"export {what}=42, or any of 1 to {_LAST_DOMAIN} that is unused, in all shells of all machines",
    )


def _discovery_server(servers: str) -> Finding:
    what = "ROS_DISCOVERY_SERVER"
    entries = [entry for entry in servers.split(";") if entry]
    if not entries or not all(_SERVER.fullmatch(entry) for entry in entries):
        remedy = f"write HOST:PORT, several with ; between them, or unset {what}"
        return fail(what, f"not a list of servers ({servers!r})", remedy)
    found = f"{servers}: only nodes that know this discovery server find each other"
    return warn(what, found, "set it for all shells of all machines, or unset it")


def _security(environment: Mapping[str, str], wheels: bool) -> Finding:
    if wheels:
        found = "true, but ROS 2 from wheels has Fast DDS without its security plugins"
        return fail("ROS_SECURITY_ENABLE", found, "source an installed ROS 2 Jazzy (docs/security.md), or unset it")
    what, store = "ROS_SECURITY_ENABLE", environment.get("ROS_SECURITY_KEYSTORE", "")
    if not store or not (Path(store) / "enclaves").is_dir():
        found = f"true, but ROS_SECURITY_KEYSTORE ({store or 'not set'}) is no keystore"
        return fail(what, found, "create one (docs/security.md), or unset ROS_SECURITY_ENABLE")
    if environment.get("ROS_SECURITY_STRATEGY") != "Enforce":
        found = "true, but without ROS_SECURITY_STRATEGY=Enforce nodes without keys join unprotected"
        return warn(what, found, "export ROS_SECURITY_STRATEGY=Enforce")
    return ok(what, f"true: {store}, enforced")


def _range(environment: Mapping[str, str]) -> Finding:
    what, localhost_only = "discovery range", environment.get("ROS_LOCALHOST_ONLY", "0")
    value = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if localhost_only == "1":
        return warn(
            what,
            "ROS_LOCALHOST_ONLY=1: deprecated, overrides the range, and replaces the transports of a DDS profile",
            "unset ROS_LOCALHOST_ONLY (our profile of one machine sends nothing outside anyway)",
        )
    if value == "OFF":
        return fail(what, "OFF: no node finds another", "unset ROS_AUTOMATIC_DISCOVERY_RANGE")
    if value == "LOCALHOST":
        found = "LOCALHOST: Fast DDS replaces the transports of its profile, and images are lost"
        return warn(what, found, "export ROS_AUTOMATIC_DISCOVERY_RANGE=SYSTEM_DEFAULT")
    if value not in ("", "SUBNET", "SYSTEM_DEFAULT"):
        return fail(what, f"unknown ({value!r})", "unset ROS_AUTOMATIC_DISCOVERY_RANGE")
    return ok(what, value or "not set: the subnet")


def check_transport(environment: Mapping[str, str], proc: Path, shm: Path, robot: bool) -> Iterator[Finding]:
    """Check the transport of images between processes.

    Args:
        environment: of the shell that nodes are started from.
        proc: /proc.
        shm: /dev/shm.
        robot: True with a real robot, or its cameras.
    """
    file = environment.get(PROFILE, "")
    segment, network = _DEFAULT_SEGMENT, robot
    if file:
        try:
            segment, network = read_profile(Path(file))
        except GenimaError as error:
            yield fail("DDS profile", str(error), f"correct {PROFILE}, or unset it")
            return
        yield _judge_profile(file, segment, network)
    elif builtin := environment.get("FASTDDS_BUILTIN_TRANSPORTS", ""):
        yield ok("DDS profile", f"not set; FASTDDS_BUILTIN_TRANSPORTS={builtin}")
    else:
        yield skipped(
            "DDS profile",
            f"{PROFILE} is not set in this shell; ./genima, launch files and nodes set it",
            f"for RViz and ros2 commands: export {PROFILE}=.../config/dds/shared_memory.xml",
        )
    yield check_shared_memory(shm, segment)
    yield check_buffers(proc, network)


def read_profile(file: Path) -> tuple[int, bool]:
    """Return bytes of shared memory per process (0: none) and network use of a Fast DDS profile.

    Raises:
        GenimaError: for a missing or invalid file.
    """
    try:
        root = ET.parse(file).getroot()
    except OSError as error:
        raise GenimaError(f"cannot read {file}: {error.strerror}") from None
    except ET.ParseError as error:
        raise GenimaError(f"{file} is not XML: {error}") from None
    if root.tag.rpartition("}")[2] not in ("profiles", "dds"):
        raise GenimaError(f"{file}: no profiles of Fast DDS; use config/dds/shared_memory.xml")
    ours: dict[str, ET.Element] = {}
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    for descriptor in root.iter("transport_descriptor"):
        ours[(descriptor.findtext("transport_id") or "").strip()] = descriptor
    used = [ours.get((each.text or "").strip()) for each in root.findall(".//userTransports/transport_id")]
    builtin = (root.findtext(".//useBuiltinTransports") or "true").strip().lower() != "false"
    kinds = {(each.findtext("type") or "").strip() for each in used if each is not None}
    sizes = [each.findtext("segment_size") for each in used if each is not None and each.findtext("type") == "SHM"]
    try:
        segments = [int(size) if size else _DEFAULT_SEGMENT for size in sizes]
    except ValueError:
        raise GenimaError(f"{file}: segment_size is not a number; correct it") from None
    segments += [_DEFAULT_SEGMENT] * builtin
    return max(segments, default=0), builtin or bool(kinds - {"SHM"})


def segment_size(environment: Mapping[str, str]) -> int:
    """Return the bytes of shared memory of each process."""
    file = environment.get(PROFILE, "")
    return read_profile(Path(file))[0] if file else _DEFAULT_SEGMENT


def _judge_profile(file: str, segment: int, network: bool) -> Finding:
    transport = "network and shared memory" if network and segment else "network" if network else "shared memory only"
    found = f"{file}: {transport}"
    if segment:
        found += f", {segment / 2**20:.2g} MiB a process"
    if 0 < segment < _TILE:
        remedy = "use config/dds/shared_memory.xml, or set segment_size to 4194304 or more"
        return warn("DDS profile", f"{found}: drawn targets of {_TILE // 1024} KiB do not fit and are lost", remedy)
    return ok("DDS profile", found)


def check_shared_memory(shm: Path, segment: int) -> Finding:
    """Check the shared memory for the segments of all processes."""
    what = f"shared memory {shm}"
    try:
        space = shutil.disk_usage(shm)
    except OSError as error:
        return fail(what, f"{error.strerror}", "mount it (Docker does; see --shm-size and --ipc=host)")
    needed = _PROCESSES * segment
    found = f"{space.free / 2**20:.0f} of {space.total / 2**20:.0f} MiB free"
    if space.free < needed:
        return warn(
            what,
            f"{found}; {_PROCESSES} processes need {needed / 2**20:.0f}",
            "Docker: --shm-size=256m or --ipc=host; else stop the owners of /dev/shm/fastdds_* and remove these",
        )
    return ok(what, found)


def check_buffers(proc: Path, network: bool) -> Finding:
    """Check socket buffers against the image size.

    Source: ROS 2 documentation, DDS tuning information; eProsima, Fast DDS, large data rates.
    """
    what, folder = "socket buffers", proc / "sys/net/core"
    sizes = {name: read_number(folder / name) for name in ("rmem_max", "wmem_max")}
    known = {name: size for name, size in sizes.items() if size is not None}
    if len(known) < len(sizes):
        return skipped(what, f"{folder} cannot be read: hidden from a container")
    found = ", ".join(f"{name} {size / 2**20:.2g} MiB" for name, size in known.items())
    if min(known.values()) >= _BUFFER:
        return ok(what, found)
    if not network:
        return ok(what, f"{found}; not used: all goes through shared memory here")
    return warn(
        what,
        f"{found}: images from another machine get lost",
        f"sudo sysctl -w net.core.rmem_max={_BUFFER} net.core.wmem_max={_BUFFER} (and in /etc/sysctl.d)",
    )
