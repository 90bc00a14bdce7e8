"""`./genima calibrate live`: calibrate a camera on a real or simulated robot, by hand or automatically.

Starts the simulator, the project's drivers of a real robot, or only the calibrator for a running robot; or controls a
running calibrator.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from genima.errors import GenimaError
from genima.system.command_line import parse_options
from genima.system.ros_names import RosName
from genima.system.signals import interrupt_on_signals
from genima_bringup.node_specs import (
    CLOCK_WATCH,
    TELEOP_RATE,
    NodeSpec,
    calibrator,
    camera,
    command_guard,
    jog,
    leader_follower_nodes,
    own_drivers,
    simulated_leader,
    simulator_with_board,
    teleop_node,
)
from genima_cli.join_graph import GraphOptions
from genima_cli.teleop_session import Key, TeleopSession, attach_operator, require_terminal, teleop_session

if TYPE_CHECKING:  # OpenCV and SciPy are loaded after the arguments are parsed
    from genima.cameras.camera import Camera
    from genima.cameras.camera_devices import CameraDevice
    from genima.cell import Cell

_NODES = ("calibrator",)  # of a running robot
_SPEED, _SIMULATED_SPEED = 0.15, 0.4  # fraction of the arm's velocity limits, on a real and a simulated robot
_MOST = 20  # samples
_START_TIMEOUT, _TIMEOUT = 60.0, 1200.0  # s until the board is detected, and for all samples
_TOLERANCE = 1.0, 0.1  # mm, deg from the simulator's true pose


@dataclass
class CalibrateLive(GraphOptions):
    """Calibrate a camera on the robot: take samples by keys, or automatically.

    With --sim: on the simulated robot. With --robot-ip, --cell and --view: start the project's drivers of a real Franka
    robot and of that camera, with the guard and the calibrator. With --view and --parent: start the calibrator for a
    running robot. Without these: control a running calibrator by keys.
    """

    sim: bool = False
    """Use the simulated robot, with a board in the gripper or on the table."""
    robot_ip: str = ""
    """Address of the real robot, to start its drivers."""
    cell: str | None = None
    """Robot cell: a name in config/cells or a YAML file; default: sim_panda with --sim, else fr3_own_driver."""
    view: RosName | None = None
    """Camera to be calibrated; default with --sim: front."""
    parent: Literal["base", "flange"] | None = None
    """Mount of the camera, where --cell does not define it."""
    board: Path | None = None
    """YAML file of the board; default: calibration/boards/charuco_7x5_a4.yaml."""
    out: Path | None = None
    """Folder for VIEW.yaml; default: calibration/mine, with --sim runs/<time>."""
    samples: Path | None = None
    """Folder for the samples; default: data/calibration/VIEW, with --sim in --out."""
    auto: bool = False
    """With --sim: run without an operator. On a real robot, key m starts the automatic motion."""
    most: Annotated[int, Field(ge=5, le=1000)] | None = None
    """Number of samples of the automatic mode; default: 20."""
    speed: Annotated[float, Field(ge=0.01, le=1)] | None = None
    """Speed of the automatic mode, fraction of the arm's velocity limits; default: 0.15, with --sim 0.4."""
    base_frame: str | None = None
    """Name of the robot's base in tf, if different from franka_description, such as left_fr3_link0."""
    flange_frame: str | None = None
    """Name of the robot's flange in tf, if different from franka_description, such as left_fr3_link8."""
    logs: Path | None = None
    """Folder for the logs of the started nodes; default: runs/calibrate/<time>/logs, with --sim none."""


def main(argv: Sequence[str]) -> int:
    """Calibrate; return the exit code: 1 when the result differs from a simulated camera's true pose."""
    options = parse_options(CalibrateLive, "genima calibrate live", argv, "./genima calibrate live --sim --auto")
    _require_possible(options)
    with interrupt_on_signals():
        if options.sim:
            return _simulate(options)
        if options.robot_ip:
            return _start_robot(options)
        return _start_calibrator(options) if options.view else _control_running_calibrator(options)


def _require_possible(options: CalibrateLive) -> None:
    """Raise a GenimaError for options that contradict each other, and for files that cannot be read."""
    described = ("parent", "base_frame", "flange_frame")
    if options.sim:
        _refuse(options, ("robot_ip", *described, "namespace"), "goes with a real robot; remove it, or --sim")
    elif options.robot_ip:
        for name in ("cell", "view"):
            if not getattr(options, name):
                raise GenimaError(f"--{name} is missing; --robot-ip needs the cell and the camera's view")
        _refuse(options, ("parent",), "goes without --cell, which defines the camera's mount")
        _refuse(options, ("namespace",), "goes with a running robot; the nodes that are started here have none")
        _refuse(options, ("auto",), "goes with --sim; on a real robot key m starts the automatic motion")
    elif options.view:
        if not (options.parent or options.cell):
            raise GenimaError(
                "give --parent base or --parent flange; or start robot and camera here, too, with --robot-ip and --cell"
            )
        _refuse(options, ("auto",), "goes with --sim; on a real robot key m starts the automatic motion")
    else:
        unused = ("cell", *described, "board", "out", "samples", "auto", "most", "speed", "logs")
        _refuse(
            options, unused, "goes with --sim, or with the --view of a real robot whose calibrator is started here; a "
            "running calibrator has its own"
        )  # fmt: skip
    if not options.auto:
        require_terminal("calibrating by hand")
    if options.board:
        from genima.cameras.calibration_board import CalibrationBoard

        CalibrationBoard.load(options.board)


def _refuse(options: CalibrateLive, names: Sequence[str], why: str) -> None:
    """Raise a GenimaError for the first given option of ``names``."""
    for name in names:
        if getattr(options, name) not in (None, "", False):
            raise GenimaError(f"--{name.replace('_', '-')} {why}")


# ------------------------------------------------------------------------------------------------------ real robots


def _start_robot(options: CalibrateLive) -> int:
    """Start the project's drivers of robot and camera, the guard, a keyboard leader, and the calibrator."""
    from genima_cli.join_graph import joined_graph
    from genima_cli.real import require_alone, require_own_driver
    from genima_nodes.ros.ros_environment import robot_environment

    cell = _cell(options).with_robot_ip(options.robot_ip)
    require_own_driver(cell)
    view, device = options.view or "", _device(options, cell)
    processes = [
        *own_drivers(cell), camera(view, device), command_guard(cell), jog(cell), teleop_node(cell, "same", _SPEED),
        _calibrator(options, cell, device.mounted_on), CLOCK_WATCH,
    ]  # fmt: skip
    environment = robot_environment()
    os.environ.update(environment)
    with joined_graph("calibrate") as driver:
        require_alone(driver, [process.node for process in processes if process != CLOCK_WATCH])
    logs = _logs(options)
    with teleop_session(processes, logs, environment, "the drivers, the guard and the calibrator") as session:
        _run_manual(session)
    return 0


def _start_calibrator(options: CalibrateLive) -> int:
    """Start the calibrator in the graph of a running robot."""
    from genima_cli.join_graph import joined_graph
    from genima_cli.real import require_alone
    from genima_cli.supervisor import Supervisor
    from genima_nodes.ros.ros_environment import joining_environment

    cell, parent = _cell(options), options.parent or "base"
    if options.cell and cell.camera_devices and options.view in cell.camera_devices:
        mounted = _device(options, cell).mounted_on
        if options.parent not in (None, mounted):
            raise GenimaError(f"--parent {parent}: {options.cell} has {options.view} on the {mounted}")
        parent = mounted
    elif options.parent is None:
        raise GenimaError(f"cell {cell.name}: no camera {options.view}; name its mount with --parent base or flange")
    processes = [_calibrator(options, cell, parent)]
    if options.namespace:
        processes = [replace(each, remappings={"__ns": f"/{options.namespace.strip('/')}"}) for each in processes]
    environment = joining_environment(options.dds)
    os.environ.update(environment)
    with joined_graph("calibrate", options.namespace) as driver:
        require_alone(driver, _NODES)
    with (
        Supervisor(processes, _logs(options), environment) as supervisor,
        attach_operator(_NODES, options.namespace, options.dds, supervisor.check) as session,
    ):
        _run_manual(session)
    return 0


def _control_running_calibrator(options: CalibrateLive) -> int:
    """Control a running robot and calibrator by keys."""
    with attach_operator(_NODES, options.namespace, options.dds) as session:
        _run_manual(session)
    return 0


def _cell(options: CalibrateLive) -> Cell:
    from genima.cell import OWN_DRIVER, SIMULATED, load_cell

    return load_cell(options.cell or (SIMULATED if options.sim else OWN_DRIVER))


def _calibrator(options: CalibrateLive, cell: Cell, parent: Literal["base", "flange"]) -> NodeSpec:
    assert options.view is not None
    return calibrator(
        cell, options.view, parent, str(options.board or ""),
        str(options.out or "calibration/mine"), str(options.samples or ""), options.speed or _SPEED,
        options.most or _MOST, options.base_frame or "", options.flange_frame or "",
    )  # fmt: skip


def _device(options: CalibrateLive, cell: Cell) -> CameraDevice:
    """Return the connection of the camera to calibrate."""
    if options.view is None or options.view not in cell.camera_devices:
        views = ", ".join(cell.camera_devices) or "no cameras"
        raise GenimaError(f"--view {options.view}: cell {cell.name} has {views}")
    return cell.camera_devices[options.view]


def _logs(options: CalibrateLive) -> Path:
    logs = options.logs or Path("runs") / "calibrate" / time.strftime("%Y-%m-%d_%H-%M-%S") / "logs"
    print(f"logs: {logs}", flush=True)
    return logs


# ---------------------------------------------------------------------------------------------------- simulated robot


def _simulate(options: CalibrateLive) -> int:
    cell = _cell(options)
    views = cell.load_cameras()
    view, most, speed = options.view or "front", options.most or _MOST, options.speed or _SIMULATED_SPEED
    if view not in views:
        raise GenimaError(f"--view {view}: cell {cell.name} has {', '.join(views)}")
    truth = views[view]
    out = options.out or Path("runs") / time.strftime("%Y-%m-%d_%H-%M-%S")
    place, board = "table" if truth.parent == "flange" else "gripper", str(options.board or "")
    samples = str(options.samples or out / "samples" / view)
    node = calibrator(cell, view, truth.parent, board, str(out), samples, speed, most)
    simulator = simulator_with_board(cell, view, place, board)
    if options.auto:
        with teleop_session([*simulator, command_guard(cell, TELEOP_RATE), node], options.logs) as session:
            try:
                _run_automatic(session, most)
            except GenimaError as error:
                raise GenimaError(f"{error}; --out {out} continues with its samples") from None
            print(session.operator.call_trigger("calibrator/save", session.live))
        return _compare(out, truth)
    with teleop_session(
        [*simulator, *simulated_leader(cell, "jog"), *leader_follower_nodes(cell), node], options.logs
    ) as session:
        if place == "gripper":
            session.operator.toggle_gripper()  # keep the gripper closed
        session.lead()
        _run_manual(session)
    return _compare(out, truth) if (out / f"{view}.yaml").exists() else 0


def _run_manual(session: TeleopSession) -> None:
    operator, live = session.operator, session.live

    def by_itself() -> str:
        status = operator.calibrator
        on = status is None or status.automatic != status.RUNNING
        if on and operator.following:
            operator.call_trigger("teleop/end", live)
        return operator.run_automatic_calibration(on, live)

    keys = {
        "t": Key("take", lambda: operator.call_trigger("calibrator/take", live)),
        "x": Key("drop the last", lambda: operator.drop_sample("", live)),
        "c": Key("compute", lambda: operator.call_trigger("calibrator/compute", live)),
        "v": Key("save", lambda: operator.call_trigger("calibrator/save", live)),
        "m": Key("start or stop the automatic motion", by_itself),
    }
    session.run_keys(keys)


def _run_automatic(session: TeleopSession, most: int) -> None:
    """Run the automatic mode to its end.

    Raises:
        GenimaError: when it does not start, or ends by a fault.
    """
    from tqdm import tqdm

    operator = session.operator
    session.write_line(_wait_for_start(session))
    with tqdm(total=most, unit="sample", dynamic_ncols=True) as progress:

        def ended() -> bool:
            if (status := operator.calibrator) is None:
                return False
            progress.update(len(status.samples) - progress.n)
            if status.computed:
                progress.set_postfix_str(f"{status.millimetres:.2f} mm, {status.degrees:.3f} deg", refresh=False)
            return status.automatic in (status.DONE, status.CANCELLED, status.FAILED)

        operator.spin_until(ended, _TIMEOUT, session.live)
    status = operator.calibrator
    text = status.automatic_text if status else "no status received"
    if status is None or status.automatic != status.DONE:
        raise GenimaError(f"calibrator: {text}")
    session.write_line(text)


def _wait_for_start(session: TeleopSession) -> str:
    """Start the automatic mode as soon as the board is detected."""
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            return session.operator.run_automatic_calibration(True, session.live)
        except GenimaError:
            if time.monotonic() > deadline:
                raise
        session.operator.spin_until(lambda: False, 0.3, session.live)


def _compare(out: Path, truth: Camera) -> int:
    """Print the distance of the saved calibration from the simulator's true pose; return the exit code."""
    import numpy as np

    from genima.cameras.calibration_file import CameraCalibration
    from genima.robot.rigid_transforms import pose_distance

    path = out / f"{truth.view}.yaml"
    found = CameraCalibration.load(path)
    metres, angle = pose_distance(found.camera.T_parent_camera, truth.T_parent_camera)
    off, sure = (1e3 * metres, float(np.degrees(angle))), found.sigma or (np.nan, np.nan)
    rows = zip(("mm", "deg"), off, sure, strict=True)
    parts = [f"{value:.3f} {unit} (1 sigma as stated: {sigma:.3f})" for unit, value, sigma in rows]
    print(f"{path}: {' and '.join(parts)} from where the simulated camera is")
    return 0 if off[0] <= _TOLERANCE[0] and off[1] <= _TOLERANCE[1] else 1
