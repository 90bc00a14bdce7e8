"""`./genima real`: run a real Franka arm and its RealSense cameras by Genima's own drivers, without ROS's.

The same nodes as `ros2 launch genima_bringup real_robot.launch.py backend:=franka_arm gripper:=franka_hand
camera_driver:=realsense_camera`. Then `./genima task "..."` has it do something, in another terminal.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
from genima_bringup.demo import interruptible
from genima_bringup.processes import CLOCK_WATCH, real
from genima_bringup.shortcuts import add_shortcuts, chosen_shortcuts
from genima_bringup.supervisor import Supervisor, robot_environment

if TYPE_CHECKING:
    from genima_bringup.driver import Driver

_READY_TIMEOUT = 300.0  # s: large models on a cold disk
_DISCOVERY = 2.0  # s in which others who run are seen


def main(argv: list[str]) -> int:
    """Run until interrupted; returns the exit code."""
    options = _parse(argv)
    rig = load_rig(options.cameras)  # in a moment, what the nodes would find out in many seconds
    spec, _ = checkpoint.read_pair(options.checkpoint)
    spec.require_robot(RobotModel.load(options.robot), f"the checkpoint {options.checkpoint or 'of Genima'}")
    if misfits := [finding for finding in rig_fits(rig, spec) if finding.status is Status.FAIL]:
        raise GenimaError(f"{misfits[0].what}: {misfits[0].found}; {misfits[0].remedy}")
    calibrated = load_cameras(options.calibration)
    if missing := [view for view in rig if view not in calibrated]:
        raise GenimaError(f"{options.calibration} has no calibration of {', '.join(missing)}: ./genima calibrate live")
    environment = robot_environment()
    os.environ.update(environment)  # this process takes part in the same graph
    processes = real(
        options.robot, options.robot_ip, rig, options.calibration, options.checkpoint, options.device,
        chosen_shortcuts(options),
    )  # fmt: skip
    nodes = [process.node for process in processes if process != CLOCK_WATCH]
    with interruptible(), ExitStack() as stack:
        try:
            driver = stack.enter_context(_taking_part())
            _require_alone(driver, nodes)
            logs = options.logs or Path(tempfile.mkdtemp(prefix="genima_"))
            supervisor = stack.enter_context(Supervisor(processes, logs, environment))
            _watch(driver, nodes, supervisor)
        except KeyboardInterrupt:
            return 130
    return 0


@contextmanager
def _taking_part() -> Iterator[Driver]:
    import rclpy  # after the arguments have been understood: it takes a while
    from rclpy.signals import SignalHandlerOptions

    from genima_bringup.driver import Driver

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    driver = Driver("real")
    try:
        yield driver
    finally:
        driver.close()
        rclpy.try_shutdown()


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


def _watch(driver: Driver, nodes: Sequence[str], supervisor: Supervisor) -> None:
    """Say how the nodes are until a key ends it, or one of them ends."""
    with tqdm(bar_format="{desc}", disable=None) as line:

        def live() -> None:
            supervisor.check()
            line.set_description_str("  ".join(f"! {fault}" for fault in driver.faults()) or "all fine", refresh=True)

        line.write("starting the drivers and the models ...")
        driver.wait_ready(nodes, _READY_TIMEOUT, live)
        line.write('ready: ./genima task "..." in another terminal; Ctrl-C ends')
        while True:
            driver.spin_until(lambda: False, 1.0, live)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./genima real", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--robot-ip", required=True, help="address of the robot")
    parser.add_argument("--robot", default="fr3_franka_hand", help="in config/robots, or a file (default: %(default)s)")
    parser.add_argument("--cameras", required=True, help="which camera is which view: a YAML file as in config/cameras")
    parser.add_argument("--calibration", required=True, help="of the cameras: a name in calibration, or a folder")
    parser.add_argument("--checkpoint", default="", help="folder with diffusion_agent/ and controller/")
    parser.add_argument("--device", default="cuda", help="that the models compute on (default: %(default)s)")
    parser.add_argument("--logs", type=Path, help="folder for the nodes' logs")
    add_shortcuts(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
