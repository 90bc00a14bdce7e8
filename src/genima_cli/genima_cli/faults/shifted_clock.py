"""Shift the clock of processes, by a preloaded library and its control file."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

from genima.errors import GenimaError


def set_clock(file: Path, shift: float) -> None:
    """Shift the clock of all processes that read ``file`` by ``shift`` seconds, at once."""
    flags = os.O_RDWR | os.O_CREAT  # never truncated: the processes have it mapped
    descriptor = os.open(file, flags, 0o644)
    try:
        os.pwrite(descriptor, struct.pack("d", shift), 0)
    finally:
        os.close(descriptor)


def build_shifted_clock(folder: Path) -> tuple[Path, dict[str, str]]:
    """Return a file for :func:`set_clock`, and the environment of processes whose clock follows it.

    Raises:
        GenimaError: if it cannot be built, or does not work.
    """
    file, library = folder / "clock", folder / "shifted_clock.so"
    source = Path(__file__).with_name("shifted_clock.c")
    build = subprocess.run(
        ["c++", "-x", "c", "-shared", "-fPIC", "-O2", str(source), "-o", str(library), "-ldl", "-lm"],
        capture_output=True, encoding="utf-8", errors="replace",
    )  # fmt: skip
    if build.returncode:
        reason = (build.stderr.strip().splitlines() or ["unknown error"])[0]
        raise GenimaError(f"{source}: cannot be built ({reason}); install a C++ compiler")
    environment = {"LD_PRELOAD": str(library), "GENIMA_CLOCK_SHIFT": str(file)}
    set_clock(file, 1000.0)
    program = [sys.executable, "-P", "-c", "import time; print(time.time())"]
    shown = subprocess.run(
        program, env=os.environ | environment, capture_output=True, encoding="utf-8", errors="replace"
    ).stdout
    set_clock(file, 0.0)
    if float(shown or 0) < time.time() + 500:
        raise GenimaError("shifted clock: not supported on this system; select other faults with --only")
    return file, environment
