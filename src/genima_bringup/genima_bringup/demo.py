"""`./genima demo`: the closed loop on the simulated robot, in real time, over ROS 2, with a report at the end."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from tqdm import tqdm

from genima import checkpoint
from genima.errors import GenimaError
from genima.files import require_writable
from genima.observation import Image
from genima.robot.model import RobotModel
from genima_bringup import film
from genima_bringup.processes import Process, around_simulator, coppeliasim, simulated
from genima_bringup.report import EpisodeResult, Report
from genima_bringup.shortcuts import add_shortcuts, chosen_shortcuts
from genima_bringup.supervisor import Supervisor, interruptible, ros_environment
from genima_nodes.ros_context import create, ros_context
from genima_sim.coppeliasim.names import SceneNames
from genima_sim.tasks import TASKS, get_task

_READY_TIMEOUT = 180.0  # s: a cold disk and two busy cores
_SETTLE = 0.5  # s between episodes, in which the guard brings the arm to rest
_EARLY = 0.03  # s that a camera's image may come before the next frame is due
_PICTURE_OF = 5  # which drawing of the run becomes the picture: the arm is on its way by then


def main(argv: list[str]) -> int:
    """Run the demo; returns the exit code."""
    options = _parse(argv)
    spec, _ = checkpoint.read_pair(options.checkpoint)  # in a moment, what the nodes would find out in many seconds
    _require_task(options, spec)
    out = _make_folder(options.out)
    report = Report(options.task, options.episodes)
    with interruptible():
        try:
            _run(options, spec, out, report)
        except KeyboardInterrupt:
            report.interrupted = True
    report.write(out / "report.json")
    print(f"{report.text()}\nmore in {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    return 130 if report.interrupted else 0


def _require_task(options: argparse.Namespace, spec: checkpoint.DrawingSpec) -> None:
    """Raise a GenimaError for a task that the simulator does not know."""
    if options.backend == "mujoco":
        get_task(options.task)
        return
    SceneNames.load(options.scene, RobotModel.load(spec.robot)).require_task(options.task)


def _processes(options: argparse.Namespace, robot: str) -> list[Process]:
    shortcuts = chosen_shortcuts(options)
    if options.backend == "mujoco":
        return simulated(options.checkpoint, options.seed, shortcuts)
    remote = coppeliasim(options.scene, options.host, options.port, robot)
    return [remote, *around_simulator(options.checkpoint, options.seed, options.calibration, robot, shortcuts)]


def _run(options: argparse.Namespace, spec: checkpoint.DrawingSpec, out: Path, report: Report) -> None:
    environment = ros_environment()
    os.environ.update(environment)  # this process takes part in the same graph
    processes = _processes(options, spec.robot)
    with (
        Supervisor(processes, out / "logs", environment) as supervisor,
        _pictures(out, options.headless) as pictures,
        ros_context(),  # after the processes have been started: they load meanwhile
    ):
        from genima_bringup.monitor import Monitor
        from genima_nodes.running import FILMING_NICENESS, set_niceness

        set_niceness(FILMING_NICENESS)
        monitor = create(lambda: Monitor(spec.views, pictures.add))
        try:
            print("starting the simulator and the models ...", flush=True)
            monitor.wait_ready([process.executable for process in processes], _READY_TIMEOUT, supervisor.check)
            with tqdm(bar_format="{desc}", disable=None) as line:  # no live line where nobody watches
                for seed in range(options.seed, options.seed + options.episodes):

                    def live(seed: int = seed) -> None:
                        supervisor.check()
                        line.set_description_str(_live_line(monitor, report, seed), refresh=False)
                        line.refresh()

                    instruction = monitor.reset(options.task, seed, live)
                    before = monitor.seen.drawn
                    result = monitor.run_task(instruction, options.time_limit, live)
                    drawn = monitor.seen.drawn - before
                    report.results.append(
                        EpisodeResult(options.task, seed, result.outcome, result.reason, result.elapsed, drawn)
                    )
                    line.write(f"seed {seed}: {result.outcome} after {result.elapsed:.1f} s ({result.reason})")
                    monitor.spin_until(lambda: False, _SETTLE, live)
        finally:
            report.measurements = monitor.measurements(psutil.Process().create_time())
            monitor.close()


def _live_line(monitor, report: Report, seed: int) -> str:  # type: ignore[no-untyped-def]
    now = monitor.measurements(0.0)
    successes = sum(result.success for result in report.results)
    faults = monitor.faults()
    return (
        f"episode {min(len(report.results) + 1, report.requested)}/{report.requested} (seed {seed})  "
        f"success {successes}  drawing {now.drawing_hz:.1f} Hz  commands {now.command_hz:.1f} Hz "
        f"({100 * now.late_fraction:.1f}% late)  latency {now.latency_ms['p50']:.0f} ms  dropped {monitor.dropped()}  "
        f"real time x{now.real_time_factor:.2f}"
        + (f"  ! {faults[0]}" if faults else "")
    )


class _Pictures:
    """Collects the video and the one picture."""

    def __init__(self, out: Path, headless: bool) -> None:
        self._out = out
        self._window = None if headless else film.open_window()
        self._video: film.Video | None = None
        self._drawings = 0
        self._next_frame = 0.0  # monotonic s
        self._picture: Image | None = None

    def add(self, observation: Image, drawn: Image, matching: bool) -> None:
        if not matching and time.monotonic() < self._next_frame:
            return
        pair = film.side_by_side(observation, drawn)
        if not matching:
            self._next_frame = time.monotonic() + 1 / film.FPS - _EARLY
            self._video = self._video or film.Video(self._out / "video.mp4")
            self._video.add(pair)
            if self._window is not None:
                self._window.show(pair)
        elif self._drawings < _PICTURE_OF:
            self._drawings += 1
            self._picture = pair

    def close(self) -> None:
        if self._window is not None:
            self._window.close()
        if self._video is not None:
            self._video.close()
        if self._picture is not None:
            film.write_picture(self._out / "picture.png", self._picture)


@contextlib.contextmanager
def _pictures(out: Path, headless: bool) -> Iterator[_Pictures]:
    pictures = _Pictures(out, headless)
    try:
        yield pictures
    finally:
        pictures.close()


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./genima demo", description=__doc__)
    parser.add_argument("--task", default="push_button", help=f"one of: {', '.join(TASKS)} (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=10, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene; the next takes the next number")
    parser.add_argument("--time-limit", type=float, default=20.0, help="seconds an episode (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for report, video, picture and logs (default: runs/<time>)")
    parser.add_argument(
        "--checkpoint", default="", help="folder with diffusion_agent/ and controller/ (default: the bundled models)"
    )
    parser.add_argument("--backend", choices=("mujoco", "coppeliasim"), default="mujoco", help="what simulates")
    remote = parser.add_argument_group("with --backend coppeliasim (docs/coppeliasim.md)")
    remote.add_argument("--scene", default="rlbench", help="names of its objects: in config/coppeliasim, or a file")
    remote.add_argument("--host", default="localhost", help="where CoppeliaSim runs (default: %(default)s)")
    remote.add_argument("--port", type=int, default=23000, help="of its remote API (default: %(default)s)")
    remote.add_argument("--calibration", default="sim", help="of its cameras: a name in calibration, or a folder")
    add_shortcuts(parser)
    parser.add_argument("--headless", action="store_true", help="show no window (default where there is no display)")
    options = parser.parse_args(argv)
    options.headless = options.headless or not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if options.episodes < 1 or not options.time_limit > 0 or options.seed < 0:
        raise GenimaError("--episodes and --time-limit must be positive, --seed must not be negative")
    return options


def _make_folder(folder: Path | None) -> Path:
    out = folder or Path("runs") / time.strftime("%Y-%m-%d_%H-%M-%S")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("report.json", "video.mp4", "picture.png"):  # never leave an older run's in their place
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise GenimaError(f"cannot make room in the folder {out}: {error}") from None
    require_writable(out / "report.json")
    return out


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
