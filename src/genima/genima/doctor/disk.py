"""Disk space for demos."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from genima.doctor.findings import Finding, fail, ok, warn

_RESERVE = 2.0  # GB that the recorder leaves free
_JPEG = 11e6  # bytes/s of four cameras of 640x480 at 30 Hz (docs/demos.md)
_FEW = 60.0  # minutes


def room(folder: Path) -> Finding:
    """Check how long a recording fits on the disk of the demos' folder, existing or not."""
    what, place = f"disk of {folder}", folder.resolve()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        return fail(what, f"{place} may not be written to", "take another folder for demos, or change its owner")
    free = shutil.disk_usage(place).free / 1e9
    minutes = max(0.0, free - _RESERVE) * 1e9 / _JPEG / 60
    found = f"{free:.0f} GB free: {minutes / 60:.1f} h of four cameras of 640x480 at 30 Hz, as JPEG; raw a tenth of it"
    if free < _RESERVE:
        return fail(what, f"{free:.1f} GB free; the recorder leaves {_RESERVE:g} free", "make room, or another disk")
    if minutes < _FEW:
        found = f"{free:.1f} GB free: {minutes:.0f} min of four cameras of 640x480 at 30 Hz, as JPEG"
        return warn(what, found, "make room, or record to another disk")
    return ok(what, found)
