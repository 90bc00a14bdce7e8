"""`./genima test`: all checks run even when an early one fails, so that one run shows everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]


def main(argv: list[str]) -> int:
    if "-h" in argv or "--help" in argv:
        print("usage: ./genima test [PYTEST ARGUMENTS]")
        print("Runs ruff and mypy over the repository, then pytest over test/.")
        return 0
    checks = {"ruff": ["check", "."], "mypy": [], "pytest": argv}
    codes = {}
    for tool, arguments in checks.items():
        print(f"== {tool}", flush=True)
        codes[tool] = subprocess.run([sys.executable, "-m", tool, *arguments], cwd=ROOT).returncode
    print("== " + ", ".join(f"{tool} {'failed' if code else 'passed'}" for tool, code in codes.items()))
    return next((code for code in codes.values() if code), 0)
