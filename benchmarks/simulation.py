"""Speed of the simulated tasks: physics against real time, and processor time of a set of images, on one core."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import tyro
from benchmark_report import ReportOptions, require_report, write_report
from pydantic import Field

from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima_sim.experts import Expert
from genima_sim.rendering import SceneRenderer
from genima_sim.simulation import Simulation
from genima_sim.task_checks import run_expert
from genima_sim.tasks import TASKS, get_task

WARM_UP = 3  # sets of images


@dataclass
class Options(ReportOptions):
    """Measure physics and rendering of the simulated tasks while their experts act."""

    tasks: tuple[str, ...] = ()
    """Names of tasks; default: all of them."""
    size: Annotated[int, Field(ge=16, le=1024)] = 128
    """Side of the images in px."""
    seed: Annotated[int, Field(ge=0)] = 1000
    """Seed of the scene."""


@dataclass(frozen=True)
class Speed:
    """Speed of one task."""

    real_time_factor: float  # simulated s per s of processor time, without images
    p50: float  # ms of processor time for the images of all views
    p99: float


def main() -> None:
    options = tyro.cli(Options)
    for name in options.tasks:
        get_task(name)
    require_report(options.out, "simulation", options.overwrite)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["LP_NUM_THREADS"] = "0"  # Mesa's software renderer then draws in our thread
    robot = RobotModel.load("panda")
    cameras = {view: camera.scale(options.size, options.size) for view, camera in Simulation(robot).cameras.items()}
    simulation, expert = Simulation(robot, cameras=cameras), Expert(robot)
    names = options.tasks or tuple(TASKS)
    results = {name: measure(simulation, expert, name, options.seed) for name in names}
    print(f"{'task':36}{'x real time':>12}{'ms, p50':>10}{'p99':>8}   {len(cameras)} views of {options.size} px")
    for name, speed in results.items():
        print(f"{name:36}{speed.real_time_factor:12.0f}{speed.p50:10.1f}{speed.p99:8.1f}")
    write_report(
        options.out,
        "simulation",
        {"size": options.size, "tasks": {name: asdict(speed) for name, speed in results.items()}},
    )


def measure(simulation: Simulation, expert: Expert, task: str, seed: int) -> Speed:
    """Play an expert, once without and once with images at each command."""
    attempt = run_expert(simulation, expert, task, seed)
    renderer, times = SceneRenderer(simulation.model, simulation.cameras), []

    def render() -> None:
        begin = time.process_time()
        renderer.render(simulation.qpos(), simulation.model)
        times.append(1e3 * (time.process_time() - begin))

    run_expert(simulation, expert, task, seed, render)
    renderer.close()
    p50, p99 = np.percentile(times[WARM_UP:], [50, 99])
    return Speed(attempt.simulated / attempt.processing, float(p50), float(p99))


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"simulation: {error}")
