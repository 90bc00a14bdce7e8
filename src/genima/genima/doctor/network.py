"""Network checks: card and round trip to the robot."""

from __future__ import annotations

import ipaddress
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from genima.doctor.findings import Finding, fail, ok, skipped, warn
from genima.doctor.system_files import read_number

_PORT = 443  # Desk's, the robot's web pages; never the control interface's own
_TRIES, _PAUSE, _PATIENCE = 100, 0.005, 1.0  # s
_CYCLE = 1e-3  # s: for the round trip and the computation on both sides
_FAST_ENOUGH = 3e-4  # s
_CABLE = "connect this computer's own network socket to the LAN socket of the robot's control, by cable, no switch"


def check_robot_link(sys: Path, address: str) -> Iterator[Finding]:
    """Check the network card to a robot, and the round trip.

    Args:
        sys: /sys.
        address: of the robot.
    """
    try:
        host = socket.gethostbyname(address)
        name, direct = find_card(host)
    except OSError as error:
        why = error.strerror or str(error)
        remedy = "correct the robot_ip of the cell; it is set in Desk, Settings, Network"
        yield fail("robot's address", f"{address}: {why}", remedy)
        return
    yield check_card(sys, name)
    if not direct:
        yield warn("network", f"{address} is behind a router: {name} is of another network", _CABLE)
    try:
        trips = [measure_round_trip(host)]
        for _ in range(_TRIES - 1):
            time.sleep(_PAUSE)
            trips.append(measure_round_trip(host))
    except OSError as error:
        yield fail(
            "robot",
            f"no answer from {address}: {error.strerror or error}",
            f"switch the robot on; {_CABLE}; give this computer an address of the same network",
        )
        return
    yield check_round_trips(trips)
    yield skipped("control interface", "a test could disturb a moving robot; the driver checks it at its start",
                  "in Desk: unlock the joints, activate FCI")  # fmt: skip


def find_card(host: str) -> tuple[str, bool]:
    """Return the network card for packets to a host, and whether the host is in its network.

    Raises:
        OSError: without a route.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, _PORT))  # sends nothing
        own = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        for each in addresses:
            if each.address == own:
                network = ipaddress.ip_network(f"{own}/{each.netmask or 32}", strict=False)
                return name, ipaddress.ip_address(host) in network
    raise OSError(f"no network card has the address {own}")


def check_card(sys: Path, name: str) -> Finding:
    """Check that a network card is fit for 1 kHz."""
    what, folder = "network card", sys / "class/net" / name
    if not folder.exists():
        return skipped(what, f"{name}: {folder} is not there")
    if name == "lo":
        return ok(what, "none: the address is this machine's own")
    if (folder / "wireless").exists() or (folder / "phy80211").exists():
        return fail(what, f"{name} is wireless: its delays stop a robot", _CABLE)
    speed = read_number(folder / "speed")
    found = f"{name}, {speed:g} Mbit/s" if speed and speed > 0 else name
    if speed is not None and 0 < speed < 100:
        return fail(what, f"{found}, 100 are needed", "use another cable or card")
    if "/usb" in str((folder / "device").resolve()):
        return warn(what, f"{found}, on USB, which adds delays", "use a built-in socket or a PCIe card")
    return ok(what, found)


def measure_round_trip(host: str) -> float:
    """Return the round trip to a host in s: of a TCP connection, accepted or refused.

    Raises:
        OSError: without an answer.
    """
    with socket.socket() as probe:
        probe.settimeout(_PATIENCE)
        start = time.perf_counter()
        try:
            probe.connect((host, _PORT))
        except ConnectionRefusedError:
            pass  # an answer, too
        return time.perf_counter() - start


def check_round_trips(trips: Sequence[float]) -> Finding:
    """Check round trips in s."""
    what, usual, longest = "round trip to the robot", statistics.median(trips), max(trips)
    spread = statistics.pstdev(trips)
    found = (
        f"{1e3 * usual:.2f} ms, jitter {1e3 * spread:.2f} ms, longest {1e3 * longest:.2f} ms of {len(trips)}, "
        "measured in Python"
    )
    if usual > _CYCLE:
        return fail(what, f"{found}: it must be well below 1 ms", _CABLE)
    late = sum(trip > _CYCLE for trip in trips)
    if usual > _FAST_ENOUGH or late > len(trips) / 20:
        remedy = f"{_CABLE}; then `sudo ping -i 0.001 -c 10000 -s 1200 ADDRESS` measures it well"
        return warn(what, f"{found}; {late} took more than 1 ms", remedy)
    return ok(what, found)
