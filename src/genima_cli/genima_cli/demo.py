"""`./genima demo`: run the closed loop on a simulated robot, in real time, over ROS 2, and report on it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from tqdm import tqdm

from genima.errors import GenimaError
from genima.io.files import require_writable
from genima.io.outputs import output_lock, require_free
from genima.policy.chunk_sampling_options import ChunkSamplingOptions
from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima.policy.names import GENIMA
from genima.policy.registry import require_policy
from genima.system.command_line import Episodes, Port, Seconds, Seed, parse_options
from genima.system.signals import interrupt_on_signals
from genima.types import TaskOutcome
from genima_bringup.node_specs import (
    NodeSpec,
    PolicyArguments,
    chunk_sampling_parameters,
    sampling_parameters,
    simulation_stack,
)
from genima_cli.demo_report import EpisodeResult, Report
from genima_cli.machine_load import LoadMeter
from genima_cli.supervisor import Supervisor
from genima_nodes.ros.ros_context import create, ros_context
from genima_nodes.ros.ros_environment import ros_environment
from genima_sim.simulators import get_simulator, require_perturbations

if TYPE_CHECKING:  # for --help, nothing slow is imported
    from genima.cell import Cell
    from genima.policy.spec import Checkpoint
    from genima.types import Image
    from genima_cli import video as film
    from genima_cli.graph_monitor import GraphMonitor

_READY_TIMEOUT = 180.0  # s: a cold disk and two busy cores
_SETTLE = 0.5  # s between episodes, in which the guard brings the arm to rest
_EARLY = 0.03  # s that a camera's image may come before the next frame is due
_PICTURE_OF = 5  # which drawing of the run becomes the picture: the arm is on its way by then
_TASK = "push_button"  # where the tasks of the policy are not known

_FILES = ("report.json", "video.mp4", "video.mp4.part", "picture.png")  # of a run, beside its logs


@dataclass
class Demo:
    """Run the closed loop on the simulated robot, in real time, over ROS 2, and report on it."""

    task: str | None = None
    """Task: a name of ./genima tasks list; in CoppeliaSim one of its scene. Default: those that the policy was trained
    on, in turn, or push_button where that is not known."""
    episodes: Episodes = 10
    """Number of episodes."""
    seed: Seed = 0
    """Seed of the first scene; the next scene takes the next number."""
    time_limit: Seconds = 20.0
    """Seconds of an episode."""
    out: Path | None = None
    """Folder for report, video, picture and logs; default: runs/<time>."""
    overwrite: bool = False
    """Replace the report, video, picture and logs of an earlier run in --out."""
    policy: str = "genima"
    """Policy: genima (of --checkpoint), expert (scripted, simulation only), replay (of --episode), the name of your own
    module in policies/ of a folder in GENIMA_PATH, or a server: its address (ws://host:8000) or its YAML file."""
    checkpoint: str = ""
    """Folder of the trained policy; default: the bundled models of genima."""
    episode: str = ""
    """With replay: folder of the episode, as ./genima record makes them."""
    headless: bool = False
    """Show no window; the default where there is no display."""
    cell: str = "sim_panda"
    """Simulated robot cell: a name in config/cells or a YAML file; for sim_coppeliasim, CoppeliaSim runs already."""
    perturb: list[str] = field(default_factory=list)
    """Perturbations of each scene, such as object_color or distractors, in MuJoCo: docs/tasks.md."""
    host: str = "localhost"
    """With coppeliasim: machine that it runs on."""
    port: Port = 23000
    """With coppeliasim: port of its remote API."""
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    """Sampling options of genima: faster, and other, drawn targets."""
    chunk_sampling: ChunkSamplingOptions = field(default_factory=ChunkSamplingOptions)
    """Sampling options of diffusion_policy."""


def main(argv: Sequence[str]) -> int:
    """Run the demo; return the exit code."""
    example = "./genima demo --task take_lid_off_saucepan --episodes 3"
    options = parse_options(Demo, "genima demo", argv, example=example)
    options.headless = options.headless or not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    require_policy(options.policy)
    out = options.out or Path("runs") / time.strftime("%Y-%m-%d_%H-%M-%S")
    require_free(out, "run", options.overwrite, is_run)
    from genima.cell import load_cell  # only here: for --help, nothing slow is imported
    from genima.policy.spec import is_trained, read_policy
    from genima_bringup.argument_checks import require_policy as require_fitting_policy

    cell = load_cell(options.cell)
    nodes = _nodes(options, cell)
    simulator = get_simulator(cell, real_time=True)
    if options.task is not None:
        simulator.require_task(options.task, cell)
    require_fitting_policy(cell, options.policy, options.checkpoint, options.episode)  # before nodes start
    trained = read_policy(options.policy, options.checkpoint) if is_trained(options.policy) else None
    # Simulators without experts have names of their own for tasks.
    tasks = _choose_tasks(options.task, trained if simulator.has_experts else None)
    require_perturbations(cell, options.perturb, tasks)
    views = trained.spec.views if trained else cell.views
    out = out.absolute()
    report = Report(tasks, options.episodes, perturbations=options.perturb)
    with output_lock(out, "run"), interrupt_on_signals():
        _clear(out, options.overwrite)
        try:
            _run(options, nodes, views, out, report)
        except KeyboardInterrupt:
            report.interrupted = True
        report.write(out / "report.json")
    print(f"{report.text()}\nmore in {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    return 130 if report.interrupted else 0


def _choose_tasks(task: str | None, trained: Checkpoint | None) -> list[str]:
    """Return the tasks to run in turn; print a note about one that the policy was not trained on.

    Args:
        task: that the user names.
        trained: the policy, where it has been trained on tasks of :mod:`genima_sim.tasks`.
    """
    from genima_sim.tasks import find_task, get_task

    instructions = trained.spec.instructions if trained else ()
    known = list(dict.fromkeys(found.name for text in instructions if (found := find_task(text))))
    if task is None:
        return known or [_TASK]
    if trained and instructions and not set(get_task(task).sentences) & set(instructions):
        tasks = ", ".join(known) or "instructions of no task in simulation"
        print(f"genima: note: {trained.title} was not trained on {task}, but on {tasks}", flush=True)
    return [task]


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run: it holds logs of nodes or a report, and no other files."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    logs = folder / "logs"
    only_logs = not logs.exists() or (logs.is_dir() and all(path.suffix == ".log" for path in logs.iterdir()))
    return bool(names & {"logs", "report.json"}) and names <= {"logs", *_FILES} and only_logs


def _clear(out: Path, overwrite: bool) -> None:
    """Remove what an earlier run left in the folder, where the user asked for that; check that it is writable."""
    require_free(out, "run", overwrite, is_run)  # again, now that no other run can begin there
    try:
        for path in (*(out / name for name in _FILES), *(out / "logs").glob("*.log")):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise GenimaError(f"cannot remove {error.filename}: {error.strerror}") from None
    require_writable(out / "report.json")


def _nodes(options: Demo, cell: Cell) -> list[NodeSpec]:
    sampling = sampling_parameters(options.sampling)
    chunk_sampling = chunk_sampling_parameters(options.chunk_sampling)
    policy = PolicyArguments(
        options.policy,
        options.checkpoint,
        options.episode,
        seed=options.seed,
        sampling=sampling,
        chunk_sampling=chunk_sampling,
    )
    return simulation_stack(cell, policy, options.host, options.port, options.perturb)


def _run(options: Demo, nodes: Sequence[NodeSpec], views: Sequence[str], out: Path, report: Report) -> None:
    load = LoadMeter()
    environment = ros_environment()
    os.environ.update(environment)  # this process joins the same graph
    with (
        Supervisor(nodes, out / "logs", environment) as supervisor,
        _pictures(out, options.headless, views) as pictures,
        ros_context(),  # after the nodes have been started: they load meanwhile
    ):
        from genima_cli.graph_monitor import GraphMonitor
        from genima_nodes.ros.node_process import MONITOR_NICENESS, set_niceness

        set_niceness(MONITOR_NICENESS)
        monitor = create(lambda: GraphMonitor(views, pictures.add, drawn_targets=options.policy == GENIMA))
        try:
            print("starting the simulator and the models ...", flush=True)
            monitor.wait_ready([spec.node for spec in nodes], _READY_TIMEOUT, supervisor.check)
            with tqdm(bar_format="{desc}", disable=None) as line:  # no live line without a terminal
                for i, seed in enumerate(range(options.seed, options.seed + options.episodes)):
                    task = report.tasks[i % len(report.tasks)]

                    def live(seed: int = seed) -> None:
                        supervisor.check()
                        line.set_description_str(_live_line(monitor, report, seed), refresh=False)
                        line.refresh()

                    pictures.instruction = instruction = monitor.reset(task, seed, live)
                    before = monitor.statistics.drawn
                    result = monitor.run_task(instruction, options.time_limit, live)
                    drawn = monitor.statistics.drawn - before
                    outcome = TaskOutcome(result.outcome)
                    report.results.append(EpisodeResult(task, seed, outcome, result.reason, result.elapsed, drawn))
                    line.write(f"{task}, seed {seed}: {outcome.name} after {result.elapsed:.1f} s ({result.reason})")
                    if outcome is not TaskOutcome.SUCCEEDED:
                        monitor.require_no_fault(nodes[0].node)  # the simulator
                    monitor.spin_until(lambda: False, _SETTLE, live)
        finally:
            report.measurements = monitor.measurements(psutil.Process().create_time())
            report.load = load.read()
            monitor.close()


def _live_line(monitor: GraphMonitor, report: Report, seed: int) -> str:
    now = monitor.measurements(0.0)
    successes = sum(result.success for result in report.results)
    faults = monitor.faults()
    return (
        f"episode {min(len(report.results) + 1, report.requested)}/{report.requested} (seed {seed})  "
        f"success {successes}  policy {now.drawing_hz:.1f} Hz  commands {now.command_hz:.1f} Hz "
        f"({100 * now.late_fraction:.1f}% late)  latency {now.latency_ms['p50']:.0f} ms  dropped {monitor.dropped()}  "
        f"real time x{now.real_time_factor:.2f}" + (f"  ! {faults[0]}" if faults else "")
    )


class _Pictures:
    """Video and picture of a run."""

    def __init__(self, out: Path, headless: bool, views: Sequence[str]) -> None:
        from genima_cli import video as film

        self.instruction = ""  # of the episode that runs
        self._film, self._out, self._views = film, out, views
        self._window = None if headless else film.open_window()
        self._video: film.Video | None = None
        self._drawings = 0
        self._next_frame = 0.0  # monotonic s
        self._picture: Image | None = None

    def add(self, observation: Image, drawn: Image | None, matching: bool) -> None:
        if not matching and time.monotonic() < self._next_frame:
            return
        film, pair = self._film, self._film.side_by_side(observation, drawn)
        if not matching:
            self._next_frame = time.monotonic() + 1 / film.FPS - _EARLY
            self._video = self._video or film.Video(self._out / "video.mp4", pair.shape[1])
            self._video.add(pair)
            if self._window is not None:
                self._window.show(pair)
        elif self._drawings < _PICTURE_OF:
            self._drawings += 1
            self._picture = film.label(pair, self._views, self.instruction)

    def close(self) -> None:
        if self._window is not None:
            self._window.close()
        if self._video is not None:
            self._video.close()
        if self._picture is not None:
            self._film.write_picture(self._out / "picture.png", self._picture)


@contextlib.contextmanager
def _pictures(out: Path, headless: bool, views: Sequence[str]) -> Iterator[_Pictures]:
    pictures = _Pictures(out, headless, views)
    try:
        yield pictures
    finally:
        pictures.close()
