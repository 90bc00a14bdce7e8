"""`./genima record`: record demos, through the nodes of a real robot or, faster, in lock-step with the simulator."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from genima.episodes import Episode
from genima.episodes.bag import PARTIAL
from genima.episodes.folders import refuse_live
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima_bringup.leading import Key, Leading, attached, leading, require_terminal
from genima_bringup.processes import recorded
from genima_bringup.supervisor import interruptible
from genima_bringup.taking_part import add_graph_options
from genima_bringup.teleop import Scenes
from genima_sim import record as lockstep
from genima_sim.experts import DEMO_HZ
from genima_sim.tasks import TASKS, get_task

if TYPE_CHECKING:
    from genima_interfaces.srv import StartEpisode

_ATTEMPTS = 3  # at an episode that was disturbed: the machine may have been busy
_NODES = ("teleop", "recorder", "command_guard")  # of a robot that runs already


def main(argv: Sequence[str]) -> int:
    """Record demos; returns the exit code."""
    options = _parse(argv)
    with interruptible():
        try:
            if options.lockstep:
                return lockstep.record(options.out, options.task, options.episodes, options.seed, options.workers)
            if not options.sim:
                return _operate(options)
            return _play(options) if options.leader == "expert" else _push(options)
        except KeyboardInterrupt:
            return 130


# -------------------------------------------------------------------------------------------- the expert as the leader


def _play(options: argparse.Namespace) -> int:
    folders = lockstep.episode_folders(options.out, options.task, options.episodes, options.seed)
    todo = [folder for folder in folders if not folder.exists()]
    failed = _record_all(todo, len(folders), options) if todo else 0
    print(f"{len(folders) - failed} demos in {options.out}; the expert failed {failed} times")
    if failed == len(folders):
        raise GenimaError("no expert succeeded; nothing was recorded")
    return 0


def _record_all(folders: Sequence[Path], total: int, options: argparse.Namespace) -> int:
    """Record one after the other; returns how often the expert failed."""
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


def _record_one(folder: Path, options: argparse.Namespace, session: Leading) -> bool:
    """Record one demo; returns whether the expert succeeded (failures are not kept)."""
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


def _try_once(folder: Path, options: argparse.Namespace, session: Leading) -> bool:
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
    partial = folder.parent / PARTIAL / folder.name
    if partial.exists():
        refuse_live(partial)
        shutil.rmtree(partial)


# --------------------------------------------------------------------------------------------- a person as the leader


def _push(options: argparse.Namespace) -> int:
    """The keyboard or a gamepad leads the simulated arm."""
    with leading(recorded("jog", options.camera_rate, str(options.out), options.images), options.logs) as session:
        scenes = Scenes(session, options.task[0], options.seed)
        session.say(scenes.begin())
        takes = Takes(session, options, lambda: options.instruction or scenes.instruction)
        with contextlib.closing(takes):
            session.by_hand(takes.keys() | {"n": Key("next scene", scenes.next)})
    print(f"{takes.kept} demos more in {options.out}")
    return 0


def _operate(options: argparse.Namespace) -> int:
    """Somebody leads an arm whose nodes run already."""
    with attached(_NODES, options.namespace, options.dds) as session:
        takes = Takes(session, options, lambda: options.instruction)
        with contextlib.closing(takes):
            session.by_hand(takes.keys())
    print(f"{takes.kept} demos more")
    return 0


class Takes:
    """Episodes that begin and end by keys."""

    def __init__(self, session: Leading, options: argparse.Namespace, instruction: Callable[[], str]) -> None:
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


def _request(options: argparse.Namespace, instruction: str, name: str) -> StartEpisode.Request:
    from genima_interfaces.srv import StartEpisode  # only when ROS runs

    person = options.operator or (options.leader if options.sim else "")
    return StartEpisode.Request(name=name, instruction=instruction, operator_name=person, notes=options.notes)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./genima record", description=__doc__)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--sim", action="store_true", help="on the simulated robot, through the nodes, in real time")
    where.add_argument(
        "--lockstep", action="store_true", help="in the simulator without ROS: time waits, as fast as the machine goes"
    )
    parser.add_argument("--task", nargs="+", default=list(TASKS), help=f"of {', '.join(TASKS)} (default: all)")
    parser.add_argument("--episodes", type=int, default=50, help="demos of each task (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=lockstep.FIRST_SEED,
        help="of the first demo; evaluations use small numbers (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("data/demos"),
        help="folder for the demos; those already there are kept and not made again (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=2, help="with --lockstep: processes (default: %(default)s)")
    parser.add_argument(
        "--leader", choices=("expert", "keyboard", "gamepad"), default="expert",
        help="with --sim: who leads (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--images", choices=("jpeg", "png", "raw"), default="jpeg", help="with --sim: how they are kept"
    )
    parser.add_argument(
        "--camera-rate", type=float, default=DEMO_HZ, help="with --sim: images a second of each (default: %(default)s)"
    )
    parser.add_argument("--instruction", default="", help="what is done, in words; --sim knows it by the task")
    parser.add_argument("--operator", default="", help="who leads, to be kept with the demos")
    parser.add_argument("--notes", default="", help="to be kept with the demos")
    add_graph_options(parser)
    parser.add_argument("--logs", type=Path, help="with --sim: folder for the nodes' logs")
    options = parser.parse_args(argv)
    for task in options.task:
        get_task(task)
    if min(options.episodes, options.workers) < 1 or options.seed < 0:
        raise GenimaError("--episodes and --workers must be positive, --seed must not be negative")
    if not 1 <= options.camera_rate <= 100:
        raise GenimaError("--camera-rate must be from 1 to 100")
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
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
