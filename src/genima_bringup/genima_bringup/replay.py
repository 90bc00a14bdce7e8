"""`./genima episodes replay`: play a demo's commands again, on the simulated robot or, slowly, on the real one.

The episode is a leader like any other: the follower comes to its beginning and mirrors it, through the command guard.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from genima.episodes import Episode
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.signals import interruptible
from genima_bringup.leading import Key, attached, leading, require_terminal
from genima_bringup.processes import Process, Value, following, simulator
from genima_bringup.supervisor import Supervisor, joining_environment
from genima_sim.tasks import TASKS, get_task

_REAL_SPEED = 0.25
_SLACK = 60.0  # s beyond what a demo takes, on a busy machine
_NODES = ("teleop", "command_guard")  # of a robot that runs already


@dataclass(frozen=True)
class _Options:
    demo: Path
    task: str
    seed: int | None
    speed: float
    seconds: float  # that it takes
    robot: str
    namespace: str
    dds: str
    logs: Path | None


def replay_demo(
    demo: tyro.conf.Positional[Path],
    sim: bool = False,
    speed: float | None = None,
    task: str = "",
    seed: int | None = None,
    robot: str = "panda",
    namespace: str = "",
    dds: str = "shared_memory",
    logs: Path | None = None,
) -> int:
    """Play a demo's commands again, on the simulated robot or, slowly, on a real one whose nodes run.

    Args:
        demo: Folder of the demo (rosbag2).
        sim: On the simulated robot; the exit code is 1 when its task was not done.
        speed: From 0.01 to 1, of the demo's own; default: 1 simulated, 0.25 otherwise.
        task: With --sim, of the scene; default: by the demo's name.
        seed: With --sim, of the scene; default: by the demo's name.
        robot: Robot model: a name in config/robots or a YAML file.
        namespace: Of the real robot's nodes.
        dds: As in the real robot's launch: two_machines where they are.
        logs: Folder for the nodes' logs.
    """
    if task:
        get_task(task)
    if speed is not None and not 0.01 <= speed <= 1:
        raise GenimaError("--speed must be from 0.01 to 1")
    if not sim:
        require_terminal("replaying on a real robot")
    episode = Episode.load(demo, RobotModel.load(robot))  # says in a moment what is wrong with it
    speed = speed or (1.0 if sim else _REAL_SPEED)
    seconds = float(episode.stamps[-1] - episode.stamps[0]) / speed
    options = _Options(demo, task, seed, speed, seconds, robot, namespace, dds, logs)
    with interruptible():
        try:
            return _simulate(options) if sim else _operate(options)
        except KeyboardInterrupt:
            return 130


def _simulate(options: _Options) -> int:
    task, seed = _scene(options)
    player = _player(options)
    with leading([*simulator(), *following(options.robot), player], options.logs) as session:
        operator = session.operator
        operator.reset(task, seed, session.live)
        session.lead()
        seconds = operator.play(session.live, options.seconds + _SLACK)
        operator.trigger("teleop/end", session.live)
        success = operator.success
    print(f"{options.demo.name}: {'done' if success else 'not done'} after {seconds:.1f} s")
    return 0 if success else 1


def _operate(options: _Options) -> int:
    player = _player(options)
    environment = joining_environment(options.dds)
    with (
        tempfile.TemporaryDirectory() as folder,
        Supervisor([player], options.logs or Path(folder), environment) as supervisor,
        attached([*_NODES, "replay"], options.namespace, options.dds, supervisor.check) as session,
    ):
        operator = session.operator

        def play() -> str:
            operator.require_following()
            return operator.said("leader/play", session.live)

        def home() -> str:
            return f"{operator.said('leader/home', session.live)}; space lets the arm come there"

        session.by_hand({"p": Key("play", play), "h": Key("back to the beginning", home)})
    return 0


def _player(options: _Options) -> Process:
    demo = str(options.demo.resolve())
    parameters: dict[str, Value] = {"episode": demo, "robot": options.robot, "speed": options.speed}
    namespace = {"__ns": f"/{options.namespace.strip('/')}"} if options.namespace else {}
    return Process("genima_nodes", "replay", parameters, namespace)


def _scene(options: _Options) -> tuple[str, int]:
    """Task and seed of the simulated scene, by the names that `./genima record` gives where they are not said."""
    task, _, seed = options.demo.resolve().name.rpartition("-")
    if options.task:
        task = options.task
    if options.seed is not None:
        seed = str(options.seed)
    if task not in TASKS or not seed.isdecimal():
        raise GenimaError(f"in which scene was {options.demo} recorded? Say it with --task and --seed")
    return task, int(seed)
