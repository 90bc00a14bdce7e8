"""Text report of a calibration."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial.transform import Rotation

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.calibration_file import CameraCalibration
from genima.errors import GenimaError
from genima_calibration.hand_eye import HandEyeResult, compare
from genima_calibration.pose_selection import next_pose, sample_candidates

_CANDIDATES, _REACH = 300, 0.4  # candidates for the next pose; rad around the samples' poses


def format_report(outcome: HandEyeResult, result: CameraCalibration, board: CalibrationBoard) -> Iterator[str]:
    """Return lines: result and uncertainty, outliers and their causes, other solvers, next steps."""
    camera, residuals, sigma, robot = result.camera, result.residuals, result.sigma, outcome.samples.robot
    assert residuals is not None and sigma is not None
    xyz = ", ".join(f"{x:.4f}" for x in camera.T_parent_camera[:3, 3])
    rpy = ", ".join(
        f"{a:.2f}" for a in Rotation.from_matrix(camera.T_parent_camera[:3, :3]).as_euler("xyz", degrees=True)
    )
    yield f"{camera.view} on the {camera.parent}: x, y, z {xyz} m; roll, pitch, yaw {rpy} deg (optical frame)"
    yield f"  standard deviation {sigma[0]:.2f} mm and {sigma[1]:.3f} deg, in the worst direction"
    yield (
        f"  each sample against the others: {residuals.pixels:.2f} px, {residuals.millimetres:.2f} mm, "
        f"{residuals.degrees:.3f} deg (root mean square)"
    )
    noise = outcome.fit.noise
    yield f"  estimated noise: points {noise.pixels:.2f} px, joint readings {np.degrees(noise.joints):.3f} deg"
    if outcome.fit.free.intrinsics:
        yield f"  intrinsics refined: fx, fy, cx, cy {camera.fx:.1f}, {camera.fy:.1f}, {camera.cx:.1f}, {camera.cy:.1f}"
    if (seen := result.board) is not None and seen.legacy_pattern != board.legacy_pattern:
        pattern = "legacy" if seen.legacy_pattern else "new"
        value = str(seen.legacy_pattern).lower()
        yield f"board: {pattern} pattern detected; write legacy_pattern: {value} in its file"
    yield f"samples: {len(outcome.samples)} used, {len(outcome.outliers)} outliers"
    yield from (f"  {name}: {why}" for name, why in outcome.outliers.items())
    yield "used samples, each against the others:"
    for name, (pixels, millimetres, degrees) in outcome.quality.left_out.items():
        yield f"  {name:<12}{pixels:>8.2f} px{millimetres:>8.2f} mm{degrees:>8.3f} deg"
    yield "OpenCV's solvers on the same samples:"
    for method, other in compare(outcome).items():
        apart = f"{other.millimetres:.2f} mm and {other.degrees:.3f} deg from this result"
        yield f"  {method:<12}{other.misfit:>8.2f} px, {apart}"
    if problem := outcome.quality.size.problem:
        yield f"WARNING: {problem}"
    elif advice := outcome.quality.advice():
        yield f"advice: {advice}"
    try:
        best = next_pose(
            outcome.samples, outcome.fit, board, sample_candidates(outcome.samples, _CANDIDATES, _REACH, 0)
        )
    except GenimaError as error:
        yield f"next pose: {error}"
    else:
        joints = ", ".join(f"{name} {q:.2f}" for name, q in zip(robot.joint_names, best.joints, strict=True))
        yield f"recommended next pose (gain {best.gain:.0%}; collisions are not checked): {joints} rad"
