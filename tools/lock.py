#!/usr/bin/env python3
"""Writes requirements.lock from requirements.in: what pip would install today, with exact versions.

Run it with the oldest supported Python: its versions then install on the newer ones too.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = """\
# Every package with its exact version, for CPython 3.11 to 3.13. Written by tools/lock.py from requirements.in.
# The sections are installed one by one by ./genima: [ros] only without an installed ROS 2, [alone] with --no-deps.
"""


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^# \[(\w+)\].*\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def resolve(requirements: str, *options: str) -> dict[str, str]:
    """Name to version of everything that pip would install for these requirements."""
    wanted = [line.split(" #")[0].strip() for line in requirements.splitlines()]
    wanted = [line for line in wanted if line and not line.startswith("#")]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    report = json.loads(subprocess.run([*command, *options, *wanted], check=True, stdout=subprocess.PIPE).stdout)
    found = (item["metadata"] for item in report["install"])
    # A local version (2.13.0+cpu) names one build; the lock is for all of them.
    return {package["name"].lower(): package["version"].split("+")[0] for package in found}


def main() -> None:
    wanted = sections((ROOT / "requirements.in").read_text())
    base = resolve(wanted["base"])
    both = resolve(wanted["base"] + wanted["ros"])
    if changed := {name for name in base if both[name] != base[name]}:
        names = ", ".join(sorted(changed))
        sys.exit(f"[ros] would change the version of {names} in [base]: pin them in requirements.in")
    locked = {
        "base": base,
        "ros": {name: version for name, version in both.items() if name not in base},
        "alone": resolve(wanted["alone"], "--no-deps"),
    }
    text = HEADER
    for name, packages in locked.items():
        text += f"\n# [{name}]\n" + "".join(f"{package}=={packages[package]}\n" for package in sorted(packages))
    (ROOT / "requirements.lock").write_text(text)


if __name__ == "__main__":
    main()
