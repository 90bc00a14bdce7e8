"""`./genima teleop`: teleoperate the simulated robot, through the same nodes as a real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from genima.system.command_line import Episodes, Seed, parse_options
from genima.system.signals import interrupt_on_signals
from genima_bringup.node_specs import teleop_stack
from genima_cli.teleop_session import Key, TeleopSession, require_terminal, teleop_session
from genima_sim.tasks import get_task


@dataclass
class Teleop:
    """Teleoperate the simulated robot, through the same nodes as a real one."""

    task: str = "push_button"
    """Task of the scene: a name of ./genima tasks list."""
    cell: str = "sim_panda"
    """Robot cell: a name in config/cells or a YAML file."""
    leader: Literal["expert", "keyboard", "gamepad"] = "keyboard"
    """Leader: a scripted expert, the keys of this terminal, or a gamepad on the topic joy."""
    episodes: Episodes = 1
    """Episodes that the expert plays."""
    seed: Seed = 0
    """Seed of the first scene; the next scene takes the next number."""
    logs: Path | None = None
    """Folder for the nodes' logs."""


def main(argv: Sequence[str]) -> int:
    """Teleoperate; return the exit code: 1 when an expert's task failed."""
    options = parse_options(Teleop, "genima teleop", argv, example="./genima teleop --task take_lid_off_saucepan")
    get_task(options.task)
    expert = options.leader == "expert"
    if not expert:
        require_terminal(f"--leader {options.leader}")
    from genima.cell import load_cell  # only here: for --help, nothing slow is imported

    cell = load_cell(options.cell)
    stack = teleop_stack(cell, "expert" if expert else "jog")
    simulator = stack[0].node if expert else ""  # its faults cannot be corrected while an expert leads
    with interrupt_on_signals(), teleop_session(stack, options.logs, required=simulator) as session:
        return _run_expert(options, session) if expert else _run_manual(options, session)


def _run_expert(options: Teleop, session: TeleopSession) -> int:
    """Run episodes with the scripted expert as the leader."""
    done, operator = 0, session.operator
    for seed in range(options.seed, options.seed + options.episodes):
        operator.reset(options.task, seed, session.live)
        operator.move_home(session.live)
        session.lead()
        operator.approach(session.live)
        seconds = operator.play(session.live)
        done += operator.success
        session.write_line(f"seed {seed}: {'done' if operator.success else 'not done'} after {seconds:.1f} s")
        operator.trigger("teleop/end", session.live)
    print(f"{done} of {options.episodes} done")
    return 0 if done == options.episodes else 1


def _run_manual(options: Teleop, session: TeleopSession) -> int:
    """Run the keyboard or gamepad leader until the operator ends it."""
    scenes = SceneSequence(session, options.task, options.seed)
    session.write_line(scenes.begin())
    session.run_keys({"n": Key("next scene", scenes.next)})
    return 0


class SceneSequence:
    """Scenes of one task in the simulator, one seed after the other."""

    def __init__(self, session: TeleopSession, task: str, seed: int) -> None:
        self._session, self._task, self.seed = session, task, seed
        self.instruction = ""

    def begin(self) -> str:
        """Reset the scene and engage the follower; return the instruction."""
        self.instruction = self._session.operator.reset(self._task, self.seed, self._session.live)
        self._session.lead()
        return self.instruction

    def next(self) -> str:
        """Set the next scene."""
        self._session.operator.trigger("teleop/end", self._session.live)
        self.seed += 1
        return self.begin()
