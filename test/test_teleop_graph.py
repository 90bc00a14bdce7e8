"""Leading the simulated robot as separate processes, as `./genima teleop` does."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "genima.cli", "teleop"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "ROS_DOMAIN_ID"} | {"MUJOCO_GL": "egl", "TERM": "xterm"}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=200
    )


def test_an_expert_leads_the_arm_through_a_task(tmp_path: Path) -> None:
    command = [*COMMAND, "--leader", "expert", "--task", "take_lid_off", "--logs", str(tmp_path)]
    done = run(command)
    print(done.stdout, done.stderr, sep="\n")
    assert done.returncode == 0 and "seed 0: done" in done.stdout
    assert "teleop may move the arm" in (tmp_path / "command_guard.log").read_text()


def test_keys_lead_the_arm(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 200))
    command = [*COMMAND, "--logs", str(tmp_path)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = ""

    def until(words: str, press: str = "", seconds: float = 120.0) -> None:
        nonlocal said
        deadline = time.monotonic() + seconds
        while words not in said:
            assert time.monotonic() < deadline and process.poll() is None, said[-2000:]
            if select.select([ours], [], [], 0.1)[0]:
                said += os.read(ours, 65536).decode(errors="replace")
            os.write(ours, press.encode())
        said = said[said.index(words) + len(words) :]

    try:
        until("space follow or rest")
        until("mirroring")
        until("mirroring", "r")
        os.write(ours, b" ")
        until("the follower rests")
        until("paused")
        os.write(ours, b" ")
        until("the follower comes to the leader")
        until("mirroring")
        os.write(ours, b"gn")
        until("push down")  # the next scene's instruction
        os.write(ours, b"q")
        assert process.wait(30) == 0
    finally:
        process.kill()
        os.close(ours)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--leader", "keyboard"], "needs a terminal"),
        (["--leader", "expert", "--episodes", "0"], "--episodes must be positive"),
        (["--leader", "expert", "--task", "juggle"], "juggle"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[str], words: str) -> None:
    done = run([*COMMAND, *arguments])
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.strip().splitlines()) == 1
