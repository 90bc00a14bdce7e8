"""Simulators of the user: a module in the user's folder is a simulator for cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import rclpy
from cells import write_cell
from domains import free_domain
from ros_graph import Graph

from genima.cell import load_cell
from genima.data.episodes import Episode
from genima.errors import GenimaError
from genima_bringup.node_specs import simulator
from genima_cli.__main__ import main
from genima_interfaces.srv import ResetScene
from genima_sim import simulator_node
from genima_sim.demo_recorder import DemoRecorder
from genima_sim.simulators import SIMULATORS, get_simulator

MINE = '''
"""A simulator of the user's."""

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

    def demo_environment(self, cell, images=True):
        from genima_sim.environment import Environment

        return Environment(cell)
'''


def test_user_simulator_is_found_by_module(write_module: Callable[..., Path]) -> None:
    write_module("simulators/mine.py", MINE)
    cell = replace(load_cell("sim_panda"), name="my_cell", simulator="mine", depth=False)
    found = get_simulator(cell)
    assert (found.name, found.time_limit) == ("mine", 7.0)
    found.require_task("wave", cell)
    with pytest.raises(GenimaError, match="task 'nod': unknown"):
        found.require_task("nod", cell)
    with pytest.raises(GenimaError, match="cell my_cell: simulated by mine, in lock-step only; use ./genima eval"):
        simulator(cell)


NODE = """

    node = "simulator_node"

    def create_node(self):
        from genima_sim.scene_node import SceneNode
        from genima_sim.simulation import Simulation

        class MyNode(SceneNode):
            def __init__(self):
                super().__init__("simulator_node")
                self._simulate(Simulation(self._robot), {}, 0.02)

            def _expose(self, stamp):
                pass

        return MyNode()
"""


@pytest.mark.any_pace
def test_user_simulator_runs_as_node(write_module: Callable[..., Path], tmp_path: Path) -> None:
    write_module("simulators/mine.py", MINE + NODE)
    cell = load_cell(write_cell(tmp_path, "sim_panda", simulator="mine", depth=None))
    (node,) = simulator(cell)
    assert (node.package, node.executable) == ("genima_sim", "simulator_node")
    arguments = ["--ros-args", "-p", f"cell:={cell.reference}"]
    rclpy.init(args=arguments, domain_id=free_domain())
    graph = Graph()
    try:
        graph.add(simulator_node.make_node())
        response = graph.call(ResetScene, "sim/reset", ResetScene.Request(task="push_button", seed=0))
        assert response.success and response.instruction == "push down the maroon button"
    finally:
        graph.close()


@pytest.mark.parametrize("command", ["eval", "demo"])
def test_checkpoint_of_other_robot_is_rejected_before_start(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, "--task", "push_button", "--cell", "sim_fr3", "--episodes", "1"]) == 2
    line = capsys.readouterr().err.strip()
    assert "cell sim_fr3: the checkpoint of Genima was trained for joints" in line and "fr3_joint1" in line
    assert not list(tmp_path.iterdir())


def test_demos_are_recorded_by_each_simulator_with_experts(write_module: Callable[..., Path], tmp_path: Path) -> None:
    write_module("simulators/mine.py", MINE)
    cell = replace(load_cell("sim_panda"), name="my_cell", simulator="mine", depth=False)
    recorder = DemoRecorder(cell)
    assert recorder.record(tmp_path / "demo", "push_button", 100_000) and Episode.load(tmp_path / "demo", cell.robot)
    recorder.close()


@pytest.mark.parametrize(("arguments", "line"), [
    (["--cell", "sim_rlbench"], "cell sim_rlbench: tasks of rlbench have no scripted experts; take a cell"),
    (["--cell", "fr3_crisp"], "cell fr3_crisp: a real robot; name a simulated cell"),
    (["--task", "push_buton"], "task 'push_buton': unknown"),
])  # fmt: skip
def test_impossible_lockstep_recording_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for mode in ("--lockstep", "--sim"):
        assert main(["record", mode, *arguments]) == 2
        assert line in capsys.readouterr().err.replace("\n", " ")


def test_invalid_simulators_are_rejected_in_one_line(write_module: Callable[..., Path]) -> None:
    cell = load_cell("sim_panda")
    with pytest.raises(GenimaError, match="simulator 'mujocco': unknown; .*did you mean mujoco"):
        get_simulator(replace(cell, simulator="mujocco"))
    write_module("simulators/mine.py", MINE, ("def environment", "def start"))
    with pytest.raises(GenimaError, match="simulator mine: class Mine lacks environment; add them in .*mine.py"):
        get_simulator(replace(cell, simulator="mine"))
    with pytest.raises(GenimaError, match="cell lab: a real robot"):
        get_simulator(replace(cell, name="lab", simulator=""))


def test_simulator_nodes_equal_registry() -> None:
    assert list(SIMULATORS) == ["coppeliasim", "mujoco", "rlbench"]
    cell = load_cell("sim_panda")
    (node,) = simulator(cell)
    assert (node.package, node.executable) == ("genima_sim", "sim_node") and "host" not in node.parameters
    (node,) = simulator(load_cell("sim_coppeliasim"), host="there", port=4)
    assert (node.executable, node.parameters["host"], node.parameters["port"]) == ("coppeliasim", "there", 4)
    with pytest.raises(GenimaError, match="cell sim_rlbench: simulated by rlbench, in lock-step only"):
        simulator(load_cell("sim_rlbench"))
