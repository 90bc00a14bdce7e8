"""`./genima task "..."`: run a task on a running robot once all nodes are ready."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from pydantic import Field
from tqdm import tqdm

from genima.errors import GenimaError
from genima.system.command_line import Seconds, parse_options
from genima.system.signals import interrupt_on_signals
from genima.types import TaskOutcome
from genima_cli.join_graph import GraphOptions, joined_graph
from genima_nodes.ros.ros_environment import joining_environment

_NODES = ("controller", "command_guard", "task_runner")
_POLICIES = ("diffusion_agent", "policy")  # one of them runs


@dataclass
class Task(GraphOptions):
    """Run a task on a running robot once all nodes are ready; exit code 1 when it fails."""

    instruction: tyro.conf.Positional[str]
    """The task in words, as in the demos."""
    time_limit: Annotated[float, Field(ge=0, le=86400)] = 60.0
    """Seconds after which the task ends; 0: none."""
    patience: Seconds = 300.0
    """Seconds to wait for the nodes."""


def main(argv: Sequence[str]) -> int:
    """Run the task; return the exit code: 1 when it was not done."""
    options = parse_options(Task, "genima task", argv, example='./genima task "push down the maroon button"')
    if not options.instruction.strip():
        raise GenimaError('instruction: empty; give a text such as "push down the maroon button"')
    os.environ.update(joining_environment(options.dds))
    with (
        interrupt_on_signals(),
        joined_graph("task", options.namespace) as driver,
        tqdm(bar_format="{desc}", disable=None) as line,
    ):

        def live() -> None:
            line.set_description_str("  ".join(["! " + fault for fault in driver.faults()]) or "all fine", refresh=True)

        try:
            line.write("waiting for the nodes ...")
            driver.wait_ready(_NODES, options.patience, live, _POLICIES)
            ended = driver.begin_task(options.instruction, options.time_limit, live)
            line.write(f"{options.instruction!r} is in force; Ctrl-C ends it")
            while not driver.spin_until(ended.done, 1.0, live):
                if problem := driver.problem("task_runner"):
                    raise GenimaError(f"task runner: {problem}; check that the robot's nodes still run")
            result = ended.result().result
            outcome = TaskOutcome(result.outcome)
            line.write(f"{outcome.name} after {result.elapsed:.1f} s ({result.reason})")
            return 0 if outcome in (TaskOutcome.SUCCEEDED, TaskOutcome.FINISHED) else 1
        except (GenimaError, KeyboardInterrupt) as why:
            if not driver.end_task():
                line.write("task runner: end of the task not confirmed; stop the arm with ./genima call stop")
            if isinstance(why, GenimaError):
                raise
            return 130
