"""`./genima teleop`: lead the simulated robot, through the same nodes as a real one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from genima.errors import GenimaError
from genima_bringup.leading import Key, Leading, leading, require_terminal
from genima_bringup.processes import led
from genima_bringup.supervisor import interruptible
from genima_sim.tasks import TASKS, get_task


def main(argv: list[str]) -> int:
    """Lead the arm; returns the exit code: 1 when an expert's task was not done."""
    options = _parse(argv)
    get_task(options.task)
    expert = options.leader == "expert"
    with interruptible():
        try:
            with leading(led("expert" if expert else "jog"), options.logs) as session:
                return _play(options, session) if expert else _push(options, session)
        except KeyboardInterrupt:
            return 130


def _play(options: argparse.Namespace, session: Leading) -> int:
    """The expert leads, episode after episode."""
    done, operator = 0, session.operator
    for seed in range(options.seed, options.seed + options.episodes):
        operator.reset(options.task, seed, session.live)
        operator.come_home(session.live)
        session.lead()
        operator.approach(session.live)
        seconds = operator.play(session.live)
        done += operator.success
        session.say(f"seed {seed}: {'done' if operator.success else 'not done'} after {seconds:.1f} s")
        operator.trigger("teleop/end", session.live)
    print(f"{done} of {options.episodes} done")
    return 0 if done == options.episodes else 1


def _push(options: argparse.Namespace, session: Leading) -> int:
    """The keyboard or a gamepad leads until the operator has enough."""
    scenes = Scenes(session, options.task, options.seed)
    session.say(scenes.begin())
    session.by_hand({"n": Key("next scene", scenes.next)})
    return 0


class Scenes:
    """The simulator's scenes of one task, one seed after the other."""

    def __init__(self, session: Leading, task: str, seed: int) -> None:
        self._session, self._task, self.seed = session, task, seed
        self.instruction = ""

    def begin(self) -> str:
        """Set the scene and take the follower; returns what is to be done."""
        self.instruction = self._session.operator.reset(self._task, self.seed, self._session.live)
        self._session.lead()
        return self.instruction

    def next(self) -> str:
        """Set the next scene."""
        self._session.operator.trigger("teleop/end", self._session.live)
        self.seed += 1
        return self.begin()


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./genima teleop", description=__doc__)
    parser.add_argument("--task", default="push_button", help=f"one of: {', '.join(TASKS)} (default: %(default)s)")
    parser.add_argument(
        "--leader",
        choices=("expert", "keyboard", "gamepad"),
        default="keyboard",
        help="who leads: a scripted expert, these keys, or a gamepad on the topic joy (default: %(default)s)",
    )
    parser.add_argument("--episodes", type=int, default=1, help="how many the expert plays (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene; the next takes the next number")
    parser.add_argument("--logs", type=Path, help="folder for the nodes' logs")
    options = parser.parse_args(argv)
    if options.episodes < 1 or options.seed < 0:
        raise GenimaError("--episodes must be positive, --seed must not be negative")
    if options.leader != "expert":
        require_terminal(f"--leader {options.leader}")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
