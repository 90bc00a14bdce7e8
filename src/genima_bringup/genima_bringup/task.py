"""`./genima task "..."`: have a robot that runs do a task, once all its nodes are ready."""

from __future__ import annotations

import argparse
import os
import sys

from tqdm import tqdm

from genima.errors import GenimaError
from genima_bringup.supervisor import interruptible, joining_environment
from genima_bringup.taking_part import add_graph_options, taking_part

_NODES = ("diffusion_agent", "controller", "command_guard", "task_runner")


def main(argv: list[str]) -> int:
    """Run the task; returns the exit code: 1 when it was not done."""
    options = _parse(argv)
    os.environ.update(joining_environment(options.dds))
    with (
        interruptible(),
        taking_part("task", options.namespace) as driver,
        tqdm(bar_format="{desc}", disable=None) as line,
    ):

        def live() -> None:
            line.set_description_str("  ".join(["! " + fault for fault in driver.faults()]) or "all fine", refresh=True)

        try:
            line.write("waiting for the nodes ...")
            driver.wait_ready(_NODES, options.patience, live)
            ended = driver.begin_task(options.instruction, options.time_limit, live)
            line.write(f"{options.instruction!r} is in force; Ctrl-C ends it")
            while not driver.spin_until(ended.done, 1.0, live):
                if trouble := driver.trouble("task_runner"):
                    raise GenimaError(f"the task runner is {trouble}: does the robot's launch still run?")
            result = ended.result().result
            line.write(f"{result.outcome} after {result.elapsed:.1f} s ({result.reason})")
            return 0 if result.outcome in (result.SUCCEEDED, result.FINISHED) else 1
        except (GenimaError, KeyboardInterrupt) as why:
            if not driver.end_task():
                line.write("nobody confirms that the task ends: ./genima call stop stops the arm")
            if isinstance(why, GenimaError):
                raise
            return 130


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./genima task", description=__doc__)
    parser.add_argument("instruction", help="what is to be done, in words as in the demos")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds; 0: none (default: %(default)s)")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds to wait for the nodes")
    add_graph_options(parser)
    options = parser.parse_args(argv)
    if not options.instruction.strip() or not options.time_limit >= 0:
        raise GenimaError("the instruction must not be empty, nor --time-limit negative")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
