"""Checks of checkpoint, robot, cameras and calibration against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from genima.cameras.calibration_file import CameraCalibration, calibration_files, calibration_folder
from genima.cameras.camera import VIRTUAL
from genima.cameras.camera_devices import CameraDevice, image_problem
from genima.cameras.plausibility import view_doubt, view_problem
from genima.cell import Cell, load_cell
from genima.doctor.findings import Finding, fail, ok, skipped, warn
from genima.errors import GenimaError
from genima.io import paths
from genima.policy.spec import PolicySpec, read_pair
from genima.robot.model import RobotModel

_OLD = 90  # days
_OFF = 1.0  # px: a good calibration's residuals are below
_UNCERTAIN = 2.0, 0.2  # mm and deg: spheres then are a pixel or two off


def check_cell(name: str) -> tuple[Cell | None, Finding]:
    """Check the cell's file and all that it names; return the cell, None where it cannot be read."""
    try:
        known = ", ".join(file.stem for file in paths.yaml_files("config", "cells"))
    except GenimaError as error:  # of GENIMA_PATH
        found, _, remedy = str(error).partition("; ")
        return None, fail("cell", found, remedy)
    try:
        cell = load_cell(name)
    except GenimaError as error:
        remedy = f"see docs/real_robot.md; the names of config/cells are known: {known}"
        return None, fail("cell", str(error), remedy)
    drives = f"simulated by {cell.simulator}" if cell.driver is None else f"driver {cell.driver.kind}"
    return cell, ok("cell", f"{name}: {drives}, views {', '.join(cell.views)}")


def describe_robot(cell: Cell | None) -> Finding:
    """Return the finding about the robot model of a cell."""
    if cell is None:
        return skipped("robot", "unknown without the cell")
    robot = cell.robot
    return ok("robot", f"{robot.name}: {len(robot.joint_names)} joints and {robot.gripper_joint}")


def describe_cameras(cell: Cell | None) -> Finding:
    """Return the finding about the cameras file of a cell."""
    if cell is None:
        return skipped("cameras file", "unknown without the cell")
    if not cell.camera_devices:
        return skipped("cameras file", f"not needed: {cell.simulator} has its own cameras")
    return ok("cameras file", ", ".join(cell.camera_devices))


def check_checkpoint(
    folder: str | None, robot: RobotModel | None
) -> tuple[PolicySpec | None, dict[str, Path], list[Finding]]:
    """Check a checkpoint against the robot; return its spec and the paths of its halves by kind.

    Args:
        folder: with both halves; empty: the bundled one; None: not given.
        robot: None where it could not be read.
    """
    what = "checkpoint"
    if folder is None:
        return None, {}, [skipped(what, "not given", "--checkpoint FOLDER")]
    try:
        spec, folders = read_pair(folder)
    except GenimaError as error:
        return None, {}, [fail(what, str(error), "./genima inspect FOLDER shows more")]
    findings = [ok(what, f"{folder or 'the bundled one'}: views {', '.join(spec.views)}")]
    if robot is None:
        return spec, folders, findings
    try:
        spec.require_robot(robot, "it")
        findings.append(ok("its robot", f"{spec.robot}: {spec.joint_names[0]} to {spec.joint_names[-1]}"))
    except GenimaError as error:
        remedy = "take a checkpoint of this robot, or name its cell by --cell"
        findings.append(fail("its robot", str(error), remedy))
    return spec, folders, findings


def check_camera_devices(devices: Mapping[str, CameraDevice], spec: PolicySpec) -> Iterator[Finding]:
    """Check that the cameras have the checkpoint's views."""
    for view in (view for view in spec.views if view != VIRTUAL):
        what = f"{view} camera"
        if view not in devices:
            there = ", ".join(devices)
            yield fail(what, f"the checkpoint takes it, the cameras file has {there}", "add it to the cameras file")
            continue
        device = devices[view]
        if problem := image_problem(device, spec.camera_size):
            found, _, remedy = problem.partition("; ")
            yield fail(what, found, remedy)
        elif device.rate < spec.action_rate:
            found = f"{device.rate} Hz; demos had {spec.action_rate:g} Hz"
            yield warn(what, found, "use a faster profile")
        else:
            yield ok(what, f"{device.model}, {device.width}x{device.height} at {device.rate} Hz, as trained")


def check_calibrations(
    name: str | None,
    spec: PolicySpec | None,
    devices: Mapping[str, CameraDevice],
    robot: RobotModel | None,
    now: datetime | None = None,
) -> Iterator[Finding]:
    """Check that every view has a matching, accurate and recent calibration.

    Args:
        name: of a set in calibration/, or a folder; None: the cell names none.
        spec: of the checkpoint, if there is one.
        devices: the cameras by view, if there are any.
        robot: the robot model, if there is one.
        now: for the age; the present if None.
    """
    if name is None:
        yield skipped("calibration", "the cell names none")
        return
    try:
        folder = calibration_folder(name)
        files = calibration_files(folder)
        if not files:
            raise GenimaError(f"no camera calibration (*.yaml) in {folder}")
    except GenimaError as error:
        yield fail("calibration", str(error), "calibrate the cameras: ./genima calibrate --help")
        return
    views = [view for view in spec.views if view != VIRTUAL] if spec else list(devices) or [file.stem for file in files]
    for view in views:
        path = folder / f"{view}.yaml"
        if not path.exists():
            there = ", ".join(file.stem for file in files)
            yield fail(view, f"{folder} has no {path.name}; there are {there}", "./genima calibrate live --help")
            continue
        try:
            yield _judge(CameraCalibration.load(path), devices.get(view), robot, now or datetime.now(UTC))
        except GenimaError as error:
            yield fail(view, str(error), "correct the file, or calibrate again")


def _judge(
    calibration: CameraCalibration, device: CameraDevice | None, robot: RobotModel | None, now: datetime
) -> Finding:
    view, camera = calibration.camera.view, calibration.camera
    again = f"./genima calibrate live --help; ./genima calibrate check shows how far {view} is off"
    if device is not None and device.mounted_on != camera.parent:
        found = f"was calibrated on the {camera.parent}, but the cameras file mounts it on the {device.mounted_on}"
        return fail(view, found, "are two cameras' names swapped? Correct the cameras file, or calibrate again")
    if device is not None and device.width * camera.height != device.height * camera.width:
        found = f"was calibrated at {camera.width}x{camera.height}, its profile is {device.width}x{device.height}"
        return fail(view, found, "set the calibrated profile, or calibrate again")
    frames = calibration.frames
    if robot is not None and frames is not None and _is_other_arm(frames.parent, robot):
        return fail(view, f"has the parent frame {frames.parent}, not of a {robot.arm}", "calibrate it on this robot")
    if robot is not None and (problem := view_problem(camera, robot)):
        return fail(view, problem, f"correct the file, or calibrate again: {again}")
    facts, doubts = [f"on the {camera.parent}"], []
    doubts += [doubt] if robot is not None and (doubt := view_doubt(camera, robot)) else []
    if calibration.residuals:
        residuals = calibration.residuals
        facts.append(f"{residuals.pixels:.2f} px, {residuals.millimetres:.1f} mm, {residuals.degrees:.2f} deg off")
        doubts += ["its residuals are large"] if residuals.pixels > _OFF else []
    if calibration.sigma:
        millimetres, degrees = calibration.sigma
        facts.append(f"standard deviation {millimetres:.1f} mm, {degrees:.2f} deg")
        doubts += ["it is uncertain"] if millimetres > _UNCERTAIN[0] or degrees > _UNCERTAIN[1] else []
    if calibration.date:
        days = _days(calibration.date, now)
        facts.append(f"{days:.0f} days old")
        doubts += ["it is old: the camera may have moved"] if days > _OLD else []
        doubts += ["it is dated in the future: was a clock wrong?"] if days < -1 else []
    elif calibration.method:
        facts.append(calibration.method)
    else:
        doubts.append("it has no date and method")
    if doubts:
        return warn(view, f"{', '.join(facts)}: {'; '.join(doubts)}", again)
    return ok(view, ", ".join(facts))


def _is_other_arm(frame: str, robot: RobotModel) -> bool:
    """Return whether a frame has the name of another arm's link; prefixes and unknown names do not count."""
    arms = {RobotModel.load(file).arm for file in paths.yaml_files("config", "robots")} - {robot.arm}
    return robot.arm not in frame and any(arm in frame for arm in arms)


def _days(date: str, now: datetime) -> float:
    then = datetime.fromisoformat(date)
    return (now - (then if then.tzinfo else then.astimezone())).total_seconds() / 86400
