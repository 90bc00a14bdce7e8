"""`./genima test`: run all checks, so that one run shows every failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_LONGEST = ["--durations", "15"]  # the first to look at when a run takes too long
_WORKERS = min(len(os.sched_getaffinity(0)), 8) + 1  # tests of nodes mostly wait
# Tests with deadlines measure the machine: on a busy one they are skipped with the numbers, not failed or repeated.
# Those of whole graphs need the machine.
_DAILY = [
    ["-m", "not alone and not nightly", "-n", str(_WORKERS), "--dist", "worksteal", *_LONGEST],
    ["-m", "alone and not nightly", *_LONGEST],
]


def main(argv: list[str]) -> int:
    if "-h" in argv or "--help" in argv:
        print("usage: ./genima test [--nightly | PYTEST ARGUMENTS]")
        print("Runs ruff and mypy over the repository, then pytest over test/.")
        print("Tests that wait too long on a busy machine are skipped, with what was measured.")
        print("--nightly runs the slow tests instead, and all mutations of files, of which a fifth is made otherwise.")
        print("\nExample: ./genima test test/unit/genima/control/test_command_guard.py")
        return 0
    checks: list[list[str]] = [["ruff", "check", "."], ["mypy"]]
    environment = dict(os.environ)
    if argv == ["--nightly"]:
        environment["GENIMA_ALL_MUTATIONS"] = "1"
        checks.append(["pytest", "-m", "nightly or mutations", *_LONGEST])
    elif argv:
        checks.append(["pytest", *argv])
    else:
        checks += [["pytest", *arguments] for arguments in _DAILY]
    codes = []
    for command in checks:
        print(f"== {' '.join(command)}", flush=True)
        codes.append(subprocess.run([sys.executable, "-P", "-m", *command], cwd=ROOT, env=environment).returncode)
    results = [f"{command[0]} {'failed' if code else 'passed'}" for command, code in zip(checks, codes, strict=True)]
    print(f"== {', '.join(results)}")
    return next((code for code in codes if code), 0)
