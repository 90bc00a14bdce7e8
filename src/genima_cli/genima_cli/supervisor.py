"""Start nodes as processes, monitor and stop them."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from genima.errors import GenimaError
from genima_bringup.node_specs import ENVIRONMENT, NodeSpec

_SHARED_MEMORY = Path("/dev/shm")
_LOCKS = ("_el", "_sl")  # exclusive, shared
_SEGMENT = re.compile(r"fast(rtps|dds)_([0-9a-f]{16}|port[0-9]+)")  # Fast DDS's names
_MIN_AGE = 5.0  # s: a newer segment may not be locked yet
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def remove_stale_shared_memory() -> None:
    """Remove Fast DDS's shared memory of killed processes of this user, as `fastdds shm clean` does.

    A running process holds a lock on a file beside each of its segments and ports. Segments and ports of other users
    and files with other names are not touched.
    """
    for segment in _SHARED_MEMORY.glob("fast*_*"):
        if not _SEGMENT.fullmatch(segment.name):
            continue
        locks = [segment.with_name(segment.name + ending) for ending in _LOCKS]
        semaphore = segment.with_name(f"sem.{segment.name}_mutex")
        with contextlib.suppress(OSError):  # removed meanwhile
            found = segment.lstat()
            old = time.time() - found.st_mtime > _MIN_AGE
            if old and found.st_uid == os.getuid() and not any(map(_is_held, locks)):
                for file in (segment, *locks, semaphore):
                    file.unlink(missing_ok=True)


def _is_held(lock: Path) -> bool:
    try:
        with open(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


class Supervisor:
    """Context in which a set of processes runs.

    Every process has its own process group, so that a terminal's Ctrl-C reaches only this process, which then stops the
    others in order; not its own session, as Linux compares priorities only within one. If this process dies, the kernel
    kills the others.
    """

    def __init__(self, processes: Sequence[NodeSpec], logs: Path, environment: dict[str, str]) -> None:
        """Args:
        processes: nodes to run.
        logs: folder for one log file per node.
        environment: added to this process's environment, see :func:`ros_environment`.
        """
        self._processes = {process.node: process for process in processes}
        self._logs, self._environment = logs, ENVIRONMENT | os.environ | environment
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Supervisor:
        self._logs.mkdir(parents=True, exist_ok=True)
        remove_stale_shared_memory()
        try:
            for name in self._processes:
                self.start(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, name: str) -> None:
        """Start a process, for the first time or again; its log is continued."""
        with open(self._log(name), "ab" if name in self._children else "wb") as log:
            self._children[name] = subprocess.Popen(
                _command(self._processes[name]),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=end_with_parent,
            )

    def kill(self, name: str) -> None:
        """Kill a process, as a crash would."""
        child = self._children[name]
        child.kill()
        child.wait()

    def pid(self, name: str) -> int:
        """Return the id of a process."""
        return self._children[name].pid

    def check(self) -> None:
        """Raise a GenimaError for a process that has ended, with its last error line."""
        for name, child in self._children.items():
            if (code := child.poll()) is not None:
                raise GenimaError(f"{name}: ended with code {code} ({self._last_error(name)}); log: {self._log(name)}")

    def close(self) -> None:
        """Stop all processes: SIGINT, then SIGKILL to those that run longer than the ``stop_timeout`` of their node."""
        running = {name: child for name, child in self._children.items() if child.poll() is None}
        for child in running.values():
            child.send_signal(signal.SIGINT)
        begin = time.monotonic()
        for name in sorted(running, key=lambda name: self._processes[name].stop_timeout):
            child, deadline = running[name], begin + self._processes[name].stop_timeout
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        self._children.clear()
        remove_stale_shared_memory()

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _last_error(self, name: str) -> str:
        lines = self._log(name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        errors = [line for line in lines if "error" in line.lower()]
        return (errors or lines or ["no output"])[-1]


def _command(process: NodeSpec) -> list[str]:
    command = [sys.executable, "-P", "-m", f"{process.package}.{process.executable}"]
    parameters = [part for key, value in process.parameters.items() for part in ("-p", f"{key}:={json.dumps(value)}")]
    renamings = ({"__node": process.name} if process.name else {}) | process.remappings
    remappings = [part for topic, other in renamings.items() for part in ("-r", f"{topic}:={other}")]
    return [
        *command,
        "--ros-args",
        "--disable-external-lib-logs",  # the log file has all output
        *parameters,
        *remappings,
    ]


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent dies; for ``preexec_fn``."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
