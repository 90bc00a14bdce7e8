"""Run commands of ./genima."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Mapping

import pytest

from genima_cli.__main__ import main


def outcome(*arguments: str) -> tuple[object, str]:
    """Return the exit code of a command in this process, and everything that it prints."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            code: object = main(list(arguments))
        except SystemExit as leaving:  # raised by argparse and tyro
            code = leaving.code
    return code, text.getvalue()


def run_episodes(*arguments: object) -> int:
    """Return the exit code of `./genima episodes` in this process."""
    return main(["episodes", *map(str, arguments)])


def error_line(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run `./genima episodes`, which must fail, and return its error line."""
    assert run_episodes(*arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("genima: error: ")
    return line


def run_call(environment: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Return exit code and output of a process of `./genima call`."""
    command = [sys.executable, "-m", "genima_cli", "call", *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    return result.returncode, (result.stdout + result.stderr).strip()
