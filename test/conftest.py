"""Shared fixtures: robot, cameras, simulation, recorded demos, untrained checkpoint, ROS graph."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from machine import MachineWatch, WakeUpProbe
from mutation import ALL

import genima  # noqa: F401  (chooses OpenGL's platform, which MuJoCo and PyOpenGL read when they are imported)

if TYPE_CHECKING:  # what takes seconds is imported by the fixtures: pytest-xdist's own process needs none of it
    from ros_graph import Graph

    from genima.cameras.camera import Camera
    from genima.data.datasets.target_dataset import TargetDataset
    from genima.policy.spec import PolicySpec
    from genima.robot.model import RobotModel
    from genima_sim.demo_recorder import DemoRecorder
    from genima_sim.environment import Environment
    from genima_sim.simulation import Simulation

# No deadlines, which a busy machine misses; the same examples in every daily run, new ones every night.
settings.register_profile(
    "genima",
    deadline=None,
    derandomize=ALL not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("genima")


LATE = (TimeoutError, subprocess.TimeoutExpired, pytest.fail.Exception)
"""Failures that a busy machine may cause: a wait that took too long. Others are defects on any machine.

In tests of whole graphs, assertions too: what the arm did in a given time depends on all of their processes.
"""
MUTATE = {"mutated_data", "mutated_bytes"}
WATCH = pytest.StashKey[MachineWatch]()
PROBE = pytest.StashKey[WakeUpProbe]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests of nodes as real-time unless they run at any pace, and real-time tests of processes as alone."""
    for item in items:
        in_process = "graph" in getattr(item, "fixturenames", ())
        if in_process and item.get_closest_marker("any_pace") is None:
            item.add_marker(pytest.mark.real_time)
        if not in_process and item.get_closest_marker("real_time") is not None:
            item.add_marker(pytest.mark.alone)
        if isinstance(item, pytest.Function) and MUTATE & set(item.function.__code__.co_names):
            item.add_marker(pytest.mark.mutations)
    # The messages of drivers are built once, which takes more than a minute: one worker does, while others test.
    items.sort(key=lambda item: "hardware" not in item.path.parts)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Measure the machine's load during a test that has deadlines."""
    if item.get_closest_marker("real_time") is not None:
        stash = item.config.stash
        if PROBE not in stash:
            stash[PROBE] = WakeUpProbe()
        item.stash[WATCH] = MachineWatch(stash[PROBE])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip a test that missed its deadlines on a busy machine, with what was measured and what had failed."""
    report = yield
    watch = item.stash.get(WATCH, None)
    alone = item.get_closest_marker("alone") is not None
    late = call.excinfo is not None and isinstance(call.excinfo.value, (*LATE, AssertionError) if alone else LATE)
    if report.failed and late and watch is not None and (measured := watch.busy()):
        path, line, _ = item.location
        failure = call.excinfo.exconly().splitlines()[0][:300]
        report.outcome = "skipped"
        report.longrepr = (path, line or 0, f"Skipped: {measured}; it failed with {failure}")
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    if PROBE in config.stash:
        config.stash[PROBE].close()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one thread: more do not help tiny networks."""
    import torch

    torch.set_num_threads(1)


def shared_folder(factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], object]) -> Path:
    """Return a folder that the first of pytest-xdist's processes to need it fills, for all of them to read."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, finished = base / name, base / f"{name}.finished"
    with (base / f"{name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
            folder.mkdir()
            fill(folder)
            finished.touch()
    return folder


@pytest.fixture(scope="session")
def robot() -> RobotModel:
    from genima.robot.model import RobotModel

    return RobotModel.load("panda")


@pytest.fixture(scope="session")
def cameras() -> Mapping[str, Camera]:
    from genima.cameras.calibration_file import load_cameras
    from genima.io import paths

    return load_cameras(paths.shared("calibration", "sim"))


@pytest.fixture(scope="session")
def spec(robot: RobotModel) -> PolicySpec:
    """Spec with views of 64 px, tiles of 128 px."""
    from genima.policy.spec import PolicySpec

    return PolicySpec("panda", robot.joint_names, view_size=64)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny Stable Diffusion and SDXL models with random weights, in the hub's folder layout."""
    from random_base import random_base

    def fill(folder: Path) -> None:
        for kind in ("tiny", "tiny-xl"):
            random_base(kind).save_pretrained(folder / kind)  # type: ignore[arg-type]

    return shared_folder(tmp_path_factory, "bases", fill)


@pytest.fixture(scope="session")
def recorder() -> Iterator[DemoRecorder]:
    """Simulation, renderer and expert; a test resets the simulation first."""
    from genima_sim.demo_recorder import DemoRecorder

    recorder = DemoRecorder()
    yield recorder
    recorder.close()


@pytest.fixture
def simulation(recorder: DemoRecorder) -> Simulation:
    recorder.environment.simulation.reset("push_button", 0)
    return recorder.environment.simulation


@pytest.fixture(scope="session")
def environment() -> Iterator[Environment]:
    """Lock-step environment; a test resets it first."""
    from genima_sim.environment import Environment

    environment = Environment()
    yield environment
    environment.close()


@pytest.fixture
def shared_environment(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Lock-step environment that commands use in place of one of their own."""
    monkeypatch.setattr(environment, "close", lambda: None)
    monkeypatch.setattr("genima_sim.environment.Environment", lambda *_: environment)
    return environment


@pytest.fixture(scope="session")
def demos_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with one recorded demo of each bundled task."""

    def fill(folder: Path) -> None:
        recorder = request.getfixturevalue("recorder")
        for task in ("push_button", "take_lid_off_saucepan"):
            assert recorder.record(folder / f"{task}-1", task, 100_001)

    return shared_folder(tmp_path_factory, "demos", fill)


@pytest.fixture(scope="session")
def targets(demos_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TargetDataset:
    """Rendered demos with views of 32 px."""
    from one_thread import render_in_a_thread

    from genima.data.datasets.render import render
    from genima.data.datasets.target_dataset import TargetDataset
    from genima.data.episodes import find_episodes
    from genima_cli.render import Render, make_plan

    def fill(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            render_in_a_thread(patch)
            plan = make_plan(Render(view_size=32, episodes_per_shard=1), find_episodes(demos_folder))
            render(plan, folder, processes=1)
            TargetDataset.load(folder)  # unpacks the shards

    return TargetDataset.load(shared_folder(tmp_path_factory, "targets", fill))


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """diffusion_agent/ and controller/ with random weights; read only: tests that damage it use ``copy_folder``."""
    from untrained import save_checkpoints

    return shared_folder(tmp_path_factory, "checkpoint", save_checkpoints)


@pytest.fixture
def copy_folder(tmp_path: Path) -> Callable[[Path], Path]:
    """Function that copies a folder, so that the test may damage it."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "copy" / folder.name))


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Function that writes ``tasks/wave.py`` or another file, with texts replaced, into the user's GENIMA_PATH."""
    monkeypatch.setenv("GENIMA_PATH", str(tmp_path))

    def write(name: str, text: str, *changes: tuple[str, str]) -> Path:
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    return write


@pytest.fixture
def graph() -> Iterator[Graph]:
    """Graph of nodes in this process, in a ROS domain of its own.

    All nodes share one interpreter, which a busy machine may stop for 0.1 s: their inputs may be as old as a robot
    allows. Tests of the default limits pass the time to the classes that the nodes use.
    """
    import rclpy
    from domains import free_domain
    from ros_graph import Graph

    rclpy.init(args=["python", "--ros-args", "-p", "late:=0.5", "-p", "lost:=2.0"], domain_id=free_domain())
    graph = Graph()
    yield graph
    graph.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Folder on a file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root mounts a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """Restore the handlers of signals that a command replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
