"""`./genima real`: run a real Franka arm and its RealSense cameras by Genima's own drivers, without ROS's.

The same nodes as `ros2 launch genima_bringup real_robot.launch.py backend:=franka_arm gripper:=franka_hand
camera_driver:=realsense_camera`. Then `./genima task "..."` has it do something, in another terminal. With --no-policy
they wait for who calibrates the cameras, leads the arm or records.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from genima import checkpoint
from genima.doctor import Status
from genima.doctor.configuration import rig_fits
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.views import load_cameras
from genima.views.rig import load_rig
from genima_bringup.processes import CLOCK_WATCH, Process, real, real_without_policy
from genima_bringup.shortcuts import add_shortcuts, chosen_shortcuts
from genima_bringup.supervisor import Supervisor, interruptible, robot_environment
from genima_bringup.taking_part import taking_part

if TYPE_CHECKING:
    from genima_bringup.driver import Driver

_READY_TIMEOUT = 900.0  # s: large models on a cold disk, compiled for the first time
_DISCOVERY = 2.0  # s in which others who run are seen


def main(argv: list[str]) -> int:
    """Run until interrupted; returns the exit code."""
    options = _parse(argv)
    processes = _processes(options)
    environment = robot_environment()
    os.environ.update(environment)  # this process takes part in the same graph
    nodes = [process.node for process in processes if process != CLOCK_WATCH]
    with interruptible(), ExitStack() as stack:
        try:
            driver = stack.enter_context(taking_part("real"))
            _require_alone(driver, nodes)
            logs = options.logs or Path(tempfile.mkdtemp(prefix="genima_"))
            supervisor = stack.enter_context(Supervisor(processes, logs, environment))
            _watch(driver, nodes, supervisor, options.policy)
        except KeyboardInterrupt:
            return 130
    return 0


def _processes(options: argparse.Namespace) -> list[Process]:
    """What is to run.

    Raises:
        GenimaError: in a moment, for what the nodes would find out in many seconds.
    """
    rig, robot = load_rig(options.cameras), RobotModel.load(options.robot)
    calibrated = load_cameras(options.calibration) if options.calibration else {}
    if not options.policy:
        return real_without_policy(options.robot, options.robot_ip, rig, options.calibration)
    spec, _ = checkpoint.read_pair(options.checkpoint)
    spec.require_robot(robot, f"the checkpoint {options.checkpoint or 'of Genima'}")
    if misfits := [finding for finding in rig_fits(rig, spec) if finding.status is Status.FAIL]:
        raise GenimaError(f"{misfits[0].what}: {misfits[0].found}; {misfits[0].remedy}")
    if missing := [view for view in rig if view not in calibrated]:
        raise GenimaError(
            f"{options.calibration} has no calibration of {', '.join(missing)}: docs/calibration.md says how to make it"
        )
    return real(
        options.robot, options.robot_ip, rig, options.calibration, options.checkpoint, options.device,
        chosen_shortcuts(options),
    )  # fmt: skip


def _require_alone(driver: Driver, nodes: Sequence[str]) -> None:
    """Two of each node in one domain would hold both arms, that of who was there first as well.

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


def _watch(driver: Driver, nodes: Sequence[str], supervisor: Supervisor, policy: bool) -> None:
    """Say how the nodes are until a key ends it, or one of them ends."""
    with tqdm(bar_format="{desc}", disable=None) as line:

        def live() -> None:
            supervisor.check()
            line.set_description_str("  ".join(f"! {fault}" for fault in driver.faults()) or "all fine", refresh=True)

        line.write(f"starting the drivers{' and the models' if policy else ''} ...")
        driver.wait_ready(nodes, _READY_TIMEOUT, live)
        line.write('ready: ./genima task "..." in another terminal; Ctrl-C ends' if policy else "ready; Ctrl-C ends")
        while True:
            driver.spin_until(lambda: False, 1.0, live)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./genima real", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--robot-ip", required=True, help="address of the robot")
    parser.add_argument("--robot", default="fr3_franka_hand", help="in config/robots, or a file (default: %(default)s)")
    parser.add_argument("--cameras", required=True, help="which camera is which view: a YAML file as in config/cameras")
    parser.add_argument(
        "--calibration", default="",
        help="of the cameras: a name in calibration, or a folder; may be left out with --no-policy",
    )  # fmt: skip
    parser.add_argument(
        "--no-policy", dest="policy", action="store_false", help="without the models: to calibrate, to lead, to record"
    )
    parser.add_argument("--checkpoint", default="", help="folder with diffusion_agent/ and controller/")
    parser.add_argument("--device", default="cuda", help="that the models compute on (default: %(default)s)")
    parser.add_argument("--logs", type=Path, help="folder for the nodes' logs")
    add_shortcuts(parser)
    options = parser.parse_args(argv)
    if options.policy and not options.calibration:
        raise GenimaError("say with --calibration where the cameras are; without one, start with --no-policy")
    if options.checkpoint and not options.policy:
        raise GenimaError("--no-policy starts no models: leave out --checkpoint, or --no-policy")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
