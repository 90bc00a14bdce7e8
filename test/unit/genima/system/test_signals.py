"""Tests of Ctrl-C: never ignored, never printed with a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SWALLOWING = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
except BaseException as error:  # as trimesh does
    swallowed = error
"""
BEGIN = "from genima.system.signals import *; hide_interrupt_traceback()\n"
WITH = "import sys\nwith interrupt_on_signals():\n    try: BODY\n    except KeyboardInterrupt: sys.exit(130)\n"
CALLBACK = "import os, signal, time, weakref\nclass A: pass\na = A()\n"
CALLBACK += "r = weakref.ref(a, lambda _: os.kill(os.getpid(), signal.SIGINT))\ndel a\ntime.sleep(20)"
AT_EXIT = "import atexit, os, signal\natexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
AT_EXIT += "from genima_cli.__main__ import end\nend(0)"


@pytest.mark.parametrize(
    "code",
    [
        BEGIN + "import swallowing\nimport time; time.sleep(20)",
        BEGIN + WITH.replace("BODY", "import swallowing; import time; time.sleep(20)"),
        BEGIN + CALLBACK,
        BEGIN + AT_EXIT,
    ],
    ids=["import", "import while interrupt_on_signals", "callback", "exit"],
)
def test_ctrl_c_ends_process_without_traceback(tmp_path: Path, code: str) -> None:
    (tmp_path / "swallowing.py").write_text(SWALLOWING, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode in (130, -signal.SIGINT), done.stderr
    assert b"Traceback" not in done.stderr and b"ignored" not in done.stderr
