"""`./genima teleop`: lead the simulated robot, through the same nodes as a real one."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
import tempfile
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from genima.errors import GenimaError
from genima_bringup.demo import interruptible
from genima_bringup.processes import led
from genima_bringup.supervisor import Supervisor, ros_environment
from genima_sim.tasks import TASKS, get_task

_READY_TIMEOUT = 120.0  # s
_AGREE_TIMEOUT = 60.0  # s for the follower to come to the leader
_SPEED, _TURN = 0.12, 0.6  # m/s, rad/s of the tip while a key is down
_KEYS = {  # axis of the tip's speed, in the base's frame, and its sign
    "w": (0, 1), "s": (0, -1), "a": (1, 1), "d": (1, -1), "r": (2, 1), "f": (2, -1),
    "u": (3, 1), "o": (3, -1), "i": (4, 1), "k": (4, -1), "j": (5, 1), "l": (5, -1),
}  # fmt: skip
_HELP = (
    "w/s forwards, back  a/d left, right  r/f up, down  j/l turn  i/k, u/o tilt  g gripper  "
    "space follow or rest  n next scene  q end"
)


def main(argv: list[str]) -> int:
    """Lead the arm; returns the exit code: 1 when an expert's task was not done."""
    options = _parse(argv)
    get_task(options.task)
    os.environ.update(ros_environment())
    with contextlib.ExitStack() as stack:
        logs = options.logs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(interruptible())
        try:
            return _run(options, logs)
        except KeyboardInterrupt:
            return 130


def _run(options: argparse.Namespace, logs: Path) -> int:
    processes = led("expert" if options.leader == "expert" else "jog")
    with Supervisor(processes, logs, ros_environment()) as supervisor:
        import rclpy  # after the processes have been started: they load meanwhile
        from rclpy.signals import SignalHandlerOptions

        from genima_bringup.operator import Operator

        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        operator = Operator()
        try:
            print("starting the simulator and the leader ...", flush=True)
            operator.wait_ready([process.executable for process in processes], _READY_TIMEOUT, supervisor.check)
            with tqdm(bar_format="{desc}", disable=None) as line:

                def live() -> None:
                    supervisor.check()
                    line.set_description_str(_live_line(operator), refresh=False)
                    line.refresh()

                if options.leader == "expert":
                    return _play(options, operator, line, live)
                return _push(options, operator, line, live)
        finally:
            operator.close()
            rclpy.try_shutdown()


def _play(options: argparse.Namespace, operator, line: tqdm, live) -> int:  # type: ignore[no-untyped-def]
    """The expert leads, episode after episode."""
    done = 0
    for seed in range(options.seed, options.seed + options.episodes):
        operator.reset(options.task, seed, live)
        operator.require(operator.trigger("leader/home", live))
        operator.lead(_AGREE_TIMEOUT, live)
        seconds = operator.play(live)
        done += operator.success
        line.write(f"seed {seed}: {'done' if operator.success else 'not done'} after {seconds:.1f} s")
        operator.trigger("teleop/end", live)
    print(f"{done} of {options.episodes} done")
    return 0 if done == options.episodes else 1


def _push(options: argparse.Namespace, operator, line: tqdm, live) -> int:  # type: ignore[no-untyped-def]
    """The keyboard or a gamepad leads until the operator has enough."""
    seed = options.seed
    line.write(f"{operator.reset(options.task, seed, live)}\n{_HELP}")
    operator.lead(_AGREE_TIMEOUT, live)
    with _keys() as read:
        done = False
        while True:
            operator.spin_until(lambda: False, 0.02, live)
            if operator.success and not done:
                line.write("done; n for the next scene, q to end")
            done = operator.success
            for key in read():
                if key in ("q", "\x03", "\x04"):
                    operator.trigger("teleop/end", live)
                    return 0
                if key in _KEYS:
                    axis, sign = _KEYS[key]
                    operator.push(sign * (_SPEED if axis < 3 else _TURN) * np.eye(6)[axis])
                elif key == "g":
                    operator.toggle_gripper()
                elif key == " ":
                    answer = operator.trigger("teleop/pause" if operator.following else "teleop/start", live)
                    line.write(answer.message)
                elif key == "n":
                    operator.trigger("teleop/end", live)
                    seed += 1
                    line.write(operator.reset(options.task, seed, live))
                    operator.lead(_AGREE_TIMEOUT, live)


def _live_line(operator) -> str:  # type: ignore[no-untyped-def]
    status = operator.status
    if status is None:
        return ""
    apart = f"{np.degrees(np.abs(status.distance).max()):.1f} deg apart" if status.distance else "distance unknown"
    faults = operator.faults()
    reason = f" ({status.reason})" if status.reason else ""
    return f"{status.phase}{reason}  {apart}  leader {status.leader_rate:.0f} Hz" + (
        f"  ! {faults[0]}" if faults else ""
    )


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """Keys as they are pressed, without Enter."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)

    def read() -> str:
        ready, _, _ = select.select([terminal], [], [], 0)
        return os.read(terminal, 64).decode(errors="ignore") if ready else ""

    try:
        yield read
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


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
    if options.leader != "expert" and not sys.stdin.isatty():
        raise GenimaError(f"--leader {options.leader} needs a terminal for its keys; --leader expert does not")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
