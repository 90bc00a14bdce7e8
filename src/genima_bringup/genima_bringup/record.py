"""`./genima record`: record demos, through the nodes of a real robot or, faster, in lock-step with the simulator."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from genima.cli.options import Episodes, Seed, Workers, parse_options
from genima.errors import GenimaError
from genima.signals import interruptible
from genima_bringup.leading import Key, Leading, attached, leading, require_terminal
from genima_bringup.processes import recorded
from genima_bringup.taking_part import GraphOptions
from genima_bringup.teleop import Scenes
from genima_sim.tasks import DEMO_HZ, DEMO_SEED, TASKS, get_task

if TYPE_CHECKING:
    from genima_interfaces.srv import StartEpisode

_ATTEMPTS = 3  # at an episode that was disturbed: the machine may have been busy
_NODES = ("teleop", "recorder", "command_guard")  # of a robot that runs already


@dataclass
class Record(GraphOptions):
    """Record demos: of a real robot whose nodes run already, or, with --sim or --lockstep, of the simulated one."""

    sim: bool = False
    """Record the simulated robot, through the nodes, in real time."""
    lockstep: bool = False
    """Record in the simulator without ROS, as fast as the machine can."""
    task: Annotated[list[str], Field(min_length=1)] = field(default_factory=lambda: list(TASKS))
    """Tasks to record, in the simulator."""
    episodes: Episodes = 50
    """Demos of each task, in the simulator."""
    seed: Seed = DEMO_SEED
    """Seed of the first demo, in the simulator; evaluations use small numbers."""
    out: Path = Path("data/demos")
    """Folder for simulated demos; those already there are kept and not recorded again."""
    workers: Workers = 2
    """With --lockstep: processes."""
    leader: Literal["expert", "keyboard", "gamepad"] = "expert"
    """With --sim: who leads."""
    images: Literal["jpeg", "png", "raw"] = "jpeg"
    """With --sim: image format in the demos."""
    camera_rate: Annotated[float, Field(ge=1, le=100)] = DEMO_HZ
    """With --sim: images a second of each camera."""
    instruction: str = ""
    """The task in words; --sim knows it by the task."""
    operator: str = ""
    """Name of the operator, kept with the demos."""
    notes: str = ""
    """Notes, kept with the demos."""
    logs: Path | None = None
    """With --sim: folder for the nodes' logs."""


def main(argv: Sequence[str]) -> int:
    """Record demos; returns the exit code."""
    options = parse_options(
        Record, "genima record", argv, example="./genima record --lockstep --task push_button --episodes 20"
    )
    _require_possible(options)
    with interruptible():
        try:
            if options.lockstep:
                from genima_sim import record as lockstep  # here and below: not before the options have been checked

                return lockstep.record(options.out, options.task, options.episodes, options.seed, options.workers)
            if not options.sim:
                return _operate(options)
            return _play(options) if options.leader == "expert" else _push(options)
        except KeyboardInterrupt:
            return 130


# -------------------------------------------------------------------------------------------- the expert as the leader


def _play(options: Record) -> int:
    from genima_sim.record import episode_folders

    folders = episode_folders(options.out, options.task, options.episodes, options.seed)
    todo = [folder for folder in folders if not folder.exists()]
    failed = _record_all(todo, len(folders), options) if todo else 0
    print(f"{len(folders) - failed} demos in {options.out}; the expert failed {failed} times")
    if failed == len(folders):
        raise GenimaError("no expert succeeded; nothing was recorded")
    return 0


def _record_all(folders: Sequence[Path], total: int, options: Record) -> int:
    """Record one after the other; returns how often the expert failed."""
    from tqdm import tqdm

    for folder in folders:
        _remove_unfinished(folder)
    failed = 0
    with (
        leading(recorded("expert", options.camera_rate, str(options.out), options.images), options.logs) as session,
        tqdm(total=total, initial=total - len(folders), unit="demo", dynamic_ncols=True) as progress,
    ):
        for folder in folders:
            failed += not _record_one(folder, options, session)
            progress.update()
    return failed


def _record_one(folder: Path, options: Record, session: Leading) -> bool:
    """Record one demo; returns whether the expert succeeded (failures are not kept)."""
    from genima.episodes import Episode
    from genima.robot.model import RobotModel

    for _ in range(_ATTEMPTS):
        success = _try_once(folder, options, session)
        try:
            session.operator.require_following()
            if success:
                Episode.load(folder, RobotModel.load("panda"))
            return success
        except GenimaError as error:
            session.say(f"{folder.name} once more: {error}")
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            session.operator.trigger("teleop/end", session.live)
    raise GenimaError(
        f"{folder.name} was disturbed {_ATTEMPTS} times; is this machine too busy? Let it do nothing else, or take a "
        f"--camera-rate below {options.camera_rate:g}"
    )


def _try_once(folder: Path, options: Record, session: Leading) -> bool:
    operator = session.operator
    task, seed = folder.name.rsplit("-", 1)
    instruction = operator.reset(task, int(seed), session.live)
    operator.come_home(session.live)
    session.lead()
    operator.approach(session.live)
    operator.await_images(session.live)
    try:
        operator.start_episode(_request(options, instruction, folder.name), session.live)
        operator.play(session.live)
        operator.await_images(session.live)
    except BaseException:  # the recorder would complete it
        with contextlib.suppress(GenimaError):
            operator.said("recorder/discard", lambda: None)
        raise
    success = operator.success
    if success:
        operator.finish_episode(True, session.live)
    else:
        operator.said("recorder/discard", session.live)
    return success


def _remove_unfinished(folder: Path) -> None:
    """An expert's demo that was interrupted can be had again."""
    from genima.episodes.bag import PARTIAL
    from genima.episodes.folders import refuse_live

    partial = folder.parent / PARTIAL / folder.name
    if partial.exists():
        refuse_live(partial)
        shutil.rmtree(partial)


# --------------------------------------------------------------------------------------------- a person as the leader


def _push(options: Record) -> int:
    """The keyboard or a gamepad leads the simulated arm."""
    with leading(recorded("jog", options.camera_rate, str(options.out), options.images), options.logs) as session:
        scenes = Scenes(session, options.task[0], options.seed)
        session.say(scenes.begin())
        takes = Takes(session, options, lambda: options.instruction or scenes.instruction)
        with contextlib.closing(takes):
            session.by_hand(takes.keys() | {"n": Key("next scene", scenes.next)})
    print(f"{takes.kept} demos more in {options.out}")
    return 0


def _operate(options: Record) -> int:
    """Somebody leads an arm whose nodes run already."""
    with attached(_NODES, options.namespace, options.dds) as session:
        takes = Takes(session, options, lambda: options.instruction)
        with contextlib.closing(takes):
            session.by_hand(takes.keys())
    print(f"{takes.kept} demos more")
    return 0


class Takes:
    """Episodes that begin and end by keys."""

    def __init__(self, session: Leading, options: Record, instruction: Callable[[], str]) -> None:
        """``instruction`` says what is to be done now."""
        self.kept = 0
        self._recording = False
        self._session, self._options, self._instruction = session, options, instruction

    def keys(self) -> dict[str, Key]:
        """Keys to record with."""
        return {
            "b": Key("begin to record", self._begin),
            "y": Key("keep: it is done", lambda: self._keep(True, self._session.live)),
            "z": Key("keep: it failed", lambda: self._keep(False, self._session.live)),
            "e": Key("keep: not judged", lambda: self._keep(None, self._session.live)),
            "x": Key("throw away", self._discard),
        }

    def close(self) -> None:
        """An episode that is still being recorded is kept, not judged."""
        if self._recording:
            self._session.try_to(lambda: self._keep(None, lambda: None))

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
        words = self._session.operator.finish_episode(success, alive)
        self._recording = False
        self.kept += 1
        return words if success is not None else f"{words}, and not judged"

    def _discard(self) -> str:
        words = self._session.operator.said("recorder/discard", self._session.live)
        self._recording = False
        return words


def _request(options: Record, instruction: str, name: str) -> StartEpisode.Request:
    from genima_interfaces.srv import StartEpisode  # only when ROS runs

    person = options.operator or (options.leader if options.sim else "")
    return StartEpisode.Request(name=name, instruction=instruction, operator_name=person, notes=options.notes)


def _require_possible(options: Record) -> None:
    """Raise a GenimaError for options that do not go together."""
    if options.sim and options.lockstep:
        raise GenimaError("--sim and --lockstep exclude each other: leave one out")
    for task in options.task:
        get_task(task)
    real = not (options.sim or options.lockstep)
    if real and not options.instruction.strip():
        raise GenimaError(
            "say what is done with --instruction (the nodes of a real robot run already: docs/demos.md), "
            "or take --sim, or --lockstep"
        )
    if real or (options.sim and options.leader != "expert"):
        require_terminal(f"--leader {options.leader}" if options.sim else "recording a real robot")
        if options.sim and len(options.task) > 1:
            raise GenimaError(f"--leader {options.leader} does one --task")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
