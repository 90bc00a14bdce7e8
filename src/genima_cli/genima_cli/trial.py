"""`./genima trial PROTOCOL --policy A B`: blinded trials of two policies on a robot, judged by the operator.

This process serves both policies at one address, to which the policy node of the robot's graph connects; it switches
between them while no task runs and the command guard holds the arm.
"""

from __future__ import annotations

import os
import secrets
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import tyro
from pydantic import Field

from genima.errors import GenimaError
from genima.policy.registry import PolicyOptions, load_policy, require_policy
from genima.system.command_line import Seconds, Seed, Workers, parse_options
from genima.system.signals import interrupt_on_signals
from genima.system.terminal import printable
from genima.types import TaskOutcome
from genima_cli.join_graph import GraphOptions, joined_graph
from genima_nodes.ros.ros_environment import joining_environment, ros_environment

if TYPE_CHECKING:
    from genima.cell import Cell
    from genima.evaluation.blinded_policy import BlindedPolicy
    from genima.evaluation.trials import Protocol, Side, Trial, TrialFile, TrialVerdict
    from genima.policy.base import Policy
    from genima_cli.graph_client import GraphClient

_NODES = ("policy", "controller", "command_guard", "task_runner")
_REPLY_TIMEOUT = 10.0  # s for a policy that is on a server itself
_OVERLAY_TIMEOUT = 3.0  # s for a comparison of the scene
_RELEASE_TIMEOUT = 10.0  # s for the end of a task: the arm comes to rest, and has no owner
_NOT_ENDED = "task runner: end of the task not confirmed; stop the arm with ./genima call stop"


@dataclass
class TrialOptions(GraphOptions):
    """Compare two policies on a robot: blinded, in random order; the operator judges each trial.

    The result is kept after each trial; interrupted, the same command resumes. docs/evaluation.md explains the steps.
    """

    protocol: tyro.conf.Positional[str]
    """Protocol of the task: a name in config/trials, or a YAML file."""
    policy: Annotated[tuple[str, str], tyro.conf.arg(metavar="A B")]
    """Policies A and B: checkpoint folders, names or servers, as --policy of ./genima eval."""
    cell: str = "sim_panda"
    """Robot cell: a name in config/cells or a YAML file. A simulated one is started here; a real robot runs already,
    with the policy at the address that is printed."""
    starts: Path | None = None
    """Folder of demos, one for each pair of trials: the node scene_overlay shows its start (docs/demos.md)."""
    seed: Seed = 0
    """Seed of the random order; in simulation also the first of the scenes."""
    all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Run all trials; the verdict is McNemar's exact test at 5%."""
    out: Path | None = None
    """JSON file for the result; default: runs/trials/<protocol>.json. It has the order: read it only at the end.
    Beside it are the logs of simulated nodes."""
    overwrite: bool = False
    """Replace the result in --out, and start anew."""
    device: str = "cpu"
    """Device of the models."""
    threads: Workers = 1
    """Processor cores that the models use."""
    host: str = "127.0.0.1"
    """Address at which both policies are served; 0.0.0.0: also to other machines."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port; 0: a free one."""
    patience: Seconds = 300.0
    """Seconds to wait for the nodes."""


def main(argv: Sequence[str]) -> int:
    """Run the trials; return the exit code.

    Raises:
        GenimaError: for a protocol, a policy or a demo that does not fit, and for a robot that is not ready.
    """
    example = "./genima trial lid_off --policy runs/genima runs/act --cell mine.yaml"
    options = parse_options(TrialOptions, "genima trial", argv, example=example)
    for policy in options.policy:
        require_policy(policy)
    from genima.cell import load_cell
    from genima.evaluation.blinded_policy import BlindedPolicy
    from genima.evaluation.results import open_results
    from genima.evaluation.trials import SIDES, TrialFile, load_protocol
    from genima.policy.policy_server import policy_server
    from genima.policy.remote import TOKEN

    protocol, cell = load_protocol(options.protocol), load_cell(options.cell)
    out = options.out or Path("runs") / "trials" / f"{Path(options.protocol).stem}.json"
    if out.suffix != ".json":
        raise GenimaError(f"--out {out}: the result is a .json file")
    if cell.simulator and not protocol.task:
        raise GenimaError(f"protocol {options.protocol}: no task of simulated cell {cell.name}; name a real cell")
    if cell.simulator and options.starts:
        raise GenimaError(f"--starts {options.starts}: the simulator resets the scenes of {cell.name}; leave it out")
    starts = _starts(options.starts, len(protocol.pairs))
    policies = dict(zip(SIDES, (_load(options, cell, name) for name in options.policy), strict=True))
    names = dict(zip(SIDES, options.policy, strict=True))
    blinded = BlindedPolicy(policies, names)
    settings = {
        "protocol": protocol.model_dump(),
        "cell": cell.name,
        "policies": list(options.policy),
        "checkpoint_digests": [_digest(name) for name in options.policy],
        "seed": options.seed,
        "stops_early": not options.all,
        "starts": str(options.starts or ""),
    }
    file = TrialFile(protocol, options.seed, not options.all, settings, out)
    with interrupt_on_signals(), open_results(file, options.overwrite) as results:
        if results.next_trial() is not None:
            results.write()  # the order, and a full disk is found before the arm moves
            token = os.environ[TOKEN] = os.environ.get(TOKEN) or secrets.token_urlsafe(16)
            try:
                with (
                    policy_server(blinded, token, options.host, options.port) as port,
                    _graph(options, cell, port, out) as (driver, check),
                ):
                    simulated = bool(cell.simulator)
                    _Session(options, protocol, blinded, results, driver, check, starts, simulated).run()
            except (KeyboardInterrupt, EOFError):
                total = 2 * len(results.variants)
                print(f"\ninterrupted: {results.counted} of {total} trials are in {out}; the same command resumes")
                return 130
    print(results.comparison().report(*options.policy))
    return 0


def _starts(folder: Path | None, pairs: int) -> list[Path]:
    """Return the demos whose start is shown, one for each pair."""
    if folder is None:
        return []
    from genima.data.episodes.folders import find_episodes

    found = find_episodes(folder)
    if len(found) < pairs:
        raise GenimaError(f"--starts {folder}: {len(found)} demos for {pairs} pairs of trials; record more")
    return found[:pairs]


def _load(options: TrialOptions, cell: Cell, name: str) -> Policy:
    import torch  # takes seconds

    from genima.policy.spec import is_trained, read_policy

    if is_trained(name):  # before its weights are loaded
        trained = read_policy(name)
        cell.require_policy(trained.spec, trained.title)
    torch.set_num_threads(options.threads)
    policy = load_policy(
        name,
        PolicyOptions(
            device=options.device, robot=cell.robot_reference, views=cell.views, reply_timeout=_REPLY_TIMEOUT,
            calibration=cell.calibration,
        ),
    )  # fmt: skip
    cell.require_policy(policy.spec, f"policy {name}")
    return policy


def _digest(name: str) -> str:
    from genima.evaluation.results import checkpoint_digest
    from genima.policy.spec import is_trained, read_policy

    return checkpoint_digest(read_policy(name).folders if is_trained(name) else {})


@contextmanager
def _graph(options: TrialOptions, cell: Cell, port: int, out: Path) -> Iterator[tuple[GraphClient, Callable[[], None]]]:
    """Start a simulated robot, or join a real one; yield the client and a function that checks the processes."""
    host = "127.0.0.1" if options.host == "0.0.0.0" else options.host
    address = f"ws://{host}:{port}"
    if not cell.simulator:
        from genima.policy.remote import TOKEN

        command = f"{TOKEN}={os.environ[TOKEN]} ./genima real --cell {cell.reference} --policy {address}"
        print(f"start the robot in another terminal:\n  {command}", flush=True)
        os.environ.update(joining_environment(options.dds))
        with joined_graph("trial", options.namespace) as driver:
            yield driver, lambda: None
        return
    from genima_bringup.node_specs import PolicyArguments, simulation_stack
    from genima_cli.supervisor import Supervisor

    environment = ros_environment()
    os.environ.update(environment)  # this process joins the same graph
    nodes = simulation_stack(cell, PolicyArguments(address))
    with Supervisor(nodes, out.with_suffix(".logs"), environment) as supervisor, joined_graph("trial") as driver:
        yield driver, supervisor.check


@dataclass
class _Session:
    """Dialogue with the operator, trial by trial."""

    options: TrialOptions
    protocol: Protocol
    blinded: BlindedPolicy
    results: TrialFile
    driver: GraphClient
    check: Callable[[], None]  # raises a GenimaError for a process that has ended
    starts: Sequence[Path]  # demos, by pair; empty: no overlay
    is_simulated: bool

    def run(self) -> None:
        """Run the trials that are missing."""
        print(f"task: {self.protocol.instruction}\nsuccess: {self.protocol.success}")
        self._wait_ready()
        while (following := self.results.next_trial()) is not None:
            pair, side = following
            total = 2 * len(self.results.variants)
            variant = self.results.variants[pair]
            print(f"\ntrial {self.results.counted + 1} of {total}, {variant}: {self.protocol.variants[variant]}")
            instruction = self._set_up(pair)
            self._require_released()
            self.blinded.select(side)
            outcome, reason, seconds = self._run_task(instruction)
            print(f"{outcome} after {seconds:.1f} s ({reason})")
            verdict, note = self._ask_verdict()
            self.results.add(_trial(pair, side, verdict, note, seconds, f"{outcome}: {reason}"))

    def _wait_ready(self) -> None:
        nodes = _NODES if not self.starts else (*_NODES, "scene_overlay")
        self.driver.wait_ready(nodes, self.options.patience, self.check)

    def _set_up(self, pair: int) -> str:
        """Let the operator set up the scene, or reset the simulated one; return the instruction."""
        if self.is_simulated and self.protocol.task:
            instruction = self.driver.reset(self.protocol.task, self.options.seed + pair, self.check)
            input("scene reset; Enter starts: ")
            return instruction
        print(f"setup: {self.protocol.setup}")
        if self.starts:
            self._show_start(self.starts[pair])
        while True:
            input("the arm will move: keep clear; Enter starts: ")
            if not self.starts or not (difference := self._scene_difference()):
                return self.protocol.instruction
            if input(f"the scene differs from its start ({difference}); start all the same? [y/N] ").lower() == "y":
                return self.protocol.instruction

    def _show_start(self, demo: Path) -> None:
        from genima_interfaces.srv import ShowEpisode

        request = ShowEpisode.Request(folder=str(demo.absolute()))
        answer = self.driver.call(ShowEpisode, "scene_overlay/show", request, self.check)
        if not answer.success:
            raise GenimaError(answer.message)
        print(f"scene_overlay shows the start of {demo.name}; put every object to its place there")

    def _scene_difference(self) -> str:
        """Return which views differ from the start of the demo that is shown; empty if all match."""
        from genima_interfaces.msg import SceneDifference
        from genima_nodes.ros import qos

        received: list[Any] = []
        subscription = self.driver.create_subscription(
            SceneDifference, "scene_overlay/status", received.append, qos.STATUS
        )
        try:
            if not self.driver.spin_until(lambda: bool(received), _OVERLAY_TIMEOUT, self.check):
                raise GenimaError("scene_overlay: no status; start the node again")
        finally:
            self.driver.destroy_subscription(subscription)
        status = received[-1]
        if status.matches:
            return ""
        views = (f"{view} {part:.1%}" for view, part in zip(status.views, status.differences, strict=True))
        return printable(status.problem) or ", ".join(views)

    def _run_task(self, instruction: str) -> tuple[str, str, float]:
        """Run the task until it ends or the operator presses Enter; return outcome, reason and seconds."""
        driver = self.driver
        self._wait_ready()
        try:
            ended = driver.begin_task(instruction, self.protocol.time_limit, self.check)
            print("the task runs; Enter ends it", flush=True)
            while not driver.spin_until(lambda: ended.done() or _enter_pressed(), 1.0, self.check):
                if problem := driver.problem("task_runner"):
                    raise GenimaError(f"task runner: {problem}; check that the robot's nodes still run")
        except (GenimaError, KeyboardInterrupt):
            self._end_task()
            raise
        if not ended.done():
            sys.stdin.readline()
            self._end_task()
        self._require_released()
        result = driver.wait_for(ended, "run_task", _RELEASE_TIMEOUT, self.check).result
        return TaskOutcome(result.outcome).name, printable(result.reason), float(result.elapsed)

    def _end_task(self) -> None:
        if not self.driver.end_task():
            raise GenimaError(_NOT_ENDED)

    def _require_released(self) -> None:
        """Raise a GenimaError while a policy may move the arm."""
        from genima_interfaces.srv import SelectSource

        driver, owner = self.driver, SelectSource.Request.CONTROLLER

        def released() -> bool:
            return driver.guard is not None and driver.guard.owner != owner

        driver.guard = None  # an earlier status does not count: none is received during a question
        if not driver.spin_until(released, _RELEASE_TIMEOUT, self.check):
            raise GenimaError(f"command guard: {owner} owns the arm; end its task with ./genima call stop")

    def _ask_verdict(self) -> tuple[TrialVerdict, str]:
        """Return the operator's verdict and note."""
        from genima.evaluation.trials import TrialVerdict

        verdicts = {str(verdict)[0]: verdict for verdict in get_args(TrialVerdict)}
        while True:
            letter, _, note = input("success (s), failure (f) or not counted (n), and a note: ").strip().partition(" ")
            if verdict := verdicts.get(letter.lower()):
                return verdict, note.strip()


def _trial(pair: int, side: Side, verdict: TrialVerdict, note: str, seconds: float, ended: str) -> Trial:
    from genima.evaluation.trials import Trial

    return Trial(pair=pair, side=side, verdict=verdict, note=note, seconds=seconds, ended=ended)


def _enter_pressed() -> bool:
    """Return whether a line waits; only at a terminal: lines of a file are answers to questions."""
    return sys.stdin.isatty() and bool(select.select([sys.stdin], [], [], 0)[0])
