"""Timing of the demo's processes over minutes: late ticks, and memory.

Tasks follow each other on the simulated robot, as in `./genima demo`. A tick is late if it ends more than 5 ms after
its deadline, or is missing. For comparison, a thread that only sleeps and wakes at the same rate and priority is timed
in this process at the same time, and the fraction of CPU time taken by a virtual machine's host is reported.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import tyro
from benchmark_report import ReportOptions, require_report, write_report
from tqdm import tqdm

from genima.cell import load_cell
from genima.errors import GenimaError
from genima_bringup.node_specs import PolicyArguments, simulation_stack
from genima_cli.supervisor import Supervisor
from genima_nodes.ros.ros_environment import ros_environment
from genima_sim.tasks import BUNDLED_TASKS

COUNTERS = {"controller": ("due commands", "late commands"), "command_guard": ("due set-points", "late set-points")}
_READY = 180.0  # s
_SETTLED = 30.0  # s from the first task on, after which memory should stay as it is


@dataclass
class Options(ReportOptions):
    """Run the demo's processes and watch their ticks and their memory."""

    minutes: float = 10.0
    """Duration."""
    seed: int = 0
    """Seed of the first scene."""


def main() -> None:
    options = tyro.cli(Options)
    if not options.minutes > 0:
        raise GenimaError("--minutes must be positive")
    require_report(options.out, "steadiness", options.overwrite)
    os.environ.update(ros_environment())
    processes = simulation_stack(load_cell("sim_panda"), PolicyArguments(seed=options.seed))
    with (
        tempfile.TemporaryDirectory() as folder,
        Supervisor(processes, Path(folder), ros_environment()) as supervisor,
    ):
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        from genima_cli.graph_client import GraphClient
        from genima_nodes.ros.paced_thread import CALLBACKS, PacedThread, schedule_in_real_time

        schedule_in_real_time(CALLBACKS)  # like the nodes that are timed
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        driver, floor = GraphClient("steadiness"), PacedThread(0.02, lambda deadline, periods: True, "floor")
        try:
            driver.wait_ready([process.executable for process in processes], _READY, supervisor.check)
            memory: dict[str, list[tuple[float, float]]] = {process.executable: [] for process in processes}
            begin, end = time.monotonic(), time.monotonic() + 60 * options.minutes
            stolen = psutil.cpu_times().steal
            floor.start()
            successes = tasks = 0
            with tqdm(total=round(60 * options.minutes), unit="s", disable=None) as progress:

                def watch() -> None:
                    supervisor.check()
                    now = time.monotonic()
                    progress.update(min(progress.total, round(now - begin)) - progress.n)
                    for name, samples in memory.items():
                        if not samples or now - begin - samples[-1][0] > 1.0:
                            rss = psutil.Process(supervisor.pid(name)).memory_info().rss
                            samples.append((now - begin, rss / 2**20))

                while time.monotonic() < end:
                    task = BUNDLED_TASKS[tasks % len(BUNDLED_TASKS)]
                    instruction = driver.reset(task, options.seed + tasks, watch)
                    running = driver.begin_task(instruction, 20.0, watch)
                    result = driver.wait_for(running, "run_task", 40.0, watch).result
                    tasks, successes = tasks + 1, successes + (result.outcome == result.SUCCEEDED)
                    driver.spin_until(lambda: False, 0.5, watch)
            floor.close()
            seconds = (time.monotonic() - begin) * (os.cpu_count() or 1)
            content = {
                "minutes": options.minutes,
                "stolen": (psutil.cpu_times().steal - stolen) / seconds,
                "tasks": tasks,
                "successes": successes,
                "late": {name: late(driver, name) for name in COUNTERS} | {"(the kernel)": (floor.late, floor.ticks)},
                "memory_mib": {name: growth(samples) for name, samples in memory.items()},
            }
        finally:
            driver.close()
            rclpy.try_shutdown()
    print(f"{options.minutes:g} minutes, {successes} of {tasks} tasks succeeded, {content['stolen']:.1%} stolen")
    for name, (count, due) in content["late"].items():  # type: ignore[attr-defined]
        print(f"{name:<18}{count:>6} of {due} ticks late, {100 * (1 - count / max(1, due)):.3f}% in time")
    for name, (first, last, slope) in content["memory_mib"].items():  # type: ignore[attr-defined]
        print(f"{name:<18}{first:>8.1f} MiB after {_SETTLED:.0f} s, {last:.1f} at the end, {slope:+.2f} MiB a minute")
    write_report(options.out, "steadiness", content)


def late(driver, name: str) -> tuple[int, int]:  # type: ignore[no-untyped-def]
    """Ticks that were late, and that were due, as the node counts them."""
    from genima_nodes.ros.diagnostics import measurements

    measured = measurements(driver.statuses[name])
    due, missed = COUNTERS[name]
    return int(measured[missed]), int(measured[due])


def growth(samples: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Memory once settled and at the end, in MiB, and the slope between in MiB a minute (least squares)."""
    settled = np.array([sample for sample in samples if sample[0] >= _SETTLED] or samples[-1:])
    slope = float(np.polyfit(settled[:, 0] / 60, settled[:, 1], 1)[0]) if len(settled) > 2 else 0.0
    return float(settled[0, 1]), float(settled[-1, 1]), slope


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
