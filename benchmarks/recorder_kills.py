"""Losses of a recorder that is killed at random times, repeatedly.

In every run of the process, one short episode is completed and another one is in progress when it is killed: while it
starts, is recorded or is stopped. The remaining files are repaired. The completed episodes must be unchanged, and the
one in progress must hold all messages up to a second before its end.

Cameras and arm are also restarted for every run: Fast DDS 2.14.5 does not always connect a process that was killed and
restarted to processes that kept running.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tyro
from benchmark_report import ReportOptions, require_report, write_report
from mcap.reader import make_reader
from numpy.typing import NDArray
from recording import NODES, environment, messages_of, processes
from recording_source import TOPICS, read_stamps
from rosbags.highlevel import AnyReader
from tqdm import tqdm

from genima.data.episodes.metadata import METADATA
from genima.data.episodes.repair import repair
from genima.errors import GenimaError
from genima_cli.supervisor import Supervisor
from genima_nodes.ros.ros_environment import ros_environment

_MOMENTS = {"starting": 0.15, "recording": 0.7, "stopping": 0.15}  # how often
_SIZE = (128, 128)
_ALLOWED = 1.0  # s before the kill
_READY, _PATIENCE = 60.0, 1.0  # s
_LIFE = 300.0  # s at most

State: TypeAlias = tuple[bytes, list[tuple[str, int, int]]]


@dataclass
class Options(ReportOptions):
    """Kill the recorder at random moments and see what is left."""

    kills: int = 100
    """Number of kills."""
    seed: int = 0
    """Seed of the times."""


@dataclass
class Result:
    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_MOMENTS, 0))
    complete: int = 0  # episodes before the one in progress
    changed: list[str] = field(default_factory=list)  # of these, which should not happen
    unreadable: list[str] = field(default_factory=list)
    nothing: int = 0  # episodes in progress of which nothing was on the disk yet
    repaired: int = 0
    finished: int = 0  # killed so late that nothing had to be repaired
    losses: dict[str, float] = field(default_factory=dict)  # s before the kill of the oldest message that is missing

    @property
    def worst_loss(self) -> float:
        """Return the largest loss in s."""
        return max(self.losses.values(), default=0.0)


def main() -> None:
    options = tyro.cli(Options)
    if options.kills < 1:
        raise GenimaError("--kills must be positive")
    require_report(options.out, "recorder_kills", options.overwrite)
    os.environ.update(ros_environment())
    rng, result = random.Random(options.seed), Result()
    intact: dict[Path, State] = {}
    with tempfile.TemporaryDirectory() as name:
        for kill in tqdm(range(options.kills), unit="kill", disable=None):
            _live(Path(name), f"{kill:03d}", rng, result, intact)
        result.unreadable = [f"{folder.name}: {error}" for folder in intact if (error := _unreadable(folder))]
    for moment, count in result.kills.items():
        print(f"killed while {moment}: {count}")
    print(f"completed before: {result.complete}, changed: {len(result.changed)}, unreadable: {len(result.unreadable)}")
    print(f"in progress: {result.repaired} repaired, {result.finished} complete, {result.nothing} with nothing yet")
    print(f"lost at most: the last {result.worst_loss:.3f} s")
    write_report(options.out, "recorder_kills", asdict(result))
    if result.changed or result.unreadable or result.worst_loss > _ALLOWED:
        raise GenimaError("episodes were lost")


def _live(place: Path, name: str, rng: random.Random, result: Result, intact: dict[Path, State]) -> None:
    """Start everything, record a whole episode, kill the recorder within the next one and see what is left of it."""
    demos = place / "demos"
    whole, killed = demos / f"{name}-whole", demos / f"{name}-killed"
    (moment,) = rng.choices(list(_MOMENTS), list(_MOMENTS.values()))
    begin = 0
    os.environ.pop("ROS_DOMAIN_ID", None)
    os.environ.update(ros_environment())  # a domain without killed processes
    running = processes(place, _LIFE, demos, "jpeg", _SIZE)
    with Supervisor(running, place, environment()) as supervisor, Remote(supervisor) as remote:
        remote.start(whole.name)
        remote.wait(rng.uniform(0.1, 0.5))
        remote.stop()
        if moment == "starting":
            remote.begin_start(killed.name)
            remote.wait(rng.uniform(0.0, 0.1))
        else:
            remote.start(killed.name)
            begin = time.time_ns()
            remote.wait(rng.uniform(0.0, 3.0))
        end = time.time_ns()
        if moment == "stopping":
            remote.begin_stop()
            remote.wait(rng.uniform(0.0, 0.06))
        supervisor.kill("recorder")
        sent = read_stamps(place)
    result.kills[moment] += 1
    result.complete += 1
    intact[whole] = state(whole)
    _mend(killed, result)
    if begin:
        result.losses[killed.name] = loss(killed, sent, begin, end)
    if killed.exists():
        intact[killed] = state(killed)
    result.changed += [folder.name for folder, before in intact.items() if state(folder) != before]


class Remote:
    """The operator of a recorder, while its context is open."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._alive = supervisor.check

    def __enter__(self) -> Remote:
        import rclpy
        from rclpy.signals import SignalHandlerOptions
        from std_srvs.srv import Trigger

        from genima_cli.graph_client import GraphClient
        from genima_interfaces.srv import StartEpisode

        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self._driver = GraphClient("recorder_kills")
        self._start = self._driver.create_client(StartEpisode, "recorder/start")
        self._stop = self._driver.create_client(Trigger, "recorder/stop")
        self._driver.wait_ready(NODES, _READY, self._alive)
        return self

    def __exit__(self, *_: object) -> None:
        import rclpy

        self._driver.close()
        rclpy.try_shutdown()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._driver.spin_until(lambda: False, seconds, self._alive)

    def begin_start(self, name: str) -> Any:
        """Ask for an episode; the future has the answer."""
        return self._start.call_async(self._start.srv_type.Request(name=name, instruction="be killed"))

    def begin_stop(self) -> Any:
        """Ask for its end; the future has the answer."""
        return self._stop.call_async(self._stop.srv_type.Request())

    def start(self, name: str) -> None:
        """Begin an episode, as soon as the recorder hears all that it needs."""
        self._ask(lambda: self.begin_start(name), f"{name} is being recorded already")

    def stop(self) -> None:
        """End it."""
        self._ask(self.begin_stop, "nothing is recorded")

    def _ask(self, ask: Callable[[], Any], otherwise: str) -> None:
        """Ask until it is done, or was already: who has just come may not hear the first question."""
        end, answer = time.monotonic() + _READY, "nothing"
        while time.monotonic() < end:
            future = ask()
            if self._driver.spin_until(future.done, _PATIENCE, self._alive):
                answer = future.result().message
                if future.result().success or otherwise in answer:
                    return
                self.wait(0.1)
        raise GenimaError(f"recorder: not ready after {_READY:.0f} s ({answer})")


def _mend(folder: Path, result: Result) -> None:
    """Repair what a kill left of an episode."""
    try:
        if repair(folder).healthy:
            result.finished += 1
        else:
            result.repaired += 1
    except GenimaError as error:
        if not any(words in str(error) for words in ("no bag", "no complete message", "no .mcap file")):
            raise
        result.nothing += 1


def loss(bag: Path, sent: dict[str, NDArray[np.int64]], begin: int, end: int) -> float:
    """Seconds before ``end`` of the oldest message that was sent since ``begin`` (both ns) and is not in the bag."""
    kept: dict[str, list[int]] = {topic: [] for topic in TOPICS}
    for topic, _, message in messages_of(bag) if bag.exists() else ():
        kept[topic].append(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)
    oldest = end
    for topic, stamps in sent.items():
        due = stamps[(stamps >= begin) & (stamps <= end)]
        missing = due[~np.isin(due, np.array(kept[topic], np.int64))]
        oldest = min([oldest, *missing.tolist()])
    return (end - oldest) / 1e9


def state(folder: Path) -> State:
    """Return a digest of a bag's files."""
    files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.iterdir())]
    return (folder / METADATA).read_bytes(), files


def _unreadable(folder: Path) -> str:
    """Why a bag cannot be read by others' libraries; empty if it can."""
    try:
        with AnyReader([folder]) as bag:
            for connection, _, data in bag.messages():
                bag.deserialize(data, connection.msgtype)
            count = bag.message_count
        with open(folder / f"{folder.name}.mcap", "rb") as file:
            if sum(1 for _ in make_reader(file, validate_crcs=True).iter_messages()) != count:
                return "its libraries disagree"
    except Exception as error:  # they raise many kinds
        return " ".join(str(error).split())
    return ""


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
