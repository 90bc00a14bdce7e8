"""Half an hour of tasks on a real robot's graph, with stand-ins for arm, gripper and cameras.

Every process of real_robot.launch.py except ROS's drivers runs, with the bundled models. The stand-in
(`test/standins`) is a franka_ros2 with CRISP's controller, a Robotiq and four RealSense, driven by the
simulator's physics; its arm stops with an error at an FR3's limits. Reported are such errors, set-points beyond a
limit, rates, late ticks, and memory.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import tyro
from benchmark_report import ReportOptions, require_report, write_report
from tqdm import tqdm

from genima.control.command_guard import GuardSettings
from genima.control.limit_violations import count_violations
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.system.signals import interrupt_on_signals
from genima.types import TaskOutcome
from genima_bringup.node_specs import CLOCK_WATCH
from genima_cli.supervisor import Supervisor
from genima_nodes.ros.diagnostics import measurements
from genima_nodes.ros.paced_thread import CALLBACKS, PacedThread, schedule_in_real_time
from genima_nodes.ros.ros_environment import ros_environment
from genima_sim.tasks import BUNDLED_TASKS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))
from demo_timing import COUNTERS, growth, late  # noqa: E402
from standins import interfaces  # noqa: E402
from standins.cell import Cell, cell, prepare, set_scene  # noqa: E402

if TYPE_CHECKING:
    from genima_cli.graph_client import GraphClient
    from genima_interfaces.action import RunTask

_READY = 300.0  # s
_LIMIT = 20.0  # s a task
_REST = 1.0  # s between tasks
RATES = {
    "controller": "commands", "command_guard": "joint_command", "arm_adapter": "target",
    "diffusion_agent": "drawn targets",
}  # fmt: skip


@dataclass
class OnStandIns(ReportOptions):
    """Options of all benchmarks of this graph."""

    fps: float = 10.0
    """Rate of the cameras, Hz, limited by this machine's rendering."""
    seed: int = 0
    """Seed of the first scene."""


@dataclass
class Options(OnStandIns):
    """Run tasks again and again on the stand-ins, and watch."""

    minutes: float = 30.0
    """Duration."""


@dataclass
class Seen:
    """Over all tasks."""

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)  # of those that did not succeed
    set_points: int = 0
    count_violations: int = 0
    rates: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # Hz, one a second of a task
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))  # s, MiB
    load: list[float] = field(default_factory=list)


def main() -> None:
    options = tyro.cli(Options)
    if not options.minutes > 0 or not 0 < options.fps <= 100:
        raise GenimaError("--minutes must be positive, --fps at most 100")
    require_report(options.out, "real_robot", options.overwrite)
    with running(options.fps) as graph:
        content = watched(options, graph)
    print(text(content))
    write_report(options.out, "real_robot", content)


@dataclass(frozen=True)
class Graph:
    """Running processes of the robot's graph."""

    cell: Cell
    supervisor: Supervisor
    driver: GraphClient


@contextmanager
def running(fps: float, more: Mapping[str, str] | None = None) -> Iterator[Graph]:
    """The whole graph; ``more`` are variables for all its processes."""
    environment = ros_environment() | interfaces.environment()
    os.environ.update(environment)
    if more and "PYTHONPATH" in more:
        more = {**more, "PYTHONPATH": os.pathsep.join([more["PYTHONPATH"], os.environ["PYTHONPATH"]])}
    with tempfile.TemporaryDirectory() as folder:
        found = cell(Path(folder), fps)
        with Supervisor(found.processes, Path(folder) / "logs", environment | dict(more or {})) as supervisor:
            import rclpy  # after the processes have been started: they load meanwhile
            from rclpy.signals import SignalHandlerOptions

            from genima_cli.graph_client import GraphClient

            schedule_in_real_time(CALLBACKS)  # like the nodes that are timed
            rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
            driver = GraphClient("benchmark")
            prepare(driver)
            try:
                nodes = [process.node for process in found.ours if process != CLOCK_WATCH]
                driver.wait_ready(nodes, _READY, supervisor.check)
                yield Graph(found, supervisor, driver)
            finally:
                driver.close()
                rclpy.try_shutdown()


def tasks(
    driver: GraphClient, seed: int, end: float, watch: Callable[[], None], begin: Callable[[], None]
) -> Iterator[RunTask.Result]:
    """Tasks in turn until ``end``, monotonic s; ``begin`` is called before each, when the arm is at its start."""
    for count in itertools.count():
        if time.monotonic() > end:
            return
        instruction = set_scene(driver, BUNDLED_TASKS[count % len(BUNDLED_TASKS)], seed + count, watch)
        driver.spin_until(lambda: False, _REST, watch)
        begin()
        ended = driver.begin_task(instruction, _LIMIT, watch)
        result = driver.wait_for(ended, "run_task", _LIMIT + 30, watch).result
        driver.spin_until(lambda: False, _REST, watch)
        yield result


def watched(options: Options, graph: Graph) -> dict[str, Any]:
    """Run tasks and return their outcomes and the measurements."""
    from sensor_msgs.msg import JointState
    from std_msgs.msg import UInt32

    from genima_nodes.ros import messages, qos

    driver, floor = graph.driver, PacedThread(0.02, lambda deadline, periods: True, "floor")
    robot, seen = RobotModel.load(graph.cell.robot), Seen()
    commands: list[tuple[float, list[float]]] = []
    reflexes = [0]

    def on_command(message: JointState) -> None:
        commands.append((messages.seconds(message.header.stamp), list(message.position[:7])))

    def on_reflexes(message: UInt32) -> None:
        reflexes[0] = message.data

    driver.create_subscription(JointState, "joint_command", on_command, qos.COMMAND_LOG)
    driver.create_subscription(UInt32, "standin/reflexes", on_reflexes, qos.TASK)
    begin = time.monotonic()
    stolen = psutil.cpu_times().steal
    floor.start()
    with tqdm(total=round(60 * options.minutes), unit="s", disable=None) as progress:
        watch = watcher(graph, seen, begin, progress)
        with interrupt_on_signals(), suppress(KeyboardInterrupt):  # what was seen until then counts
            for result in tasks(driver, options.seed, begin + 60 * options.minutes, watch, commands.clear):
                seen.outcomes[TaskOutcome(result.outcome).name] += 1
                if result.outcome != result.SUCCEEDED:
                    seen.reasons[result.reason] += 1
                if commands:
                    stamps, positions = (np.array(column) for column in zip(*commands, strict=True))
                    seen.set_points += len(stamps)
                    seen.violations += count_violations(stamps, positions, robot, GuardSettings().late)
    floor.close()
    seconds = (time.monotonic() - begin) * (os.cpu_count() or 1)
    return {
        "minutes": (time.monotonic() - begin) / 60,
        "fps": options.fps,
        "stolen": (psutil.cpu_times().steal - stolen) / seconds,
        "load": float(np.mean(seen.load)),
        "outcomes": dict(seen.outcomes),
        "reasons": dict(seen.reasons),
        "reflexes": reflexes[0],
        "set_points": seen.set_points,
        "violations": seen.violations,
        "late": {name: late(driver, name) for name in COUNTERS} | {"(the kernel)": (floor.late, floor.ticks)},
        "rates": {name: np.percentile(rates, [5, 50]).tolist() for name, rates in seen.rates.items()},
        "memory_mib": {name: growth(samples) for name, samples in seen.memory.items()},
    }


def watcher(graph: Graph, seen: Seen, begin: float, progress: Any) -> Callable[[], None]:
    """Return a function that samples the graph a few times a second, and logs it once a second."""
    noted, health = [begin], graph.driver.statuses

    def watch() -> None:
        graph.supervisor.check()
        now = time.monotonic()
        progress.update(min(progress.total, round(now - begin)) - progress.n)
        if now - noted[0] < 1.0:
            return
        noted[0] = now
        seen.load.append(os.getloadavg()[0])
        for process in graph.cell.processes:
            rss = psutil.Process(graph.supervisor.pid(process.node)).memory_info().rss
            seen.memory[process.node].append((now - begin, rss / 2**20))
        guard = graph.driver.guard
        if guard is not None and guard.owner == "controller":
            for name, meter in RATES.items():
                seen.rates[name].append(measurements(health[name])[f"{meter} rate [Hz]"])

    return watch


def text(content: Mapping[str, Any]) -> str:
    """Return the report as text."""
    tasks = sum(content["outcomes"].values())
    lines = [
        f"{content['minutes']:.1f} minutes, cameras at {content['fps']:g} Hz, load {content['load']:.1f}, "
        f"{content['stolen']:.1%} of the processors stolen",
        f"{tasks} tasks: " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(content["outcomes"].items())),
        f"{content['reflexes']} reflexes; {content['violations']} of {content['set_points']} set-points over a limit",
    ]
    lines += [f"{count:>4} times: {reason}" for reason, count in sorted(content["reasons"].items())]
    for name, (low, middle) in content["rates"].items():
        lines.append(f"{name:<18}{middle:>8.1f} Hz in the middle, {low:.1f} Hz at the 5th percentile, in tasks")
    for name, (count, due) in content["late"].items():
        lines.append(f"{name:<18}{count:>6} of {due} ticks late, {100 * (1 - count / max(1, due)):.3f}% in time")
    for name, (first, last, slope) in content["memory_mib"].items():
        lines.append(f"{name:<18}{first:>8.1f} MiB once settled, {last:.1f} at the end, {slope:+.2f} MiB a minute")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
