"""Recording of four cameras and an arm: losses and costs.

The source and the recorder are separate processes that communicate over DDS, as on a robot. The bag is then compared
with the sent messages: each must be there once, in order, with its exact stamp and, unless images are JPEG, identical
pixels. The limits are measured in the same run: the disk's write rate, and the cost of a copy in memory and of
compressing one image, on one core.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import psutil
import tyro
from benchmark_report import ReportOptions, require_report, write_report
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from numpy.typing import NDArray
from recording_source import (
    COMMANDS,
    FRAMES,
    IMAGES,
    INFOS,
    JOINTS,
    TOPICS,
    numbered,
    pictures,
    read_number,
    read_stamps,
    write_number,
)
from tqdm import tqdm

from genima.data.episodes.bag import types
from genima.errors import GenimaError
from genima_bringup.node_specs import NodeSpec, Value
from genima_cli.supervisor import Supervisor
from genima_nodes.ros.ros_environment import ros_environment

Images = Literal["raw", "jpeg", "png"]

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {"images": IMAGES, "camera_info": INFOS, "joint_states": (JOINTS,), "joint_command": (COMMANDS,)}
_SIZE = (640, 480)
NODES = ("recorder", "recording_cameras", "recording_arm")
_READY = 60.0  # s
_SPARE = 120.0  # s that the source runs before and after
_COPIES = 8  # of a raw image: two by DDS and one by rclpy, four by the mcap library, one by the operating system
_PLAIN = 2 << 30  # bytes
_BLOCK = 8 << 20  # bytes


@dataclass
class Options(ReportOptions):
    """Record four cameras of 640x480 at 30 Hz, joints at 1 kHz and commands at 200 Hz, and look for what is missing."""

    minutes: float = 1.0
    """Duration of each variant."""
    images: tuple[Images, ...] = ("raw", "jpeg", "png")
    """Ways to keep images."""
    folder: Path | None = None
    """Folder of the bags; default: the system's temporary folder."""
    keep: bool = False
    """Leave them there."""


@dataclass
class Kept:
    """Recorded and lost messages between the first and the last in the bag."""

    sent: int = 0
    lost: int = 0
    twice: int = 0
    disordered: int = 0
    altered: int = 0  # another stamp, another number or other pixels than were sent
    lag: dict[str, float] = field(default_factory=dict)  # ms from the header's stamp to the log time


@dataclass(frozen=True)
class Result:
    seconds: float
    kept: dict[str, Kept]
    dropped: int  # as the recorder counts
    mb_per_second: float  # on the disk
    cpu: dict[str, float]  # percent of one core
    memory_mib: tuple[float, float, float]  # of the recorder: at the start, at the end, most
    late: dict[str, tuple[int, int]]  # ticks of the sources, and how many there were


@dataclass(frozen=True)
class Limits:
    """Limits of this machine for a single process."""

    write: float  # MB/s
    copy: float  # MB/s
    encode: dict[str, float]  # ms an image


def main() -> None:
    options = tyro.cli(Options)
    if not options.minutes > 0:
        raise GenimaError("--minutes must be positive")
    require_report(options.out, "recording", options.overwrite)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="recording-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(ros_environment())
    limits, results = measure_limits(folder), {}
    for images in options.images:
        bag = folder / images
        try:
            results[images] = _record(60 * options.minutes, images, bag)
        finally:
            if not options.keep:
                shutil.rmtree(bag, ignore_errors=True)
    if options.folder is None and not options.keep:
        shutil.rmtree(folder)
    for images, result in results.items():
        _print(images, result)
    _print_limits(limits)
    if options.out:
        content = {"limits": asdict(limits), "results": {images: asdict(r) for images, r in results.items()}}
        write_report(options.out, "recording", content)


def _record(seconds: float, images: str, bag: Path) -> Result:
    """Record for so long, and compare the bag with what was sent."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with Supervisor(processes(place, seconds + _SPARE, bag.parent, images), place, environment()) as supervisor:
            spent = _watch(seconds, bag.name, images, supervisor)
        size = sum(file.stat().st_size for file in bag.iterdir())
        return Result(kept=compare(bag, read_stamps(place)), mb_per_second=size / 1e6 / spent["seconds"], **spent)


def processes(stamps: Path, seconds: float, demos: Path, images: str, size: tuple[int, int] = _SIZE) -> list[NodeSpec]:
    """The recorder, and what it hears for so long."""
    kept: dict[str, Value] = {"stamps": str(stamps), "seconds": seconds}
    return [
        NodeSpec("genima_nodes", "recorder", {"folder": str(demos), "images": images}),
        NodeSpec("benchmarks", "recording_cameras", kept | {"width": size[0], "height": size[1]}),
        NodeSpec("benchmarks", "recording_arm", kept),
    ]


def environment() -> dict[str, str]:
    """Return the environment of the processes, with the benchmarks' modules."""
    return ros_environment() | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def _watch(seconds: float, name: str, title: str, supervisor: Supervisor) -> dict[str, Any]:
    """Have an episode recorded, and see what that takes."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions
    from std_srvs.srv import Trigger

    from genima_cli.graph_client import GraphClient
    from genima_interfaces.msg import RecorderStatus
    from genima_interfaces.srv import StartEpisode
    from genima_nodes.ros import qos

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    driver = GraphClient("recording")
    try:
        newest = RecorderStatus()

        def hear(status: RecorderStatus) -> None:
            nonlocal newest
            newest = status

        driver.create_subscription(RecorderStatus, "recorder/status", hear, qos.STATUS)
        start = driver.create_client(StartEpisode, "recorder/start")
        stop = driver.create_client(Trigger, "recorder/stop")
        driver.wait_ready(NODES, _READY, supervisor.check)
        driver.spin_until(lambda: False, 2.0, supervisor.check)  # all is heard by now
        request = StartEpisode.Request(name=name, instruction="measure")
        answer = driver.wait_for(start.call_async(request), "recorder/start", 10.0, supervisor.check)
        if not answer.success:
            raise GenimaError(answer.message)

        nodes = {node: psutil.Process(supervisor.pid(node)) for node in NODES}
        begin = time.monotonic()
        before, late_before = _used(nodes), _late(driver)
        memory = [nodes["recorder"].memory_info().rss]
        with tqdm(total=round(seconds), desc=title, unit="s", disable=None) as progress:
            while (passed := time.monotonic() - begin) < seconds:
                driver.spin_until(lambda: False, min(1.0, seconds - passed), supervisor.check)
                memory.append(nodes["recorder"].memory_info().rss)
                progress.update(min(progress.total, round(passed)) - progress.n)
        after, late = _used(nodes), _late(driver)
        if newest.problem:
            raise GenimaError(newest.problem)
        stopped = driver.wait_for(stop.call_async(Trigger.Request()), "recorder/stop", 60.0, supervisor.check)
        if not stopped.success:
            raise GenimaError(stopped.message)
    finally:
        driver.close()
        rclpy.try_shutdown()
    return {
        "seconds": passed,
        "dropped": newest.dropped,
        "cpu": {name: 100 * (after[name] - before[name]) / passed for name in after},
        "memory_mib": tuple(value / 2**20 for value in (memory[0], memory[-1], max(memory))),
        "late": {name: tuple(np.subtract(late[name], late_before[name]).tolist()) for name in late},
    }


def _used(nodes: dict[str, psutil.Process]) -> dict[str, float]:
    """Seconds of processor time by process, and what the machine did otherwise."""
    used = {node: process.cpu_times().user + process.cpu_times().system for node, process in nodes.items()}
    machine = psutil.cpu_times()
    return used | {kind: getattr(machine, kind) for kind in ("idle", "iowait", "steal")}


def _late(driver: Any) -> dict[str, tuple[int, int]]:
    """Ticks of the sources that were late, and that were due."""
    from genima_nodes.ros.diagnostics import measurements

    measured = {node: measurements(driver.statuses[node]) for node in NODES if node != "recorder"}
    return {node: (int(values["late"]), int(values["due"])) for node, values in measured.items()}


# What is in the bag.


def compare(
    bag: Path, sent: dict[str, NDArray[np.int64]], groups: dict[str, tuple[str, ...]] = GROUPS
) -> dict[str, Kept]:
    """Compare sent and recorded messages, by group of topics.

    Args:
        bag: the folder.
        sent: stamps in ns by topic, in the order of their numbers.
        groups: what must be there.

    Raises:
        GenimaError: when there is nothing of a topic.
    """
    truth = pictures(*_SIZE)
    numbers: dict[str, list[int]] = {topic: [] for topic in TOPICS}
    lags: dict[str, list[int]] = {topic: [] for topic in TOPICS}
    altered = dict.fromkeys(TOPICS, 0)
    for topic, log_ns, message in messages_of(bag):
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        number = int(np.searchsorted(sent[topic], stamp))
        if number == len(sent[topic]) or sent[topic][number] != stamp or not _is_as_sent(topic, message, number, truth):
            altered[topic] += 1
        numbers[topic].append(number)
        lags[topic].append(log_ns - stamp)
    kept = {}
    for group, topics in groups.items():
        if silent := [topic for topic in topics if not numbers[topic]]:
            raise GenimaError(f"{bag} holds nothing of {', '.join(silent)}")
        found = [np.array(numbers[topic]) for topic in topics]
        spans = [int(n.max() - n.min()) + 1 for n in found]
        unique = [len(np.unique(n)) for n in found]
        lag = np.concatenate([lags[topic] for topic in topics]) / 1e6
        kept[group] = Kept(
            sent=sum(spans),
            lost=sum(spans) - sum(unique),
            twice=sum(map(len, found)) - sum(unique),
            disordered=sum(int((np.diff(n) < 0).sum()) for n in found),
            altered=sum(altered[topic] for topic in topics),
            lag={"p50": float(np.median(lag)), "p99": float(np.percentile(lag, 99)), "max": float(lag.max())},
        )
    return kept


def messages_of(bag: Path) -> Iterator[tuple[str, int, Any]]:
    """Topic, log time in ns and message, in the order of the file, of what the source sends."""
    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    with open(bag / f"{bag.name}.mcap", "rb") as file:
        for record in StreamReader(file, validate_crcs=True).records:  # the library's other readers keep all in memory
            if isinstance(record, Schema):
                schemas[record.id] = record.name
            elif isinstance(record, Channel):
                channels[record.id] = record.topic.removesuffix("/compressed"), schemas[record.schema_id]
            elif isinstance(record, Message) and channels[record.channel_id][0] in TOPICS:
                topic, kind = channels[record.channel_id]
                yield topic, record.log_time, types().deserialize_cdr(record.data, kind)


def _is_as_sent(topic: str, message: Any, number: int, truth: NDArray[np.uint8]) -> bool:
    """Return whether a message's number and an image's pixels are those sent."""
    if topic in (JOINTS, COMMANDS):
        return bool(message.effort[0] == number)
    if topic in INFOS:
        return True
    view = IMAGES.index(topic)
    expected = truth[(number + view) % len(truth)].copy()
    write_number(expected, numbered(view, number))
    if not hasattr(message, "format"):
        return np.array_equal(message.data, expected.ravel())
    image = cv2.cvtColor(cv2.imdecode(message.data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    if "png" in message.format:
        return np.array_equal(image, expected)
    return read_number(image[..., 0]) == numbered(view, number)


# What bounds it.


def measure_limits(folder: Path) -> Limits:
    """Measure one after the other, with nothing else at work here."""
    from genima_nodes.recorder import encode

    picture = pictures(*_SIZE, count=1)[0]
    write_number(picture, 0)
    there, here = np.ones(_BLOCK * 8, np.uint8), np.zeros(_BLOCK * 8, np.uint8)  # more than caches hold
    copy = _median(lambda: np.copyto(there, here), 30)
    ways = {images: _median(lambda images=images: encode(picture, images), 30) for images in ("jpeg", "png")}
    return Limits(_plain_writing(folder), here.nbytes / 1e6 / copy, {name: 1e3 * s for name, s in ways.items()})


def _median(act: Callable[[], object], times: int) -> float:
    """Median in seconds, since other load on the machine slows some of them."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken))


def _plain_writing(folder: Path) -> float:
    """MB/s that come to lie on the disk."""
    data, path = os.urandom(_BLOCK), folder / "plain"
    try:
        with open(path, "wb", buffering=0) as file:
            begin = time.monotonic()
            for _ in range(_PLAIN // _BLOCK):
                file.write(data)
            os.fdatasync(file.fileno())
            return _PLAIN / 1e6 / (time.monotonic() - begin)
    finally:
        path.unlink(missing_ok=True)


def _print(images: str, result: Result) -> None:
    print(f"{images}: {result.seconds:.0f} s, {result.mb_per_second:.1f} MB/s, {result.dropped} counted as lost")
    cpu = ", ".join(f"{name} {percent:.0f}%" for name, percent in result.cpu.items())
    first, last, most = result.memory_mib
    print(f"  of one core: {cpu}; memory {first:.0f} MiB at first, {last:.0f} at the end, {most:.0f} at most")
    print(f"  late ticks: {', '.join(f'{k} {n} of {due}' for k, (n, due) in result.late.items())}")
    columns = ("sent", "lost", "twice", "disordered", "altered", "lag ms p50", "p99", "max")
    print(f"  {'':<14}" + "".join(f"{column:>12}" for column in columns))
    for name, k in result.kept.items():
        counts = "".join(f"{n:>12}" for n in (k.sent, k.lost, k.twice, k.disordered, k.altered))
        print(f"  {name:<14}{counts}" + "".join(f"{k.lag[key]:>12.2f}" for key in ("p50", "p99", "max")))


def _print_limits(limits: Limits) -> None:
    """Print the limits and the load of this source on them."""
    frames = FRAMES * len(IMAGES)
    came = 3 * _SIZE[0] * _SIZE[1] * frames / 1e6
    print(f"limits: the disk takes {limits.write:.0f} MB/s, the source sends {came:.0f} MB/s of pixels")
    share = 100 * _COPIES * came / limits.copy
    print(f"  {_COPIES} copies of these at {limits.copy:.0f} MB/s: {share:.0f}% of one core")
    for images, ms in limits.encode.items():
        print(f"  {ms:.1f} ms an image as {images}: {ms * frames / 10:.0f}% of one core")


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
