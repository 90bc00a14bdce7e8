"""Latency from a camera's exposure to the arm's controller by stage, on the real robot's graph.

Every process of real_robot.launch.py except ROS's drivers runs on stand-ins for the hardware
(`real_robot.py`), with tracing of sent and received messages (`tracing/sitecustomize.py`). One observation is
followed by its stamp::

    exposure ─► image ─► diffusion_agent ─► drawn target ─► controller ─► chunk ─► command ─► guard ─► set-point ─► arm

After the chunk, its first command is followed: the first that is due after the chunk's arrival; then the first
set-point that is due after that command's arrival. All processes are on one machine and so have one monotonic clock.
"""

from __future__ import annotations

import sys
import tempfile
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
import tyro
from benchmark_report import require_plot, require_report, write_report
from numpy.typing import NDArray
from real_robot import OnStandIns, running, tasks
from tqdm import tqdm

from genima.errors import GenimaError
from genima_nodes.ros import qos
from genima_nodes.ros.diagnostics import measurements

VIEWS = ("front", "wrist", "left_shoulder", "right_shoulder")
IMAGES = tuple(f"/cameras/{view}/color/image_raw" for view in VIEWS)
DRAWN, CHUNK, COMMAND, SET_POINT, TARGET = (
    "/drawn_target", "/action_chunk", "/controller/command", "/joint_command", "/target_joint",
)  # fmt: skip
STAGES = (
    "camera: exposure to its images",
    "images to the diffusion agent",
    "generation of the drawn target",
    "drawn target to the controller",
    "decoding and checking it",
    "until the next command is due",
    "command to the guard",
    "until the next set-point is due",
    "set-point to the adapter",
    "adapter",
    "target to the arm's controller",
)
_TRACING = Path(__file__).with_name("tracing")
_NEXT = 0.2  # s: while a task runs, commands come every 0.02 s
_LEAST = 20  # observations that a percentile needs


@dataclass
class Options(OnStandIns):
    """Run tasks on the stand-ins, and follow what is seen through all processes."""

    seconds: float = 120.0
    """Duration."""
    plot: Path | None = None
    """Draw it into this PNG file."""
    overwrite: bool = False
    """Replace a report and a plot of this benchmark that are there."""


@dataclass
class Trace:
    """Events of one process on one topic: monotonic s, and the messages' stamps on the same clock, s."""

    times: list[float] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)

    def of(self, stamp: float) -> float | None:
        """Return the time of the message with a stamp."""
        k = bisect_left(self.stamps, stamp - 1e-6)
        return self.times[k] if k < len(self.stamps) and self.stamps[k] - stamp < 1e-6 else None

    def due_after(self, moment: float) -> tuple[float, float] | None:
        """Time and stamp of the first message that is stamped later."""
        k = bisect_left(self.stamps, moment)
        return (self.times[k], self.stamps[k]) if k < len(self.stamps) else None


Traces = Mapping[tuple[str, str, str], Trace]  # by program, event, topic


def read(folder: Path, offset: float) -> Traces:
    """Read all traces of a folder; ``offset`` in s: clock of the stamps minus monotonic clock."""
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for file in folder.glob("*.trace"):
        program = file.stem.rsplit("-", 1)[0]
        for line in file.read_text(encoding="utf-8").splitlines():
            now, event, topic, stamp = line.split()
            found[program, event, topic].append((1e-9 * int(stamp) - offset, 1e-9 * int(now)))
    return {
        key: Trace([now for _, now in events], [stamp for stamp, _ in events])
        for key, events in ((key, sorted(events)) for key, events in found.items())
    }


def follow(traces: Traces, stamp: float) -> NDArray[np.float64] | None:
    """The stages (len(STAGES),) in s of the observation with this stamp; None where it was lost on its way."""

    def trace_of(*key: str) -> Trace:
        return traces.get((key[0], key[1], key[2]), Trace())  # of nothing where it never came

    def of(program: str, event: str, topic: str, stamp: float = stamp) -> float | None:
        return trace_of(program, event, topic).of(stamp)

    moments = [
        stamp,
        _last([of("hardware", "publish", topic) for topic in IMAGES]),
        _last([of("diffusion_agent", "callback", topic) for topic in IMAGES]),
        of("diffusion_agent", "publish", DRAWN),
        of("controller", "callback", DRAWN),
        read_at := of("controller", "publish", CHUNK),
    ]
    command = None if read_at is None else trace_of("controller", "publish", COMMAND).due_after(read_at)
    if command is None or read_at is None or command[0] - read_at > _NEXT:  # the task ended before it was followed
        return None
    moments += [command[0], guarded := of("command_guard", "callback", COMMAND, command[1])]
    set_point = None if guarded is None else trace_of("command_guard", "publish", SET_POINT).due_after(guarded)
    if set_point is None:
        return None
    moments += [
        set_point[0],
        of("arm_adapter", "callback", SET_POINT, set_point[1]),
        of("arm_adapter", "publish", TARGET, set_point[1]),
        of("hardware", "callback", TARGET, set_point[1]),
    ]
    known = np.array([np.nan if moment is None else moment for moment in moments])
    return np.diff(known) if np.isfinite(known).all() else None


def _last(moments: Sequence[float | None]) -> float | None:
    known = [moment for moment in moments if moment is not None]
    return max(known) if len(known) == len(moments) else None


def main() -> None:
    options = tyro.cli(Options)
    if not options.seconds > 0 or not 0 < options.fps <= 100:
        raise GenimaError("--seconds must be positive, --fps at most 100")
    require_report(options.out, "latency", options.overwrite)
    require_plot(options.plot, options.overwrite)
    stages, own, drawn = trace(options)
    if len(stages) < _LEAST:
        raise GenimaError(f"only {len(stages)} of {drawn} drawn targets arrived; the machine is too busy")
    print(f"{len(stages)} of {drawn} drawn targets traced to the arm; the controller itself reports {own}")
    print(table(stages))
    if options.out:
        content = {"stages": list(STAGES), "seconds": stages.tolist(), "drawings": drawn, "controller": own}
        write_report(options.out, "latency", content)
    if options.plot:
        plot(stages, options.plot)


def trace(options: Options) -> tuple[NDArray[np.float64], str, int]:
    """Stages (N, len(STAGES)) in s; the latencies reported by the controller; the number of drawn targets."""
    topics = [*IMAGES, DRAWN, CHUNK, COMMAND, SET_POINT, TARGET]
    with tempfile.TemporaryDirectory() as folder:
        more = {"PYTHONPATH": str(_TRACING), "GENIMA_TRACE": folder, "GENIMA_TRACED": ":".join(topics)}
        with running(options.fps, more) as graph:
            from trajectory_msgs.msg import JointTrajectory

            driver, before, begin = graph.driver, _offset(), time.monotonic()
            driver.create_subscription(JointTrajectory, CHUNK, lambda m: None, qos.DRAWN_TARGET)  # sent if heard
            with tqdm(total=round(options.seconds), unit="s", disable=None) as progress:

                def watch() -> None:
                    graph.supervisor.check()
                    progress.update(min(progress.total, round(time.monotonic() - begin)) - progress.n)

                for _ in tasks(driver, options.seed, begin + options.seconds, watch, lambda: None):
                    pass
            measured = measurements(driver.statuses["controller"])
            own = ", ".join(f"{p} {measured[f'image to command {p} [ms]']:.4g} ms" for p in ("p50", "p99"))
        if abs(_offset() - before) > 1e-3:
            raise GenimaError("the clock was set meanwhile: run it again")
        traces = read(Path(folder), before)
    drawings = traces.get(("diffusion_agent", "publish", DRAWN), Trace()).stamps
    followed = [stages for stamp in drawings if (stages := follow(traces, stamp)) is not None]
    return np.array(followed), own, len(drawings)


def _offset() -> float:
    """Return the difference of the stamps' clock and the monotonic clock, s."""
    return min((time.time() - time.monotonic() for _ in range(100)), default=0.0)


def table(stages: NDArray[np.float64]) -> str:
    """Return a Markdown table."""
    rows = ["| stage | p50 [ms] | p99 [ms] | share of the mean |", "|---|---|---|---|"]
    total = stages.sum(axis=1)
    for name, times in [*zip(STAGES, stages.T, strict=True), ("**all**", total)]:
        low, high = 1e3 * np.percentile(times, [50, 99])
        rows.append(f"| {name} | {low:.1f} | {high:.1f} | {times.mean() / total.mean():.0%} |")
    return "\n".join(rows)


def plot(stages: NDArray[np.float64], file: Path) -> None:
    """Plot the stages' medians one after the other, with whiskers from the 1st to the 99th percentile."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    low, middle, high = 1e3 * np.percentile(stages, [1, 50, 99], axis=0)
    begin = np.concatenate([[0.0], np.cumsum(middle)[:-1]])
    figure, axes = pyplot.subplots(figsize=(7.5, 3.2), layout="constrained")
    rows = np.arange(len(STAGES))
    axes.barh(rows, middle, left=begin, color="tab:blue", height=0.7)
    axes.hlines(rows, begin + low, begin + high, color="black", linewidth=1)
    axes.set_yticks(rows, STAGES, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("ms since exposure (bar: median; line: 1st to 99th percentile)", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
