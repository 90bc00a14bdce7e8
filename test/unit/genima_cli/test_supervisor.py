"""Start and stop node processes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from genima.cell import load_cell
from genima_bringup.node_specs import NodeSpec, command_guard, own_drivers
from genima_cli.supervisor import Supervisor

_SLOW_TO_STOP = """
import signal, sys, time
from pathlib import Path
def stop(*_):
    time.sleep(1.5)
    Path({done!r}).touch()
    sys.exit(0)
signal.signal(signal.SIGINT, stop)
Path({ready!r}).touch()
while True:
    time.sleep(0.05)
"""


@pytest.mark.parametrize("timeout, stops", [(20.0, True), (0.2, False)])
def test_node_is_given_time_to_stop(tmp_path: Path, timeout: float, stops: bool) -> None:
    done, ready = tmp_path / "done", tmp_path / "ready"
    package = tmp_path / "slow_nodes"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "driver.py").write_text(_SLOW_TO_STOP.format(done=str(done), ready=str(ready)), encoding="utf-8")
    spec = NodeSpec("slow_nodes", "driver", stop_timeout=timeout)
    with Supervisor([spec], tmp_path / "logs", {"PYTHONPATH": str(tmp_path)}) as supervisor:
        deadline = time.monotonic() + 60
        while not ready.exists():
            supervisor.check()
            assert time.monotonic() < deadline, "the node does not start"
            time.sleep(0.02)
    assert done.exists() is stops


def test_drivers_and_guard_have_longer_stop_timeout() -> None:
    default = NodeSpec("genima_nodes", "task_runner").stop_timeout
    assert all(spec.stop_timeout >= 5 * default for spec in own_drivers(load_cell("fr3_own_driver")))
    assert command_guard(load_cell("sim_panda")).stop_timeout > default
