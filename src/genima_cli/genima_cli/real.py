"""`./genima real`: run a real Franka arm and its RealSense cameras by Genima's own drivers, without ROS's.

The same nodes as `ros2 launch genima_bringup real_robot.launch.py cell:=fr3_own_driver`.
Then `./genima task "..."` runs a task, in another terminal. With --no-policy the nodes wait for a calibration,
teleoperation or recording.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tqdm import tqdm

from genima.errors import GenimaError
from genima.policy.chunk_sampling_options import ChunkSamplingOptions
from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima.policy.names import GENIMA
from genima.system.command_line import parse_options
from genima.system.signals import interrupt_on_signals
from genima_bringup.node_specs import (
    CLOCK_WATCH,
    NodeSpec,
    PolicyArguments,
    chunk_sampling_parameters,
    real_robot_stack,
    sampling_parameters,
)
from genima_cli.join_graph import joined_graph
from genima_cli.supervisor import Supervisor
from genima_nodes.ros.ros_environment import robot_environment

if TYPE_CHECKING:
    from genima.cell import Cell
    from genima_cli.graph_client import GraphClient

_READY_TIMEOUT = 900.0  # s: large models on a cold disk, compiled for the first time
_DISCOVERY = 2.0  # s to discover nodes that run already


@dataclass
class Real:
    """Run a real Franka arm and its RealSense cameras by Genima's own drivers, without ROS's.

    The same nodes as "ros2 launch genima_bringup real_robot.launch.py cell:=fr3_own_driver".
    Then "./genima task" runs a task, in another terminal. With --no-policy the nodes
    wait for a calibration, teleoperation or recording.
    """

    cell: str
    """Robot cell: a YAML file such as config/cells/fr3_own_driver.yaml, or a name in config/cells."""
    robot_ip: str = ""
    """Address of the robot; default: the cell's."""
    policy: str = GENIMA
    """Policy: genima (of --checkpoint), replay (of --episode), one of your own, or a server: its address
    (ws://host:8000) or its YAML file."""
    no_policy: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Run no policy: to calibrate, to teleoperate, to record."""
    checkpoint: str = ""
    """Folder of the trained policy; default: the bundled models of genima."""
    episode: str = ""
    """With replay: folder of the episode."""
    device: str = "cuda"
    """Device of the models."""
    logs: Path | None = None
    """Folder for the nodes' logs; default: runs/real/<time>/logs."""
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    """Sampling options of genima: faster, and other, drawn targets."""
    chunk_sampling: ChunkSamplingOptions = field(default_factory=ChunkSamplingOptions)
    """Sampling options of diffusion_policy."""


def main(argv: Sequence[str]) -> int:
    """Run until interrupted; return the exit code."""
    options = parse_options(
        Real, "genima real", argv,
        example="./genima real --cell mine.yaml --checkpoint runs/mine",
    )  # fmt: skip
    if options.no_policy and (options.checkpoint or options.episode or options.policy != GENIMA):
        raise GenimaError(
            "--no-policy: starts no policy; leave out --policy, --checkpoint and --episode, or --no-policy"
        )
    nodes = _nodes(options)
    require_driver()
    environment = robot_environment()
    os.environ.update(environment)  # this process joins the same graph
    names = [spec.node for spec in nodes if spec != CLOCK_WATCH]
    with interrupt_on_signals(), ExitStack() as stack:
        driver = stack.enter_context(joined_graph("real"))
        require_alone(driver, names)
        logs = options.logs or Path("runs") / "real" / time.strftime("%Y-%m-%d_%H-%M-%S") / "logs"
        print(f"logs: {logs}", flush=True)
        supervisor = stack.enter_context(Supervisor(nodes, logs, environment))
        try:
            _watch(driver, names, supervisor, not options.no_policy)
        except GenimaError as error:
            raise GenimaError(f"{error}; logs: {logs}" if str(logs) not in str(error) else str(error)) from None
    return 0


def require_driver() -> None:
    """Raise a GenimaError where the library of the arm's driver is missing, before nodes start."""
    from genima_nodes.drivers.optional_library import import_library

    import_library("pylibfranka")


def _nodes(options: Real) -> list[NodeSpec]:
    """Return the nodes to run.

    Raises:
        GenimaError: in a moment, for what the nodes would find out in many seconds.
    """
    from genima.cell import load_cell  # only here: for --help, nothing slow is imported
    from genima_bringup.argument_checks import require_policy

    cell = load_cell(options.cell).with_robot_ip(options.robot_ip)
    require_own_driver(cell)
    if not options.no_policy:
        require_policy(cell, options.policy, options.checkpoint, options.episode)
        sampling = sampling_parameters(options.sampling)
        chunk_sampling = chunk_sampling_parameters(options.chunk_sampling)
        policy = PolicyArguments(
            options.policy,
            options.checkpoint,
            options.episode,
            options.device,
            sampling=sampling,
            chunk_sampling=chunk_sampling,
        )
        return real_robot_stack(cell, policy)
    if cell.calibrated:
        cell.load_cameras()
    else:
        print(f"cell {cell.name}: not calibrated yet ({cell.calibration}); no transforms of its cameras")
    return real_robot_stack(cell, None)


def require_own_driver(cell: Cell) -> None:
    """Raise a GenimaError for a cell that is not driven by our own drivers alone."""
    driver = cell.require_driver()
    if driver.kind != "franka_arm" or driver.gripper is not None:
        raise GenimaError(
            f"cell {cell.name}: its drivers are ROS's; start ros2 launch genima_bringup real_robot.launch.py "
            f"cell:={cell.reference}, or name a cell such as fr3_own_driver"
        )


def require_alone(driver: GraphClient, nodes: Sequence[str]) -> None:
    """Raise a GenimaError where the same nodes run already: two sets would hold both arms.

    Raises:
        GenimaError: where one of the nodes runs already.
    """

    def others() -> list[str]:
        return sorted(set(driver.get_node_names()) & set(nodes))

    if driver.spin_until(lambda: bool(others()), _DISCOVERY, lambda: None):
        driver.spin_until(lambda: False, _DISCOVERY, lambda: None)  # the rest of them
        raise GenimaError(
            f"{', '.join(others())} run already in ROS_DOMAIN_ID {os.environ['ROS_DOMAIN_ID']}: end them, or start "
            "this robot in another domain"
        )


def _watch(driver: GraphClient, nodes: Sequence[str], supervisor: Supervisor, policy: bool) -> None:
    """Print the nodes' state until Ctrl-C or the end of a node."""
    with tqdm(bar_format="{desc}", disable=None) as line:

        def live() -> None:
            supervisor.check()
            line.set_description_str("  ".join(f"! {fault}" for fault in driver.faults()) or "all fine", refresh=True)

        line.write(f"starting the drivers{' and the models' if policy else ''} ...")
        driver.wait_ready(nodes, _READY_TIMEOUT, live)
        line.write('ready: ./genima task "..." in another terminal; Ctrl-C ends' if policy else "ready; Ctrl-C ends")
        while True:
            driver.spin_until(lambda: False, 1.0, live)
