"""Simulators as modules: a file in a folder of the user's is a simulator that cells name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from genima.cell import load_cell
from genima.data.episodes import Episode
from genima.errors import GenimaError
from genima_bringup.node_specs import simulator
from genima_cli.__main__ import main
from genima_sim.demo_recorder import DemoRecorder
from genima_sim.simulators import SIMULATORS, get_simulator

MINE = '''
"""A simulator of the user's."""

from genima.data.episodes import Episode
from genima.errors import GenimaError
from genima_sim.simulator import Simulator


class Mine(Simulator):
    time_limit = 7.0
    has_experts = True

    def require_task(self, task, cell):
        if task != "wave":
            raise GenimaError(f"task {task!r}: unknown")

    def environment(self, cell, spec, host, port):
        return self.demo_environment(cell)

    def demo_environment(self, cell):
        from genima_sim.environment import Environment

        return Environment(cell)
'''


def test_a_simulator_of_the_users_is_found_by_its_module(write_module: Callable[[str, str], Path]) -> None:
    write_module("simulators/mine.py", MINE)
    cell = replace(load_cell("sim_panda"), name="my_cell", simulator="mine")
    found = get_simulator(cell)
    assert (found.name, found.time_limit) == ("mine", 7.0)
    found.require_task("wave", cell)
    with pytest.raises(GenimaError, match="task 'nod': unknown"):
        found.require_task("nod", cell)
    with pytest.raises(GenimaError, match="cell my_cell: simulated by mine, in lock-step only; use ./genima eval"):
        simulator(cell)


def test_demos_are_recorded_by_each_simulator_with_experts(
    write_module: Callable[[str, str], Path], tmp_path: Path
) -> None:
    write_module("simulators/mine.py", MINE)
    cell = replace(load_cell("sim_panda"), name="my_cell", simulator="mine")
    recorder = DemoRecorder(cell)
    assert recorder.record(tmp_path / "demo", "push_button", 100_000) and Episode.load(tmp_path / "demo", cell.robot)
    recorder.close()


@pytest.mark.parametrize(("arguments", "line"), [
    (["--cell", "sim_rlbench"], "cell sim_rlbench: tasks of rlbench have no scripted experts; take a cell"),
    (["--cell", "fr3_crisp"], "cell fr3_crisp: a real robot; name a simulated cell"),
    (["--task", "push_buton"], "task 'push_buton': unknown"),
])  # fmt: skip
def test_lockstep_recording_that_is_not_possible_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for mode in ("--lockstep", "--sim"):
        assert main(["record", mode, *arguments]) == 2
        assert line in capsys.readouterr().err.replace("\n", " ")


def test_unknown_and_incomplete_simulators_are_refused_in_one_line(write_module: Callable[[str, str], Path]) -> None:
    cell = load_cell("sim_panda")
    with pytest.raises(GenimaError, match="simulator 'mujocco': unknown; .*did you mean mujoco"):
        get_simulator(replace(cell, simulator="mujocco"))
    write_module("simulators/mine.py", MINE.replace("def environment", "def start"))
    with pytest.raises(GenimaError, match="simulator mine: class Mine lacks environment; add them in .*mine.py"):
        get_simulator(replace(cell, simulator="mine"))
    with pytest.raises(GenimaError, match="cell lab: a real robot"):
        get_simulator(replace(cell, name="lab", simulator=""))


def test_nodes_of_simulators_are_those_of_the_registry() -> None:
    assert list(SIMULATORS) == ["coppeliasim", "mujoco", "rlbench"]
    cell = load_cell("sim_panda")
    (node,) = simulator(cell)
    assert (node.package, node.executable) == ("genima_sim", "sim_node") and "host" not in node.parameters
    (node,) = simulator(load_cell("sim_coppeliasim"), host="there", port=4)
    assert (node.executable, node.parameters["host"], node.parameters["port"]) == ("coppeliasim", "there", 4)
    with pytest.raises(GenimaError, match="cell sim_rlbench: simulated by rlbench, in lock-step only"):
        simulator(load_cell("sim_rlbench"))
