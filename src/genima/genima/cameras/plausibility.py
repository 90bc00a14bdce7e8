"""Plausibility checks of camera poses and intrinsics: wrong units, wrong image sizes, invalid rotations.

Every import and loader of camera data calls these checks, so that a wrong unit is detected at its source.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from genima.errors import GenimaError

if TYPE_CHECKING:
    from genima.cameras.camera import Camera
    from genima.robot.model import RobotModel

MAX_DISTANCE = {"base": 5.0, "flange": 1.0}  # m from a camera's parent
FOCAL_RANGE = (0.2, 10.0)  # focal length in image widths (heights for fy): 136 deg to 6 deg of view
ASPECT_RANGE = (0.5, 2.0)  # fx / fy; pixels are square unless the image was stretched
MAX_SIZE = 16384  # px, side of an image
_WIDER = 1.3  # images: tolerance for a robot just outside the image
_OFF_CENTRE = 0.2  # image sides from the centre: limit of the principal point
_UPRIGHT = 0.5  # cosine of a fixed camera's roll and pitch: cameras are at the side of a robot or above it
_WXYZ = "is the quaternion in the order w, x, y, z? It must be x, y, z, w"
_ROTATION_TOLERANCE = 1e-3  # of R R^T - 1: matrices printed with four digits pass


def require_plausible(camera: Camera, what: str) -> None:
    """Check a camera's pose and intrinsics.

    Args:
        camera: the camera.
        what: subject of the error: "camera calibration front.yaml", "episode 3, camera wrist".

    Raises:
        GenimaError: with the value, the plausible range and the likely cause.
    """
    require_plausible_pose(camera.T_parent_camera, camera.parent, what)
    require_plausible_intrinsics(
        camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy, what, camera.distortion
    )


def require_plausible_pose(T_parent_camera: ArrayLike, parent: str, what: str) -> None:
    """Check a camera's pose (4, 4), in m, in the frame of its parent, "base" or "flange".

    Raises:
        GenimaError: for a matrix that is no rigid transform, and a camera too far away.
    """
    T = np.asarray(T_parent_camera, float)
    if T.shape != (4, 4) or not np.isfinite(T).all():
        raise GenimaError(f"{what}: pose is not 4 x 4 finite numbers")
    if np.abs(T[3] - [0, 0, 0, 1]).max() > _ROTATION_TOLERANCE:
        raise GenimaError(f"{what}: last row of the pose is not 0 0 0 1 ({T[3].tolist()}); is it transposed?")
    require_rotation(T[:3, :3], what)
    limit, distance = MAX_DISTANCE[parent], float(np.linalg.norm(T[:3, 3]))
    if not distance <= limit:
        raise GenimaError(
            f"{what}: camera is more than {limit:g} m from the {parent} ({distance:.4g} m); is the translation in "
            f"millimetres, or in another frame than the {parent}?"
        )


def require_rotation(matrix: ArrayLike, what: str) -> None:
    """Check that a matrix (3, 3) is a rotation: orthonormal, determinant +1.

    Raises:
        GenimaError: for a matrix that is not a rotation.
    """
    R = np.asarray(matrix, float)
    if R.shape != (3, 3) or not np.isfinite(R).all():
        raise GenimaError(f"{what}: rotation is not 3 x 3 finite numbers")
    error = float(np.abs(R @ R.T - np.eye(3)).max())
    if not error <= _ROTATION_TOLERANCE:
        raise GenimaError(f"{what}: rotation is not orthonormal (error {error:.2g}); is the matrix scaled, or rounded?")
    if np.linalg.det(R) < 0:
        raise GenimaError(f"{what}: rotation is mirrored (determinant -1); is one of its axes reversed?")


def require_plausible_intrinsics(
    width: float,
    height: float,
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    what: str,
    distortion: ArrayLike = (),
) -> None:
    """Check intrinsics in px against the image size.

    Raises:
        GenimaError: for an implausible image size, focal length or principal point, and a distortion that is not
            finite.
    """
    for name, size in (("width", width), ("height", height)):
        if not 1 <= size <= MAX_SIZE:
            raise GenimaError(f"{what}: image {name} is out of range ({size:g} px); use 1 to {MAX_SIZE}")
    low, high = FOCAL_RANGE
    for name, focal, size in (("fx", fx, width), ("fy", fy, height)):
        if not low < focal / size < high:
            raise GenimaError(
                f"{what}: {name} is not {low * size:.6g} to {high * size:.6g} px for images of {width:g}x{height:g} px "
                f"({focal:.6g}); is it in millimetres, or of images of another size?"
            )
    if not ASPECT_RANGE[0] <= fx / fy <= ASPECT_RANGE[1]:
        raise GenimaError(
            f"{what}: fx and fy differ by more than a factor of {ASPECT_RANGE[1]:g} ({fx:.6g}, {fy:.6g} px); are they "
            "of images of another shape?"
        )
    for name, centre, size in (("cx", cx, width), ("cy", cy, height)):
        if not 0 < centre < size:
            raise GenimaError(
                f"{what}: {name} is outside the image of {width:g}x{height:g} px ({centre:.6g}); is it in millimetres, "
                "or of images of another size?"
            )
    if not np.isfinite(np.asarray(distortion, float)).all():
        raise GenimaError(f"{what}: distortion is not finite")


def view_problem(camera: Camera, robot: RobotModel) -> str:
    """Return the problem of an implausible camera pose and its likely cause; empty: none.

    A camera on the base should see part of the robot in its home pose, a camera on the flange the space ahead of the
    tip.
    """
    T = camera.T_parent_camera
    mistakes = [(name, pose) for name, pose in _mistaken_poses(camera) if _sees(camera, pose, robot)]
    upright = [name for name, pose in mistakes if _is_upright(camera, pose)]
    likely = [*upright, *(name for name, _ in mistakes), "is it of another robot or frame?"][0]
    if not _sees(camera, T, robot):
        seen = "the robot in its home pose" if camera.parent == "base" else "the space ahead of the gripper"
        return f"at this pose it does not see {seen}; {likely}"
    off = (camera.cx / camera.width - 0.5, camera.cy / camera.height - 0.5)
    if max(map(abs, off)) > _OFF_CENTRE:
        return (
            f"principal point is far from the centre of its {camera.width}x{camera.height} images "
            f"({camera.cx:.0f}, {camera.cy:.0f}); are the intrinsics of images of another size?"
        )
    return ""


def view_doubt(camera: Camera, robot: RobotModel) -> str:
    """Return the doubt about a camera pose that is possible, but unlikely; empty: none.

    It is an image on its side or upside down that would be upright with the quaternion in another order.
    """
    doubtful = not _is_upright(camera, camera.T_parent_camera) and any(
        name == _WXYZ and _is_upright(camera, pose) and _sees(camera, pose, robot)
        for name, pose in _mistaken_poses(camera)
    )
    return f"it sees the robot on its side or upside down; {_WXYZ}" if doubtful else ""


def _sees(camera: Camera, T_parent_camera: NDArray[np.float64], robot: RobotModel) -> bool:
    links = robot.link_poses(robot.home)
    if camera.parent == "base":
        points = links[:, :3, 3]
    else:
        tip = robot.T_flange_tip[:3, 3]
        points = tip + np.linspace(0, 0.3, 4)[:, None] * [0, 0, 1]
    x, y, z = ((points - T_parent_camera[:3, 3]) @ T_parent_camera[:3, :3]).T
    ahead = z > 0
    u, v = camera.fx * x[ahead] / z[ahead] + camera.cx, camera.fy * y[ahead] / z[ahead] + camera.cy
    near = [np.abs(a / side - 0.5) < _WIDER / 2 for a, side in ((u, camera.width), (v, camera.height))]
    return bool((near[0] & near[1]).any())


def _is_upright(camera: Camera, T_parent_camera: NDArray[np.float64]) -> bool:
    """Return whether the image of a camera on the base is roughly upright; true for any camera on the flange."""
    down, forward = T_parent_camera[2, 1], T_parent_camera[2, 2]
    across = float(np.hypot(down, T_parent_camera[2, 0]))  # small for a camera that faces down
    return camera.parent == "flange" or abs(forward) > 0.9 or -down > _UPRIGHT * across


def _mistaken_poses(camera: Camera) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield likely causes of an implausible pose, and the pose (4, 4) without them."""
    T, R = camera.T_parent_camera, camera.T_parent_camera[:3, :3]
    x, y, z, w = Rotation.from_matrix(R).as_quat()
    # written as w, x, y, z, and read as x, y, z, w
    for quaternion in ((y, z, w, x), (-y, -z, -w, x)):  # the sign is unknown
        other = T.copy()
        other[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
        yield _WXYZ, other
    other = T.copy()
    other[:3, :3] = R @ [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    yield "is it the pose of the camera's link (x forward, z up)? It must be that of the optical frame", other
    other[:3, :3], other[:3, 3] = R.T, -R.T @ T[:3, 3]
    parent = camera.parent
    yield f"is it the pose of the {parent} in the camera? It must be that of the camera in the {parent}", other
    other = T.copy()
    other[:3, :3] = R @ np.diag([1.0, -1, -1])
    yield "does its z axis point backwards, as in OpenGL? It must point forward, with y down", other
