"""Clock checks: local synchronisation by the kernel's state, other machines' offsets by SNTP."""

from __future__ import annotations

import ctypes
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from genima.doctor.findings import Finding, fail, ok, skipped, warn

_UNSYNC, _ERROR = 0x0040, 5  # STA_UNSYNC, TIME_ERROR of <sys/timex.h>
_EPOCH = 2_208_988_800  # s from 1900, where NTP counts from, to 1970
_PORT, _PATIENCE, _TRIES = 123, 1.0, 5
_NEAR, _FAR = 0.005, 0.05  # s: an image's age is trusted to some ms; commands 100 ms off are refused
_SYNC = "sudo apt install chrony, or sudo timedatectl set-ntp true; two machines: let one's chrony follow the other's"


class Kernel(NamedTuple):
    """State of adjtimex(2)."""

    synchronised: bool
    error: float  # s, estimated maximum


def adjtimex() -> Kernel:
    """Query the kernel, read-only.

    Raises:
        OSError: for a C library without the call.
    """
    buffer = ctypes.create_string_buffer(512)  # struct timex, with modes 0
    try:
        state = ctypes.CDLL(None).adjtimex(buffer)
    except AttributeError:
        raise OSError("the C library has no adjtimex") from None
    _, _, _, maximum, _, status = struct.unpack_from("@Illlli", buffer.raw)
    return Kernel(state not in (-1, _ERROR) and not status & _UNSYNC, 1e-6 * maximum)


def check_synchronisation(robot: bool, ask: Callable[[], Kernel] = adjtimex) -> Finding:
    """Check that this clock is synchronised, by any of chrony, timesyncd and ntpd.

    Args:
        robot: True with a real robot, or its cameras.
        ask: query of the kernel.
    """
    what = "this machine's clock"
    try:
        kernel = ask()
    except OSError as error:
        return skipped(what, str(error))
    if kernel.synchronised:
        return ok(what, f"synchronised, off by at most {1e3 * kernel.error:.0f} ms")
    if not robot:
        return ok(what, "not synchronised: sufficient for a single machine")
    return warn(what, "not synchronised; needed where cameras, robot and GPU are on two machines", _SYNC)


def clock_offset(host: str, port: int = _PORT) -> tuple[float, float]:
    """Return the offset of a host's clock and its uncertainty in s; the best of several answers.

    Source: RFC 4330, Simple Network Time Protocol, section 5.

    Raises:
        OSError: without an answer.
    """
    answers = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(_PATIENCE)
        probe.connect((host, port))
        for _ in range(_TRIES):
            asked = time.time()
            probe.send(bytes([0x23]) + bytes(47))  # version 4, client
            answer = probe.recv(512)
            back = time.time()
            if len(answer) < 48 or answer[1] == 0:  # stratum 0: not synchronised
                raise OSError("it has a time server that is not synchronised")
            received, sent = (_seconds(answer[at : at + 8]) for at in (32, 40))
            answers.append(((received - asked + sent - back) / 2, (back - asked - (sent - received)) / 2))
    return min(answers, key=lambda each: each[1])


def _seconds(stamp: bytes) -> float:
    whole, fraction = struct.unpack("!II", stamp)
    return float(whole - _EPOCH + fraction / 2**32)


def check_other_clock(host: str, ask: Callable[[str], tuple[float, float]] = clock_offset) -> Finding:
    """Check that another machine's clock agrees with this one."""
    what = f"clock of {host}"
    try:
        ahead, doubt = ask(host)
    except OSError as error:
        return skipped(
            what,
            f"its time server does not answer ({error.strerror or error})",
            "there: sudo apt install chrony, and `allow` and `local` in /etc/chrony/chrony.conf",
        )
    found = f"{1e3 * ahead:+.1f} ms against this machine's (+- {1e3 * doubt:.1f})"
    if abs(ahead) - doubt > _FAR:
        return fail(what, f"{found}: commands and images of the other machine count as old or in the future", _SYNC)
    if abs(ahead) > _NEAR:
        return warn(what, found, _SYNC)
    return ok(what, found)
