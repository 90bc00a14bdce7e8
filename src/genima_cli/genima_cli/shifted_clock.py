"""Control file of shifted_clock.c."""

from __future__ import annotations

import os
import struct
from pathlib import Path


def set_clock(file: Path, shift: float) -> None:
    """Shift the clock of all processes that read ``file`` by ``shift`` seconds, at once."""
    flags = os.O_RDWR | os.O_CREAT  # never truncated: the processes have it mapped
    descriptor = os.open(file, flags, 0o644)
    try:
        os.pwrite(descriptor, struct.pack("d", shift), 0)
    finally:
        os.close(descriptor)
