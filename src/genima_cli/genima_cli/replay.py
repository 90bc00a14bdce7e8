"""`./genima episodes replay`: replay a demo's commands on the simulated robot or, slowly, on a real one.

The episode takes the role of the leader: the follower moves to its start and mirrors it, through the command guard.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from genima.errors import GenimaError
from genima.system.command_line import REPLAY_SPEED, Seed, parse_options
from genima.system.signals import interrupt_on_signals
from genima_bringup.node_specs import NodeSpec, Value, leader_follower_nodes, simulator
from genima_cli.join_graph import GraphOptions
from genima_cli.supervisor import Supervisor
from genima_cli.teleop_session import Key, attach_operator, require_terminal, teleop_session
from genima_nodes.ros.ros_environment import joining_environment
from genima_sim.tasks import TASKS, get_task

if TYPE_CHECKING:
    from genima.cell import Cell
    from genima.robot.model import RobotModel

_REAL_SPEED = 0.25
_SLACK = 60.0  # s beyond the demo's duration, on a busy machine
_NODES = ("teleop", "command_guard")  # of a running robot


@dataclass
class Replay(GraphOptions):
    """Replay a demo's commands on the simulated robot or, slowly, on a real one with running nodes.

    With --sim, exit code 1 when the task was not done.
    """

    demo: tyro.conf.Positional[Path]
    """Folder of the demo (rosbag2)."""
    sim: bool = False
    """Play on the simulated robot."""
    speed: Annotated[float, Field(ge=REPLAY_SPEED[0], le=REPLAY_SPEED[1])] | None = None
    """Speed relative to the demo's own; default: 1 simulated, 0.25 otherwise."""
    task: str = ""
    """With --sim: task of the scene; default: by the demo's name."""
    seed: Seed | None = None
    """With --sim: seed of the scene; default: by the demo's name."""
    cell: str = ""
    """With --sim: robot cell, a name in config/cells or a YAML file; default: the simulated one of the demo's robot,
    which is that of the cell where the demo holds no robot model."""
    logs: Path | None = None
    """Folder for the nodes' logs."""


def main(argv: Sequence[str]) -> int:
    """Replay a demo; return the exit code."""
    options = parse_options(
        Replay, "genima episodes replay", argv,
        example="./genima episodes replay data/demos/push_button-100000 --sim",
    )  # fmt: skip
    if options.task:
        get_task(options.task)
    if not options.sim:
        if options.cell:
            raise GenimaError("--cell goes with --sim; a real robot's nodes run already, with their own")
        require_terminal("replaying on a real robot")
    from genima.cell import load_cell  # only here: for --help, nothing slow is imported
    from genima.data.episodes import Episode

    cell = load_cell(options.cell) if options.cell else None
    episode = Episode.load(options.demo, cell.robot if cell else None)  # reports in a moment what is wrong with it
    robot = episode.robot
    if cell is not None and not cell.has_robot(robot):
        raise GenimaError(f"cell {cell.name}: its robot is {cell.robot.name}, that of {options.demo} {robot.name}")
    speed = options.speed or (1.0 if options.sim else _REAL_SPEED)
    seconds = float(episode.stamps[-1] - episode.stamps[0]) / speed
    with interrupt_on_signals():
        if options.sim:
            return _simulate(options, cell or _simulated_cell(options.demo, robot), speed, seconds)
        return _replay_real(options, speed)


def _simulated_cell(demo: Path, robot: RobotModel) -> Cell:
    """Return the simulated cell of a demo's robot.

    Raises:
        GenimaError: where there is none.
    """
    from genima.cell import load_cell
    from genima.io import paths

    names = [file.stem for file in paths.yaml_files("config", "cells") if file.stem.startswith("sim_")]
    cells = [cell for cell in map(load_cell, names) if cell.simulator == "mujoco" and cell.has_robot(robot)]
    if not cells:
        raise GenimaError(f"{demo}: no simulated cell has its robot {robot.name}; name one with --cell")
    return cells[0]


def _simulate(options: Replay, cell: Cell, speed: float, most: float) -> int:
    task, seed = _scene(options)
    player = _player(options, speed)
    with teleop_session([*simulator(cell), *leader_follower_nodes(cell), player], options.logs) as session:
        operator = session.operator
        operator.reset(task, seed, session.live)
        session.lead()
        seconds = operator.play(session.live, most + _SLACK)
        operator.trigger("teleop/end", session.live)
        success = operator.success
    print(f"{options.demo.name}: {'done' if success else 'not done'} after {seconds:.1f} s")
    return 0 if success else 1


def _replay_real(options: Replay, speed: float) -> int:
    player = _player(options, speed)
    environment = joining_environment(options.dds)
    with (
        tempfile.TemporaryDirectory() as folder,
        Supervisor([player], options.logs or Path(folder), environment) as supervisor,
        attach_operator([*_NODES, "replay"], options.namespace, options.dds, supervisor.check) as session,
    ):
        operator = session.operator

        def play() -> str:
            operator.require_following()
            return operator.call_trigger("leader/play", session.live)

        def home() -> str:
            return f"{operator.call_trigger('leader/home', session.live)}; space lets the arm come there"

        session.run_keys({"p": Key("play", play), "h": Key("back to the beginning", home)})
    return 0


def _player(options: Replay, speed: float) -> NodeSpec:
    demo = str(options.demo.resolve())
    parameters: dict[str, Value] = {"episode": demo, "speed": speed, "cell": options.cell}
    namespace = {"__ns": f"/{options.namespace.strip('/')}"} if options.namespace else {}
    return NodeSpec("genima_nodes", "replay", parameters, namespace)


def _scene(options: Replay) -> tuple[str, int]:
    """Return task and seed of the simulated scene, by default from the demo's name."""
    task, _, seed = options.demo.resolve().name.rpartition("-")
    if options.task:
        task = options.task
    if options.seed is not None:
        seed = str(options.seed)
    if task.partition("@")[0] not in TASKS or not seed.isdecimal():
        raise GenimaError(f"{options.demo}: unknown scene; give --task and --seed")
    return task, int(seed)
