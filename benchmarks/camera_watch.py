"""False alarms, detection of a moved camera, and effect on control of `calibration_watch` in the demo.

Tasks follow each other on the simulated robot: first without the node, then with it, then after one camera was moved.
Late ticks are counted as in ``demo_timing.py``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import tyro
from benchmark_report import ReportOptions, require_report, write_report
from demo_timing import COUNTERS, late
from std_srvs.srv import Trigger
from tqdm import tqdm

from genima.cell import load_cell
from genima.errors import GenimaError
from genima_bringup.node_specs import NodeSpec, camera_watch, simulation_stack
from genima_cli.supervisor import Supervisor
from genima_nodes.ros.ros_environment import ros_environment
from genima_sim.tasks import BUNDLED_TASKS

if TYPE_CHECKING:
    from genima_cli.graph_client import GraphClient

VIEWS = ("front", "wrist", "left_shoulder", "right_shoulder")
WATCH = "calibration_watch"
READY = 180.0  # s


@dataclass
class Options(ReportOptions):
    """Run tasks together with the watch."""

    tasks: int = 8
    """Tasks without the watch, and with it."""
    most: int = 20
    """Largest number of further tasks until a moved camera is detected."""
    bumped: str = "front"
    """View of the moved camera."""
    by: float = 0.02
    """Displacement in m."""


@dataclass(frozen=True)
class Part:
    """Measurements of a number of tasks."""

    name: str
    seconds: float
    tasks: int
    successes: int
    late: dict[str, tuple[int, int]]  # ticks by node, and how many were due
    alarms: list[str]  # of the watch
    checks: dict[str, str]  # latest report of the watch, by view
    load: float  # mean processes that wanted a processor, of the whole machine


class Bench:
    """The demo's processes, and who has them work."""

    def __init__(self, options: Options, watched: bool, stack: ExitStack) -> None:
        simulator = NodeSpec(
            "benchmarks", "bumped_simulator", {"bumped": options.bumped, "by": options.by}, name="sim_node"
        )
        processes = [simulator, *simulation_stack(load_cell("sim_panda"))[1:]]
        if watched:
            processes.append(camera_watch(load_cell("sim_panda")))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._supervisor = stack.enter_context(Supervisor(processes, folder, ros_environment()))

        from genima_cli.graph_client import GraphClient

        self.driver: GraphClient = GraphClient("bench")
        stack.callback(self.driver.close)
        self.driver.client(Trigger, "sim/bump")
        self.driver.wait_ready([process.node for process in processes], READY, self._supervisor.check)
        self._next = 0

    def run(self, name: str, most: int, enough: Callable[[], bool] = lambda: False) -> Part:
        """Tasks, until there are so many or there is enough."""
        before = self._late()
        self.driver.faults_so_far.clear()
        begin, successes, tasks, loads = time.monotonic(), 0, 0, []
        for _ in tqdm(range(most), desc=name, unit="task", disable=None):
            task = BUNDLED_TASKS[self._next % len(BUNDLED_TASKS)]
            instruction = self.driver.reset(task, self._next, self._supervisor.check)
            running = self.driver.begin_task(instruction, 20.0, self._supervisor.check)
            result = self.driver.wait_for(running, "run_task", 60.0, self._supervisor.check).result
            successes, tasks = successes + (result.outcome == result.SUCCEEDED), tasks + 1
            loads.append(psutil.getloadavg()[0])
            self._next += 1
            if self.driver.spin_until(enough, 2.0, self._supervisor.check):
                break
        return Part(
            name,
            time.monotonic() - begin,
            tasks,
            successes,
            {node: (bad - before[node][0], due - before[node][1]) for node, (bad, due) in self._late().items()},
            sorted({words for words in self.driver.faults_so_far if words.startswith(WATCH)}),
            self._latest_reports(),
            sum(loads) / len(loads),
        )

    def _late(self) -> dict[str, tuple[int, int]]:
        return {node: late(self.driver, node) for node in COUNTERS}

    def _latest_reports(self) -> dict[str, str]:
        from genima_nodes.ros.diagnostics import measurements

        if WATCH not in self.driver.statuses:
            return {}
        status = self.driver.statuses[WATCH]
        measured = measurements(status)
        latencies = {key: f"{measured[key]:.4g}" for key in ("check p50 [ms]", "check p99 [ms]")}
        return {"fault": status.message or "none"} | latencies

    def bump(self) -> str:
        """Move the camera."""
        return str(self.driver.trigger("sim/bump", self._supervisor.check).message)

    def alarmed(self, view: str) -> bool:
        """Return whether the watch reports a moved camera."""
        return WATCH in self.driver.statuses and f"camera {view}: moved" in self.driver.statuses[WATCH].message


def main() -> None:
    options = tyro.cli(Options)
    require_report(options.out, "camera_watch", options.overwrite)
    os.environ.update(ros_environment())
    parts = []
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        with ExitStack() as stack:
            parts.append(Bench(options, False, stack).run("without the watch", options.tasks))
        with ExitStack() as stack:
            bench = Bench(options, True, stack)
            parts.append(bench.run("with it", options.tasks))
            print(bench.bump())
            parts.append(bench.run("bumped", options.most, lambda: bench.alarmed(options.bumped)))
            noticed = bench.alarmed(options.bumped)
    finally:
        rclpy.try_shutdown()
    for part in parts:
        times = ", ".join(f"{node} {bad} of {due} late" for node, (bad, due) in part.late.items())
        print(
            f"{part.name}: {part.seconds:.0f} s, {part.successes} of {part.tasks} tasks, {times}; "
            f"load {part.load:.1f}; alarms: {'; '.join(part.alarms) or 'none'}; {part.checks}"
        )
    print(f"noticed: {noticed}")
    write_report(options.out, "camera_watch", {"parts": [asdict(part) for part in parts]})


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
