"""`./genima faults`: inject faults, one at a time, into the simulated robot's graph and record its commands.

::

    reset the scene ──► run the task ──► arm moving ──► fault ──► end of its cause ──► arm moving again
                                                          └─ every set-point at the robot's input is recorded ──┘
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from genima.errors import GenimaError
from genima.io.files import FileSchema, atomic_write, load_json, read_text, require_writable, validate
from genima.io.outputs import output_lock, require_same_settings
from genima.policy.names import GENIMA, REMOTE
from genima.policy.registry import PolicyOptions, is_server, load_policy, require_options, require_policy
from genima.system.command_line import Seed, parse_options
from genima.system.signals import interrupt_on_signals
from genima_bringup.node_specs import PolicyArguments, simulation_stack
from genima_cli.faults.shifted_clock import build_shifted_clock
from genima_cli.supervisor import Supervisor
from genima_nodes.ros.ros_context import create, ros_context
from genima_nodes.ros.ros_environment import ros_environment

if TYPE_CHECKING:  # ROS starts only once its environment is set
    from rclpy.task import Future

    from genima.cell import Cell
    from genima.policy.spec import PolicySpec
    from genima.robot.model import RobotModel
    from genima_cli.faults.injection import Fault, Scene
    from genima_cli.faults.relays import Record, Relays
    from genima_cli.graph_client import GraphClient

TASK = "push_button"
_READY_TIMEOUT = 180.0  # s
_SETTLING_TIME = 1.0  # s between faults
_START_TIMEOUT = 25.0  # s for the arm to move
_RECOVERY_TIMEOUT = 30.0  # s for the arm to move again, after the end of the cause and the restart of killed nodes
_MOVING = 0.1  # rad/s of any joint
_MOVED = 0.02  # rad
_REST, _REST_TIME = 1e-3, 0.1  # rad (half a millimetre at the gripper) within s: the set-points are at rest
_SLACK = 0.02  # s at its speed beyond the shortest stop: jerk is limited, set-points are discrete
_TRIES = 3  # to start a motion
_BEGIN, _END = "<!-- table of faults -->", "<!-- end -->"


@dataclass(frozen=True)
class Result:
    """Result of one fault."""

    fault: str
    limit_violations: int  # set-points beyond a limit of position, velocity, acceleration or jerk
    hold_ms: float | None  # from the first bad or missing sample until the arm's stop begins; None: never
    rest_ms: float | None  # and until the set-points are at rest
    must_hold: bool
    recovered: bool  # the arm moved again, after a restart of killed nodes and of an ended task
    task: str  # result of the task
    set_points: int
    reported: list[str]  # faults on /diagnostics meanwhile

    @property
    def passed(self) -> bool:
        """True if the arm kept its limits, held where required, and recovered."""
        return self.limit_violations == 0 and self.recovered and not (self.must_hold and self.hold_ms is None)


class _Record(FileSchema):
    """Content of the file of --out."""

    settings: dict[str, Any]
    faults: list[dict[str, Any]]


class FaultBench:
    """Graph of the demo with relays between its nodes."""

    def __init__(
        self, driver: GraphClient, relays: Relays, scene: Scene, robot: RobotModel, nodes: Sequence[str]
    ) -> None:
        self._driver, self._relays, self._scene, self._robot, self._nodes = driver, relays, scene, robot, nodes

    def run(self, fault: Fault, seed: int) -> Result:
        """Run one fault.

        Raises:
            GenimaError: when the graph does not get ready, or the arm does not move before the fault.
        """
        running, instruction = self._start_motion(seed)
        self._driver.faults_so_far.clear()
        with fault.inject(self._scene) as onset:
            if fault.restarts:
                self._driver.statuses.pop(fault.restarts, None)
            self._driver.spin_until(lambda: False, fault.seconds, lambda: None)  # nodes may end by it
            begin, end = onset(), time.monotonic()
        faults = list(dict.fromkeys(self._driver.faults_so_far))
        recovered, task = self._await_recovery(fault, running, instruction)
        record = self._relays.record()
        from genima.control.limit_violations import count_violations

        return Result(
            fault=fault.name,
            limit_violations=count_violations(record.stamps, record.positions, self._robot),
            hold_ms=None if begin is None else hold_ms(record, begin, end, self._robot),
            rest_ms=None if begin is None else rest_ms(record, begin, end),
            must_hold=fault.must_hold,
            recovered=recovered,
            task=task,
            set_points=len(record.times),
            reported=faults,
        )

    def _start_motion(self, seed: int) -> tuple[Future, str]:
        for k in range(_TRIES):
            self._wait_ready()
            instruction = self._driver.reset(TASK, seed + 1000 * k, self._alive)
            self._spin(_SETTLING_TIME)  # the reset has moved the arm without a command
            self._relays.reset_record()
            running = self._driver.begin_task(instruction, 0.0, self._alive)
            self._driver.spin_until(self._is_moving, _START_TIMEOUT, self._alive)
            if not running.done() and self._is_moving():
                return running, instruction
            self._finish(running)
        raise GenimaError(f"arm: did not begin to move ({'; '.join(self._driver.faults()) or 'unknown reason'})")

    def _await_recovery(self, fault: Fault, running: Future, instruction: str) -> tuple[bool, str]:
        """Return True if the arm moves again, and the task's result."""
        if fault.restarts:
            self._wait_ready([fault.restarts])
        before = self._relays.record().positions[-1]
        deadline, task = time.monotonic() + _RECOVERY_TIMEOUT, "continued"
        while (left := deadline - time.monotonic()) > 0 and not self._has_moved(before):
            if not running.done():
                self._spin(0.1)
                continue
            result = running.result().result
            if result.outcome == result.SUCCEEDED:
                return True, "succeeded"
            task = f"ended ({result.reason}), restarted"
            try:
                self._wait_ready(timeout=left)
            except GenimaError as error:
                return False, f"ended ({result.reason}); {error}"
            running = self._driver.begin_task(instruction, 0.0, self._alive)
        recovered = self._has_moved(before)
        self._finish(running)
        return recovered, task

    def _has_moved(self, before: NDArray[np.float64]) -> bool:
        return bool(np.max(np.abs(self._relays.record().positions[-1] - before)) > _MOVED)

    def _finish(self, running: Future) -> None:
        if not running.done():
            self._driver.end_task()
            self._driver.spin_until(running.done, 10.0, self._alive)
        self._spin(_SETTLING_TIME)

    def _is_moving(self) -> bool:
        record = self._relays.record()
        recent = record.positions[record.times > time.monotonic() - 0.2]
        return len(recent) > 5 and bool(np.max(np.abs(recent[-1] - recent[0])) > _MOVING * 0.2)

    def _wait_ready(self, nodes: Sequence[str] = (), timeout: float = _READY_TIMEOUT) -> None:
        self._driver.wait_ready(nodes or self._nodes, timeout, self._alive)

    def _spin(self, seconds: float) -> None:
        self._driver.spin_until(lambda: False, seconds, self._alive)

    def _alive(self) -> None:
        self._scene.supervisor.check()


def rest_ms(record: Record, begin: float, end: float) -> float | None:
    """Return ms from ``begin`` until the set-points rest before ``end`` (monotonic s); None without rest."""
    for k in range(max(0, int(np.searchsorted(record.times, begin, "right")) - 1), len(record.times)):
        since = max(begin, float(record.times[k]))
        if since + _REST_TIME > end:
            return None
        next_ones = record.positions[k : np.searchsorted(record.times, since + _REST_TIME)]
        if np.max(np.abs(next_ones - record.positions[k])) < _REST:
            return round(1000 * (since - begin), 1)
    return None


def hold_ms(record: Record, begin: float, end: float, robot: RobotModel) -> float | None:
    """Return ms from ``begin`` until the set-points move no further than the shortest stop needs.

    Arguments and result as for :func:`rest_ms`; accurate to a set-point or two.
    """
    rest = rest_ms(record, begin, end)
    if rest is None:
        return None
    standing = begin + rest / 1000
    last = int(np.searchsorted(record.times, standing, "right"))
    for k in range(max(1, int(np.searchsorted(record.times, begin, "right")) - 1), last):
        before, here = record.positions[k - 1 : k + 1]
        speed = np.abs(here - before) / (record.stamps[k] - record.stamps[k - 1])
        farthest = np.max(np.abs(record.positions[k:last] - here), axis=0)
        if np.all(farthest <= speed**2 / (2 * robot.acceleration_max) + speed * _SLACK + _REST):
            return round(1000 * max(0.0, float(record.times[k]) - begin), 1)
    return rest


@dataclass
class Faults:
    """Inject faults on the simulated robot, one at a time, and record its commands.

    Exit code 1 when a command broke a limit, or the arm did not hold or not recover.
    """

    out: Path | None = None
    """JSON file with a record of each fault; one of the same seed and models is continued."""
    overwrite: bool = False
    """Replace the JSON file."""
    only: str = ""
    """Inject only faults whose names contain this text."""
    seed: Seed = 0
    """Seed of the first scene."""
    table: Path | None = None
    """Markdown page; its part after "<!-- table of faults -->" is replaced by the table."""
    cell: str = "sim_panda"
    """Robot cell: a name in config/cells or a YAML file."""
    policy: str = GENIMA
    """Policy: genima, another trained one of --checkpoint, a checkpoint folder, expert, one of your own, a server
    (ws://host:8000 or a YAML file); or remote: the checkpoint behind ./genima serve, which is stalled and killed."""
    checkpoint: str = ""
    """Folder of the trained policy; default: the bundled models of genima."""
    logs: Path | None = None
    """Folder for the nodes' logs."""


def main(argv: Sequence[str]) -> int:
    """Run the bench; return the exit code: 1 when a command broke a limit, or the arm did not hold or not recover."""
    options = parse_options(Faults, "genima faults", argv, example="./genima faults --only camera --out faults.json")
    if options.table:
        _require_place(options.table)
    from genima.cell import load_cell  # imported here: --help must be quick
    from genima.evaluation.results import checkpoint_digest

    require_policy(options.policy)
    cell = load_cell(options.cell)
    spec, folders = _read_spec(options, cell)
    settings = {
        "task": TASK,
        "cell": cell.name,
        "seed": options.seed,
        **({"policy": options.policy} if options.policy != GENIMA else {}),
        "checkpoint": options.checkpoint or "bundled",
        "checkpoint_digest": checkpoint_digest(folders),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(interrupt_on_signals())
        if options.out is not None:
            stack.enter_context(output_lock(options.out.absolute(), "record of faults"))
        return _bench(options, cell, spec, settings)


def _read_spec(options: Faults, cell: Cell) -> tuple[PolicySpec, Mapping[str, Path]]:
    """Return the specification of the policy, which must fit the cell, and the folders of its checkpoint."""
    from genima.policy.remote import read_spec
    from genima.policy.spec import is_trained, read_policy
    from genima.policy.trajectory_policy import TrajectoryPolicy

    if options.policy == REMOTE or is_trained(options.policy):
        served = options.checkpoint or GENIMA
        trained = read_policy(served) if options.policy == REMOTE else read_policy(options.policy, options.checkpoint)
        cell.require_policy(trained.spec, trained.title)
        return trained.spec, trained.folders
    require_options(options.policy, options.checkpoint, "")
    loaded = PolicyOptions(options.checkpoint, "cpu", cell.robot_reference, cell.views, server=options.policy)
    if is_server(options.policy):
        spec = read_spec(loaded)
        cell.require_policy(spec, f"policy {options.policy}")
        return spec, {}
    policy = load_policy(options.policy, loaded)
    if isinstance(policy, TrajectoryPolicy):  # it does not use images
        policy.spec.require_robot(cell.robot, f"policy {options.policy}")
    else:
        cell.require_policy(policy.spec, f"policy {options.policy}")
    return policy.spec, {}


def _bench(options: Faults, cell: Cell, spec: PolicySpec, settings: dict[str, Any]) -> int:
    done = _read(options.out, settings, options.overwrite)
    os.environ.update(ros_environment())
    from genima_cli.faults.injection import all_faults

    known = all_faults(spec.views, options.policy)
    wanted = [fault for fault in known if options.only in fault.name]
    if not wanted:
        raise GenimaError(f"--only {options.only}: no such fault; there are: {', '.join(f.name for f in known)}")
    names = {result.fault for result in done}
    remaining = [fault for fault in wanted if fault.name not in names]
    if done:
        print(f"{options.out}: continuing after {len(done)} faults; --overwrite starts again")
    interrupted = False
    try:
        with tqdm(total=len(wanted), initial=len(wanted) - len(remaining), unit="fault", disable=None) as progress:
            for result in _run(options, cell, spec, known, remaining):
                done.append(result)
                _write(options.out, settings, done)
                progress.write(line(result))
                progress.update()
    except KeyboardInterrupt:
        interrupted = True
    text = table(done)
    print(text)
    if options.table and not interrupted:
        _update(options.table, text)
    if interrupted:
        return 130
    return 0 if all(result.passed for result in done) else 1


def _run(
    options: Faults, cell: Cell, spec: PolicySpec, known: Sequence[Fault], faults: Sequence[Fault]
) -> Iterator[Result]:
    seeds = {fault.name: options.seed + k for k, fault in enumerate(known)}  # independent of --only
    with tempfile.TemporaryDirectory() as folder:
        for clock in (False, True):
            chosen = [(fault, seeds[fault.name]) for fault in faults if fault.clock is clock]
            if chosen:
                yield from _run_graph(options, cell, spec, chosen, Path(folder), clock)


def _run_graph(
    options: Faults,
    cell: Cell,
    spec: PolicySpec,
    faults: Sequence[tuple[Fault, int]],
    folder: Path,
    clock: bool,
) -> Iterator[Result]:
    from genima_cli.faults.injection import Scene
    from genima_cli.faults.policy_server import PolicyServerProcess
    from genima_cli.faults.relays import CHUNK, DRAWN, Relays, remappings
    from genima_cli.graph_client import GraphClient
    from genima_nodes.ros.node_process import CONTROL_NICENESS, set_niceness

    file, environment = build_shifted_clock(folder) if clock else (folder, {})
    robot = cell.robot
    logs = options.logs or folder / "logs"
    policy = PolicyArguments(options.policy, options.checkpoint, seed=options.seed)
    with contextlib.ExitStack() as stack:
        server: PolicyServerProcess | None = None
        if options.policy == REMOTE:
            checkpoint = [options.checkpoint] if options.checkpoint else []
            server = stack.enter_context(PolicyServerProcess(checkpoint, logs / "policy_server.log"))
            policy = replace(policy, name=server.address, checkpoint="")
            environment = environment | server.environment
        processes = [
            replace(process, remappings=remappings(process.executable, spec.views))
            for process in simulation_stack(cell, policy)
        ]
        supervisor = stack.enter_context(Supervisor(processes, logs, ros_environment() | environment))
        stack.enter_context(ros_context())
        set_niceness(CONTROL_NICENESS)  # the relays must not cause delays
        sys.setswitchinterval(1e-3)
        output = DRAWN if options.policy == GENIMA else CHUNK
        driver, relays = create(lambda: (GraphClient("fault_bench"), Relays(robot, spec.views, output)))
        try:
            scene = Scene(supervisor, relays, relays, spec, file, server)
            bench = FaultBench(driver, relays, scene, robot, [process.node for process in processes])
            for fault, seed in faults:
                yield bench.run(fault, seed)
        finally:
            relays.close()
            driver.close()


def line(result: Result) -> str:
    """Return one result as a line."""
    held = "does not hold"
    if result.hold_ms is not None:
        held = f"holds after {result.hold_ms:.0f} ms, at rest after {result.rest_ms:.0f} ms"
    recovery = "recovers" if result.recovered else "DOES NOT RECOVER"
    over = f"{result.limit_violations} of {result.set_points} set-points over a limit"
    return f"{result.fault}: {held}, {over}, {recovery}; task {result.task}"


def table(results: Sequence[Result]) -> str:
    """Return all results in Markdown."""
    rows = [
        "| fault | set-points over a limit | hold [ms] | rest [ms] | recovers | faults reported |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        held = "never |" if r.must_hold else "continues |"
        if r.hold_ms is not None:
            held = f"{r.hold_ms:.0f} | {r.rest_ms:.0f}"
        reported = "; ".join(r.reported[:2]).replace("|", "/")
        recovered = "yes" if r.recovered else "no"
        rows.append(f"| {r.fault} | {r.limit_violations} of {r.set_points} | {held} | {recovered} | {reported} |")
    return "\n".join(rows)


def _read(out: Path | None, settings: dict[str, Any], overwrite: bool) -> list[Result]:
    """Return the results that a file has; it is left as it is where it is no record of faults."""
    if out is None:
        return []
    require_writable(out)
    if not out.exists():
        return []
    try:
        record = load_json(_Record, out, "record of faults")
        done = validate(list[Result], record.faults, f"record of faults {out}")
    except GenimaError as error:
        raise GenimaError(f"{out} was not written by ./genima faults: {error}") from None
    if overwrite:
        return []
    require_same_settings(f"record of faults {out}", record.settings, settings)
    return done


def _write(out: Path | None, settings: dict[str, Any], results: Sequence[Result]) -> None:
    if out is not None:
        record = {"settings": settings, "faults": [asdict(result) for result in results]}
        atomic_write(out, (json.dumps(record, indent=2) + "\n").encode())


def _require_place(page: Path) -> str:
    """Return the text of a page that has a place for the table."""
    text = read_text(page, "page")
    if text.find(_BEGIN) < 0 or text.find(_END, text.find(_BEGIN)) < 0:
        raise GenimaError(f"{page} has no place for the table: {_BEGIN} and {_END}")
    return text


def _update(page: Path, text: str) -> None:
    """Put the table between the marks of a page."""
    old = _require_place(page)
    head, rest = old.split(_BEGIN, 1)
    atomic_write(page, f"{head}{_BEGIN}\n{text}\n{_END}{rest.split(_END, 1)[1]}".encode())
