"""`./genima record`: record demos of a real or simulated robot, in real time or in lock-step."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import Field

from genima.errors import GenimaError
from genima.system.command_line import Episodes, Seed, Workers, parse_options
from genima.system.ros_names import require_topic
from genima.system.signals import interrupt_on_signals
from genima_bringup.node_specs import (
    CLOCK_WATCH,
    NodeSpec,
    jog,
    real_robot_stack,
    recorder,
    recording_stack,
    teleop_node,
)
from genima_cli.join_graph import GraphOptions
from genima_cli.teleop import SceneSequence
from genima_cli.teleop_session import Key, TeleopSession, attach_operator, require_terminal, teleop_session
from genima_sim.tasks import BUNDLED_TASKS, DEMO_HZ, DEMO_SEED, task_names

if TYPE_CHECKING:
    from genima.cell import Cell
    from genima_interfaces.srv import StartEpisode

_ATTEMPTS = 3  # attempts at an episode that was disturbed by a busy machine
_NODES = ("teleop", "recorder", "command_guard")  # of a running robot
_WITHOUT_ARM = ("keyboard", "gamepad")  # leaders
_OF_ROBOT = (
    *("speed", "unwrap_at_start"),
    *("leader_joints", "leader_gripper", "leader_joy"),
)


@dataclass
class Record(GraphOptions):
    """Record demos of the simulated robot (--sim, --lockstep), or of a real one.

    With --robot-ip, our own drivers of a real robot are started here, with guard, teleoperation and recorder; without,
    the robot's nodes run already.
    """

    cell: str = "sim_panda"
    """Robot cell: a name in config/cells or a YAML file."""
    sim: bool = False
    """Record the simulated robot, through the nodes, in real time."""
    lockstep: bool = False
    """Record in the simulator without ROS, as fast as the machine can."""
    task: Annotated[list[str], Field(min_length=1)] = field(default_factory=lambda: list(BUNDLED_TASKS))
    """Tasks to record, in the simulator; all: every task of ./genima tasks list."""
    episodes: Episodes = 50
    """Demos of each task, in the simulator; where the expert fails, the next seed takes its place."""
    seed: Seed = DEMO_SEED
    """Seed of the first demo, in the simulator; evaluations use small numbers."""
    perturb: list[str] = field(default_factory=list)
    """Perturbations of each scene, such as object_color or distractors, in MuJoCo: docs/tasks.md."""
    out: Path = Path("data/demos")
    """Folder for the demos; simulated ones already there are kept and not recorded again. A recorder that runs already
    has its own."""
    workers: Workers = 2
    """With --lockstep: processes."""
    leader: str = ""
    """Leader: expert (default), keyboard or gamepad with --sim; keyboard, gamepad, a name in config/teleop or a YAML
    file with --robot-ip."""
    images: Literal["jpeg", "png", "raw", "none"] = "jpeg"
    """Image format in the demos: raw with --sim or --robot-ip; none with --lockstep, whose demos hold the states from
    which ./genima episodes images renders images."""
    robot_ip: str = ""
    """Address of the real robot, to start its drivers."""
    leader_joints: str = "leader/joint_states"
    """With --robot-ip: topic of the leader's joints."""
    leader_gripper: str = "leader/gripper"
    """With --robot-ip: topic of the leader's gripper, where it has one of its own."""
    leader_joy: str = "leader/joy"
    """With --robot-ip: topic of the pedal or gamepad whose button moves the gripper."""
    speed: Annotated[float, Field(gt=0, le=1)] = 0.15
    """With --robot-ip: share of the arm's own speed with which it comes to the leader."""
    unwrap_at_start: bool = False
    """With --robot-ip: turn back joints of the leader that are whole turns (2 pi) off at the start."""
    camera_rate: Annotated[float, Field(ge=1, le=100)] = DEMO_HZ
    """With --sim: images a second of each camera."""
    instruction: str = ""
    """The task in words; --sim knows it by the task."""
    operator: str = ""
    """Name of the operator, kept with the demos."""
    notes: str = ""
    """Notes, kept with the demos."""
    logs: Path | None = None
    """Folder for the logs of the nodes that are started; default: a temporary one with --sim, else
    runs/record/<time>/logs."""


def main(argv: Sequence[str]) -> int:
    """Record demos; returns the exit code."""
    options = parse_options(
        Record, "genima record", argv, example="./genima record --lockstep --task push_button --episodes 20"
    )
    options.task = task_names(options.task)
    _require_possible(options)
    with interrupt_on_signals():
        if options.lockstep:
            from genima_sim import (
                demo_recorder as lockstep,  # imported here and below: after the options are checked
            )

            images = cast("lockstep.ImageFormat", options.images)  # checked
            demos = lockstep.DemoOptions(options.cell, images, tuple(options.perturb))
            return lockstep.record(options.out, options.task, options.episodes, options.seed, options.workers, demos)
        if options.robot_ip:
            return _start_robot(options)
        if not options.sim:
            return _record_running_robot(options)
        return _run_expert(options) if options.leader in ("", "expert") else _run_manual(options)


# -------------------------------------------------------------------------------------------- the expert as the leader


def _run_expert(options: Record) -> int:
    from genima_sim.demo_recorder import record_episodes

    return record_episodes(
        options.out, options.task, options.episodes, options.seed,
        lambda folders, total: _record_all(folders, total, options),
    )  # fmt: skip


def _record_all(folders: Sequence[Path], total: int, options: Record) -> int:
    """Record one demo after the other; return the number of the expert's failures."""
    from tqdm import tqdm

    from genima.cell import load_cell
    from genima.data.episodes.folders import PARTIAL, remove_recording

    cell = load_cell(options.cell)
    for folder in folders:
        remove_recording(folder.parent / PARTIAL / folder.name)
    failed = 0
    stack = _simulated_nodes(options, cell, "expert")
    with (
        teleop_session(stack, options.logs, required=stack[0].node) as session,  # the simulator
        tqdm(total=total, initial=total - len(folders), unit="demo", dynamic_ncols=True) as progress,
    ):
        for folder in folders:
            failed += not _record_one(folder, options, session)
            progress.update()
    return failed


def _simulated_nodes(options: Record, cell: Cell, leader: str) -> list[NodeSpec]:
    out, images = str(options.out), options.images
    return recording_stack(cell, leader, options.camera_rate, out, images, options.perturb)


def _record_one(folder: Path, options: Record, session: TeleopSession) -> bool:
    """Record one demo; return whether the expert succeeded (failures are not kept)."""
    from genima.data.episodes import Episode
    from genima.data.episodes.folders import remove_recording

    for _ in range(_ATTEMPTS):
        success = _try_once(folder, options, session)
        try:
            session.operator.require_following()
            if success:
                Episode.load(folder)
            return success
        except GenimaError as error:
            session.write_line(f"{folder.name} once more: {error}")
            remove_recording(folder)
        finally:
            session.operator.trigger("teleop/end", session.live)
    raise GenimaError(
        f"{folder.name} was disturbed {_ATTEMPTS} times; is this machine too busy? Let it do nothing else, or take a "
        f"--camera-rate below {options.camera_rate:g}"
    )


def _try_once(folder: Path, options: Record, session: TeleopSession) -> bool:
    operator = session.operator
    task, seed = folder.name.rsplit("-", 1)
    instruction = operator.reset(task, int(seed), session.live)
    operator.move_home(session.live)
    session.lead()
    operator.approach(session.live)
    operator.await_images(session.live)
    try:
        operator.start_episode(_request(options, instruction, folder.name), session.live)
        operator.play(session.live)
        operator.await_images(session.live)
    except BaseException:  # the recorder would complete it
        with contextlib.suppress(GenimaError):
            operator.call_trigger("recorder/discard", lambda: None)
        raise
    success = operator.success
    if success:
        operator.finish_episode(True, session.live)
    else:
        operator.call_trigger("recorder/discard", session.live)
    return success


# --------------------------------------------------------------------------------------------- a person as the leader


def _run_manual(options: Record) -> int:
    """Record with the keyboard or gamepad leader on the simulated arm."""
    from genima.cell import load_cell

    cell = load_cell(options.cell)
    with teleop_session(_simulated_nodes(options, cell, "jog"), options.logs) as session:
        scenes = SceneSequence(session, options.task[0], options.seed)
        session.write_line(scenes.begin())
        takes = EpisodeControls(session, options, lambda: options.instruction or scenes.instruction)
        with contextlib.closing(takes):
            session.run_keys(takes.keys() | {"n": Key("next scene", scenes.next)})
    print(f"{takes.kept} demos more in {options.out}")
    return 0


def _record_running_robot(options: Record) -> int:
    """Record on a robot with running nodes."""
    with attach_operator(_NODES, options.namespace, options.dds) as session:
        takes = EpisodeControls(session, options, lambda: options.instruction)
        with contextlib.closing(takes):
            session.run_keys(takes.keys())
    print(f"{takes.kept} demos more")
    return 0


def _start_robot(options: Record) -> int:
    """Start the drivers, leader and recorder of a real robot."""
    from genima_cli.join_graph import joined_graph
    from genima_cli.real import require_alone, require_driver
    from genima_nodes.ros.ros_environment import robot_environment

    nodes = _robot_nodes(options)
    require_driver()
    environment = robot_environment()
    os.environ.update(environment)
    with joined_graph("record") as driver:
        require_alone(driver, [spec.node for spec in nodes if spec != CLOCK_WATCH])
    logs = options.logs or Path("runs") / "record" / time.strftime("%Y-%m-%d_%H-%M-%S") / "logs"
    print(f"logs: {logs}", flush=True)
    with teleop_session(
        nodes, logs, environment, "the drivers, the guard, the teleoperation and the recorder"
    ) as session:
        takes = EpisodeControls(session, options, lambda: options.instruction)
        with contextlib.closing(takes):
            session.run_keys(takes.keys())
    print(f"{takes.kept} demos more in {options.out}")
    return 0


def _robot_nodes(options: Record) -> list[NodeSpec]:
    """Return the nodes to run.

    Raises:
        GenimaError: for files that are missing or wrong.
    """
    from genima.cell import load_cell
    from genima.teleop.leader_mapping import SAME, LeaderMapping
    from genima_cli.real import require_own_driver

    cell = load_cell(options.cell).with_robot_ip(options.robot_ip)
    require_own_driver(cell)
    if cell.calibrated:
        cell.load_cameras()
    else:
        print(f"cell {cell.name}: not calibrated yet ({cell.calibration}); training needs a calibration")
    by_hand = options.leader in _WITHOUT_ARM
    leader = SAME if by_hand else options.leader
    LeaderMapping.load(leader, cell.robot)
    topics = {
        "leader/joint_states": options.leader_joints,
        "leader/gripper": options.leader_gripper,
        "leader/joy": options.leader_joy,
    }
    for topic in topics.values():
        require_topic(topic, "leader's topic")
    return [
        *real_robot_stack(cell, None),
        teleop_node(cell, leader, options.speed, topics, options.unwrap_at_start),
        *([jog(cell)] if by_hand else []),
        recorder(cell, {"folder": str(options.out), "images": options.images}, topics),
    ]


class EpisodeControls:
    """Start and stop keys of episodes."""

    def __init__(self, session: TeleopSession, options: Record, instruction: Callable[[], str]) -> None:
        """``instruction`` is the text of the next episode."""
        self.kept = 0
        self._recording = False
        self._session, self._options, self._instruction = session, options, instruction

    def keys(self) -> dict[str, Key]:
        """Return the recording keys."""
        return {
            "b": Key("begin to record", self._begin),
            "y": Key("keep: it is done", lambda: self._keep(True, self._session.live)),
            "z": Key("keep: it failed", lambda: self._keep(False, self._session.live)),
            "e": Key("keep: not judged", lambda: self._keep(None, self._session.live)),
            "x": Key("throw away", self._discard),
        }

    def close(self) -> None:
        """Keep an unfinished episode, without a judgement."""
        if self._recording:
            self._session.try_action(lambda: self._keep(None, lambda: None))

    def _begin(self) -> str:
        session, instruction = self._session, self._instruction()
        self._recording = True  # also where Ctrl-C comes before the answer
        try:
            folder = session.operator.start_episode(_request(self._options, instruction, ""), session.live)
        except GenimaError:
            recorder = session.operator.recorder
            self._recording = recorder is not None and recorder.recording
            raise
        return f"recording {folder}: {instruction}"

    def _keep(self, success: bool | None, alive: Callable[[], None]) -> str:
        text = self._session.operator.finish_episode(success, alive)
        self._recording = False
        self.kept += 1
        return text if success is not None else f"{text}, and not judged"

    def _discard(self) -> str:
        text = self._session.operator.call_trigger("recorder/discard", self._session.live)
        self._recording = False
        return text


def _request(options: Record, instruction: str, name: str) -> StartEpisode.Request:
    from genima_interfaces.srv import StartEpisode  # only when ROS runs

    person = options.operator or ((options.leader or "expert") if options.sim else "")
    return StartEpisode.Request(name=name, instruction=instruction, operator_name=person, notes=options.notes)


def _require_possible(options: Record) -> None:
    """Raise a GenimaError for options that do not go together."""
    if options.sim and options.lockstep:
        raise GenimaError("--sim and --lockstep exclude each other: leave one out")
    real = not (options.sim or options.lockstep)
    if not real and options.leader not in ("", "expert", *_WITHOUT_ARM):
        raise GenimaError(f"--leader {options.leader}: in the simulator, it is expert, keyboard or gamepad")
    if options.sim:  # demo_recorder checks --lockstep
        _require_simulated(options)
    elif options.perturb and not options.lockstep:
        raise GenimaError("--perturb goes with --sim or --lockstep")
    _require_robot(options, real)
    if options.images == "raw" and options.lockstep:
        raise GenimaError("--images raw: not with --lockstep; use jpeg, png or none")
    if options.images == "none" and not options.lockstep:
        raise GenimaError("--images none: only with --lockstep; use jpeg, png or raw")
    if real and not options.instruction.strip():
        raise GenimaError(
            "give --instruction (and start the robot's drivers with --robot-ip, unless they run "
            "already: docs/demos.md), or take --sim, or --lockstep"
        )
    if real or (options.sim and options.leader in _WITHOUT_ARM):
        require_terminal(f"--leader {options.leader}" if options.sim else "recording a real robot")
        if options.sim and len(options.task) > 1:
            raise GenimaError(f"--leader {options.leader} does one --task")


def _require_simulated(options: Record) -> None:
    """Raise a GenimaError for a cell, a simulator or a task that cannot be recorded."""
    from genima.cell import load_cell
    from genima_sim.simulators import get_simulator, require_experts, require_perturbations

    cell = load_cell(options.cell)
    simulator = require_experts(cell) if options.leader in ("", "expert") else get_simulator(cell)
    for task in options.task:
        simulator.require_task(task, cell)
    require_perturbations(cell, options.perturb, options.task)


def _require_robot(options: Record, real: bool) -> None:
    """Raise a GenimaError for options of a real robot that do not go together."""
    if options.robot_ip:
        if not real:
            raise GenimaError("--robot-ip is of a real robot; leave it out, or --sim and --lockstep")
        if options.namespace:
            raise GenimaError("--namespace is of a robot that runs already; this one's nodes have none")
        if not options.leader:
            raise GenimaError("--leader is missing: leader of the arm")
        if options.leader == "expert":
            raise GenimaError("--leader expert: it leads the simulated robot only")
        from genima.cell import load_cell

        load_cell(options.cell).require_driver()
        return
    defaults = Record()
    for name in _OF_ROBOT:
        if getattr(options, name) != getattr(defaults, name):
            raise GenimaError(f"--{name.replace('_', '-')} goes with --robot-ip")
    if real and options.leader:
        raise GenimaError("--leader goes with --sim or --robot-ip: of a robot that runs already, teleop has its leader")
