"""Refuse cameras that no robot cell has: wrong units, wrong images, matrices that are no rotation.

Every import and loader of camera data calls these checks, so that a unit that was mistaken is found where it comes in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from genima.errors import GenimaError

if TYPE_CHECKING:
    from genima.views.camera import Camera

MAX_DISTANCE = {"base": 5.0, "flange": 1.0}  # m from a camera's parent
FOCAL_RANGE = (0.2, 10.0)  # focal length in image widths (heights for fy): 136 deg to 6 deg of view
ASPECT_RANGE = (0.5, 2.0)  # fx / fy; pixels are square unless the image was stretched
MAX_SIZE = 16384  # px, side of an image
_ROTATION_TOLERANCE = 1e-3  # of R R^T - 1: matrices printed with four digits pass


def require_plausible(camera: Camera, what: str) -> None:
    """Check a camera's pose and intrinsics.

    Args:
        camera: the camera.
        what: subject of the error: "camera calibration front.yaml", "episode 3, camera wrist".

    Raises:
        GenimaError: names the value, what is plausible and the likely cause.
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
        raise GenimaError(f"{what}: its pose is not 4 x 4 finite numbers")
    if np.abs(T[3] - [0, 0, 0, 1]).max() > _ROTATION_TOLERANCE:
        raise GenimaError(f"{what}: the last row of its pose is {T[3].tolist()}, not 0 0 0 1; is it transposed?")
    require_rotation(T[:3, :3], what)
    limit, distance = MAX_DISTANCE[parent], float(np.linalg.norm(T[:3, 3]))
    if not distance <= limit:
        raise GenimaError(
            f"{what}: the camera is {distance:.4g} m from the {parent}, more than {limit:g} m; is its translation in "
            f"millimetres, or of another frame than the {parent}?"
        )


def require_rotation(matrix: ArrayLike, what: str) -> None:
    """Check that a matrix (3, 3) is a rotation: orthonormal, determinant +1.

    Raises:
        GenimaError: when it is none.
    """
    R = np.asarray(matrix, float)
    if R.shape != (3, 3) or not np.isfinite(R).all():
        raise GenimaError(f"{what}: its rotation is not 3 x 3 finite numbers")
    error = float(np.abs(R @ R.T - np.eye(3)).max())
    if not error <= _ROTATION_TOLERANCE:
        raise GenimaError(
            f"{what}: its rotation is not orthonormal (off by {error:.2g}); is the matrix scaled, or are its numbers "
            "rounded?"
        )
    if np.linalg.det(R) < 0:
        raise GenimaError(f"{what}: its rotation is mirrored (determinant -1); is one of its axes reversed?")


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
    """Check intrinsics in px against the size of the images that they are of.

    Raises:
        GenimaError: for an impossible image size, a focal length or a principal point that do not go with it, and a
            distortion that is not finite.
    """
    for name, size in (("width", width), ("height", height)):
        if not 1 <= size <= MAX_SIZE:
            raise GenimaError(f"{what}: its image {name} is {size:g} px, not 1 to {MAX_SIZE}")
    low, high = FOCAL_RANGE
    for name, focal, size in (("fx", fx, width), ("fy", fy, height)):
        if not low < focal / size < high:
            raise GenimaError(
                f"{what}: {name} is {focal:.6g} px for images of {width:g}x{height:g} px, not {low * size:.6g} to "
                f"{high * size:.6g}; is it in millimetres, or of images of another size?"
            )
    if not ASPECT_RANGE[0] <= fx / fy <= ASPECT_RANGE[1]:
        raise GenimaError(
            f"{what}: fx {fx:.6g} and fy {fy:.6g} px differ by more than a factor of {ASPECT_RANGE[1]:g}; are they of "
            "images of another shape?"
        )
    for name, centre, size in (("cx", cx, width), ("cy", cy, height)):
        if not 0 < centre < size:
            raise GenimaError(
                f"{what}: {name} is {centre:.6g} px, outside the image of {width:g}x{height:g} px; is it in "
                "millimetres, or of images of another size?"
            )
    if not np.isfinite(np.asarray(distortion, float)).all():
        raise GenimaError(f"{what}: its distortion is not finite")
