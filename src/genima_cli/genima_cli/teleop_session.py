"""Session of a teleoperation command: processes, operator node, live line, and keys."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import tempfile
import termios
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from genima.errors import GenimaError
from genima.system.ros_names import require_namespace
from genima_bringup.node_specs import CLOCK_WATCH, NodeSpec
from genima_cli.supervisor import Supervisor
from genima_nodes.ros.ros_context import create, ros_context
from genima_nodes.ros.ros_environment import joining_environment, ros_environment

if TYPE_CHECKING:  # ROS is loaded while the processes start
    from genima_cli.operator import Operator

_READY_TIMEOUT = 120.0  # s
_AGREE_TIMEOUT = 60.0  # s for the follower to come to the leader
_SPEED, _TURN = 0.12, 0.6  # m/s, rad/s of the tip while a key is down
_AXES = {  # of the tip's speed, in the base's frame, and its sign
    "w": (0, 1), "s": (0, -1), "a": (1, 1), "d": (1, -1), "r": (2, 1), "f": (2, -1),
    "u": (3, 1), "o": (3, -1), "i": (4, 1), "k": (4, -1), "j": (5, 1), "l": (5, -1),
}  # fmt: skip
_AXES_HELP = "w/s forwards, back  a/d left, right  r/f up, down  j/l turn  i/k, u/o tilt  g gripper"
_QUIT = ("q", "\x04")  # also Ctrl-D; Ctrl-C is a signal


class Key(NamedTuple):
    """Key of a session: its action and its status text."""

    help: str
    act: Callable[[], str]


class TeleopSession:
    """Operator node in a running graph, and its live line."""

    def __init__(self, operator: Operator, line: tqdm, check: Callable[[], None]) -> None:
        self.operator = operator
        self._line, self._check = line, check
        self._began = False  # whether this session started the follower

    def live(self) -> None:
        """Check all processes and update the live line."""
        self._check()
        self._line.set_description_str(format_status(self.operator), refresh=False)
        self._line.refresh()

    def write_line(self, text: str) -> None:
        """Print a line above the live line."""
        self._line.write(text)

    def lead(self) -> None:
        """Take the follower, and wait until it mirrors."""
        self._began = True
        self.operator.lead(_AGREE_TIMEOUT, self.live)

    def run_keys(self, keys: Mapping[str, Key]) -> None:
        """Run keys until the operator ends it; on any exit, stop the follower that was engaged.

        Where there is a follower, one key more has it follow; where there is a jog, some push the arm's tip.
        """
        follow = Key("follow or rest", self._follow_or_rest)
        shown = {"space": follow, **keys} if self.operator.has_follower else keys
        helps = [f"{key} {what.help}" for key, what in shown.items()]
        with _terminal_keys() as read:
            self.write_line("  ".join([*([_AXES_HELP] if self.operator.has_jog else []), *helps, "q end"]))
            try:
                self._run_key({" ": follow, **keys}, read)
            finally:
                if self._began and self.operator.has_follower:  # also when another process has ended
                    self.try_action(lambda: self.operator.call_trigger("teleop/end", lambda: None))

    def try_action(self, act: Callable[[], str]) -> None:
        """Run an action and print its text or its error."""
        try:
            self.write_line(act())
        except GenimaError as error:
            self.write_line(str(error))

    def _run_key(self, keys: Mapping[str, Key], read: Callable[[], str]) -> None:
        operator, done = self.operator, False
        while True:
            operator.spin_until(lambda: False, 0.02, self.live)
            if operator.success and not done:
                self.write_line("done")
            done = operator.success
            for key in read():
                if key in _QUIT:
                    return
                if key in keys:
                    self.try_action(keys[key].act)
                elif operator.has_jog and key in _AXES:
                    axis, sign = _AXES[key]
                    operator.push(sign * (_SPEED if axis < 3 else _TURN) * np.eye(6)[axis])
                elif operator.has_jog and key == "g":
                    self.try_action(operator.toggle_gripper)

    def _follow_or_rest(self) -> str:
        if not self.operator.has_follower:
            raise GenimaError("no follower; start the node teleop")
        self._began = True
        service = "teleop/pause" if self.operator.following else "teleop/start"
        return str(self.operator.trigger(service, self.live).message)


@contextlib.contextmanager
def teleop_session(
    processes: Sequence[NodeSpec],
    logs: Path | None,
    environment: Mapping[str, str] | None = None,
    what: str = "the simulator and its arm's nodes",
    required: str = "",
) -> Iterator[TeleopSession]:
    """Run processes with an operator in their graph.

    Args:
        processes: nodes to run.
        logs: folder for their logs; None: a temporary one.
        environment: variables of their graph; None: of one of their own on this machine.
        what: name of the processes in the line that is printed at their start.
        required: node whose fault ends the session; empty: none.
    """
    environment = dict(environment or ros_environment())
    os.environ.update(environment)
    with contextlib.ExitStack() as stack:
        folder = logs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        supervisor = stack.enter_context(Supervisor(processes, folder, environment))
        operator = stack.enter_context(_operator(""))
        print(f"starting {what} ...", flush=True)
        nodes = [process.node for process in processes if process != CLOCK_WATCH]
        operator.wait_ready(nodes, _READY_TIMEOUT, supervisor.check)
        line = stack.enter_context(tqdm(bar_format="{desc}", disable=None))

        def check() -> None:
            supervisor.check()
            operator.require_no_fault(required)

        yield TeleopSession(operator, line, check)


@contextlib.contextmanager
def attach_operator(
    nodes: Sequence[str], namespace: str, dds: str, check: Callable[[], None] = lambda: None
) -> Iterator[TeleopSession]:
    """Join a running graph as operator, by a profile of config/dds; ``nodes`` are required.

    ``check`` raises when something that was started for it is not alive.
    """
    require_namespace(namespace, "--namespace")
    os.environ.update(joining_environment(dds))
    with _operator(namespace) as operator:
        operator.wait_ready(nodes, _READY_TIMEOUT, check)
        with tqdm(bar_format="{desc}", disable=None) as line:
            yield TeleopSession(operator, line, check)


@contextlib.contextmanager
def _operator(namespace: str) -> Iterator[Operator]:
    with ros_context():
        from genima_cli.operator import Operator  # after the processes have been started: they load meanwhile

        operator = create(lambda: Operator(namespace))
        try:
            yield operator
        finally:
            operator.close()


def format_status(operator: Operator) -> str:
    """Return the state of leader, follower, recorder and calibrator."""
    from genima.teleop.leader_follower import FollowerState  # imported here: --help must be quick

    status, recorder, calibrator = operator.status, operator.recorder, operator.calibrator
    parts = []
    if status is not None:
        apart = f"{np.degrees(np.abs(status.distance).max()):.1f} deg apart" if status.distance else "distance unknown"
        reason = f" ({status.reason})" if status.reason else ""
        plays = ", plays" if operator.leader.playing else ""
        state = FollowerState(status.state)
        remedy = ", space to continue" if state in (FollowerState.PAUSED, FollowerState.HELD) else ""
        parts += [f"{state.name}{reason}{remedy}", apart, f"leader {status.leader_rate:.0f} Hz{plays}"]
    if recorder is not None and recorder.recording:
        lost = f", {recorder.dropped} lost" if recorder.dropped else ""
        disk = f"{recorder.megabytes_per_second:.1f} MB/s, {recorder.free_gigabytes:.0f} GB free"
        parts.append(f"recording {recorder.seconds:.0f} s at {disk}{lost}")
    if calibrator is not None:
        now = (
            calibrator.automatic_text
            if calibrator.automatic == calibrator.RUNNING
            else calibrator.problem or "ready to take"
        )
        sure = f" ({calibrator.millimetres:.2f} mm, {calibrator.degrees:.3f} deg)" if calibrator.computed else ""
        parts.append(f"{len(calibrator.samples)} samples{sure}, {calibrator.coverage:.0%} covered: {now}")
    if faults := operator.faults():
        parts.append(f"! {faults[0]}")
    return "  ".join(parts)


def require_terminal(what: str) -> None:
    """Raise a GenimaError without a terminal."""
    if not sys.stdin.isatty():
        raise GenimaError(f"{what} needs a terminal for its keys")


@contextlib.contextmanager
def _terminal_keys() -> Iterator[Callable[[], str]]:
    """Yield keys as they are pressed, without Enter."""
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
