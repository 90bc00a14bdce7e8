"""`./genima trial` with the simulated robot as separate processes, in a terminal."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from terminal import Terminal

ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "ROS_DOMAIN_ID"} | {"MUJOCO_GL": "egl", "TERM": "xterm"}
PROTOCOL = """
instruction: push down the maroon button
setup: none
variants: {simulated: a new seed for each pair}
success: pressed
trials: 2
task: push_button
"""


@pytest.mark.nightly
@pytest.mark.real_time
def test_operator_judges_ends_and_interrupts_tasks(tmp_path: Path) -> None:
    protocol, out = tmp_path / "push.yaml", tmp_path / "result.json"
    protocol.write_text(PROTOCOL, encoding="utf-8")
    command = [sys.executable, "-m", "genima_cli", "trial", str(protocol), "--policy", "expert", "expert"]
    with Terminal([*command, "--port", "0", "--out", str(out)], ENVIRONMENT) as terminal:
        terminal.until("trial 1 of 4, simulated: a new seed for each pair", seconds=200.0)
        terminal.until("Enter starts")
        terminal.press("\n")
        terminal.until(" after ")
        terminal.until("and a note")
        terminal.press("s as expected\n")
        terminal.until("trial 2 of 4")
        terminal.until("Enter starts")
        terminal.press("\n")
        terminal.until("Enter ends it")
        terminal.press("\n")
        terminal.until(" after ")
        terminal.until("and a note")
        terminal.press("n\n")
        terminal.until("trial 2 of 4")  # again
        terminal.until("Enter starts")
        terminal.press("\n")
        terminal.until("Enter ends it")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(60) == 130
    trials = json.loads(out.read_text(encoding="utf-8"))["trials"]
    assert [(each["verdict"], each["note"]) for each in trials] == [("success", "as expected"), ("not counted", "")]
    assert (tmp_path / "result.logs" / "command_guard.log").read_text(encoding="utf-8").count("owner: controller") == 3
