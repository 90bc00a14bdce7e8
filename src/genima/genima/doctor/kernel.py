"""Kernel checks for real-time control: PREEMPT_RT, priorities, locked memory, CPU clock."""

from __future__ import annotations

import os
import resource
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from genima.doctor.findings import Finding, fail, ok, skipped, warn
from genima.doctor.system_files import read_system_file

# SCHED_FIFO priorities: the highest of genima_nodes.ros.paced_thread, and that of libfranka's 1 kHz loop.
OURS, FRANKA = 10, 99
_MEMLOCK = 102400  # KiB, of libfranka's installation guide
_ENOUGH = "enough where no robot is driven at 1 kHz from here"
_LIMITS = "write `{user} - rtprio {rtprio}`{more} to /etc/security/limits.d/genima.conf and log in again"


def check_real_time_kernel(sys: Path, proc: Path, loop: bool) -> Finding:
    """Check for a PREEMPT_RT kernel, as the Franka Control Interface needs and libfranka detects it.

    libfranka reads /sys/kernel/realtime, which the mainline kernel, PREEMPT_RT since 6.12, does not have.

    Args:
        sys: /sys.
        proc: /proc.
        loop: True where this machine drives a robot at 1 kHz.
    """
    what, version = "kernel", read_system_file(proc / "version")
    if version is None:
        return skipped(what, f"{proc / 'version'} cannot be read")
    release = version.split()[2] if len(version.split()) > 2 else version
    flag = read_system_file(sys / "kernel/realtime") == "1"
    if flag:
        return ok(what, f"{release}, real time (PREEMPT_RT)")
    if "PREEMPT_RT" in version:
        found = f"{release} is real time, but lacks /sys/kernel/realtime, by which libfranka would know"
        if not loop:
            return ok(what, found)
        return warn(what, found, "configure the driver to ignore it (RealtimeConfig kIgnore; franka_ros2 does)")
    if not loop:
        return ok(what, f"{release}, not real time: {_ENOUGH}")
    return warn(
        what,
        f"{release} is not real time: at 1 kHz a robot stops by communication_constraints_violation now and then",
        "sudo apt install linux-image-rt-amd64 (Debian) or sudo pro enable realtime-kernel (Ubuntu), and boot it",
    )


def check_priority(loop: bool) -> Finding:
    """Check that this user's threads may run in real time; tested, as root in a container may not."""
    what, user = "real-time priority", os.environ.get("USER") or f"user {os.getuid()}"
    wanted = FRANKA if loop else OURS
    if can_set_priority(wanted):
        return ok(what, f"{wanted} is granted")
    remedy = _LIMITS.format(user=user, rtprio=wanted if loop else 20, more="")
    soft, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
    found = f"{wanted} is refused (ulimit -r: {soft})"
    if os.geteuid() == 0:
        remedy = "start the container with --cap-add SYS_NICE (Docker), or raise ulimit -r"
    if loop:
        return fail(what, f"{found}: libfranka cannot set its loop's scheduling", remedy)
    return warn(what, f"{found}: commands come late when the machine is busy", remedy)


def can_set_priority(wanted: int) -> bool:
    """Return whether a thread of this process may have a priority of SCHED_FIFO."""
    granted = []

    def ask() -> None:  # in a separate thread, with which the priority ends
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(wanted))
        except OSError:
            return
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        granted.append(True)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return bool(granted)


def check_locked_memory(loop: bool) -> Finding:
    """Check that a real-time process may lock its memory."""
    what, (soft, _) = "locked memory", resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return ok(what, "unlimited")
    found = f"{soft // 1024} KiB"
    if soft >= 1024 * _MEMLOCK:
        return ok(what, found)
    if not loop:
        return ok(what, f"{found}: {_ENOUGH}")
    user = os.environ.get("USER", "YOUR_USER")
    more = f" and `{user} - memlock {_MEMLOCK}`"
    return warn(what, f"{found}, {_MEMLOCK} are recommended", _LIMITS.format(user=user, rtprio=FRANKA, more=more))


def check_governors(sys: Path, robot: bool) -> Finding:
    """Check that the CPUs keep a fixed clock.

    Args:
        sys: /sys.
        robot: True where this machine drives a robot.
    """
    what = "processors' clock"
    files = (sys / "devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    governors = Counter(governor for file in files if (governor := read_system_file(file)))
    if not governors:
        return skipped(what, "no scaling governor here: a virtual machine, or it is fixed in the firmware")
    found = ", ".join(f"{governor} on {count}" for governor, count in governors.most_common())
    if set(governors) == {"performance"}:
        return ok(what, found)
    if not robot:
        return ok(what, f"{found}: {_ENOUGH}")
    return warn(
        what,
        f"{found}: a processor that wakes up slowly costs deadlines",
        "sudo cpupower frequency-set -g performance (package linux-cpupower), and in the firmware",
    )


def check_kernel(sys: Path, proc: Path, robot: bool, loop: bool) -> Iterator[Finding]:
    """Return all kernel findings; ``loop``: libfranka's control loop runs on this machine."""
    yield check_real_time_kernel(sys, proc, loop)
    yield check_priority(loop)
    yield check_locked_memory(loop)
    yield check_governors(sys, robot)
