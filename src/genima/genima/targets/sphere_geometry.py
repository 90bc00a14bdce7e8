"""Positions of target spheres in a camera's frame, and their pixel boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera import Camera
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.targets.appearance import Appearance, Colour

NEAR = 1e-3  # m, near clipping plane
Box = tuple[slice, slice]  # rows and columns of pixels


@dataclass(frozen=True)
class PlacedSphere:
    """Sphere in a camera's optical frame (z forward, x right, y down)."""

    name: str
    centre: NDArray[np.float64]  # (3,) m
    radius: float  # m
    stripe_normal: NDArray[np.float64]  # (3,) unit vector: the x axis of the sphere's frame
    colour: Colour


def place_spheres(
    camera: Camera,
    robot: RobotModel,
    appearance: Appearance,
    target: NDArray[np.floating],
    gripper_open: bool,
    current: NDArray[np.floating],
) -> list[PlacedSphere]:
    """Place the spheres of joint positions ``target`` (n,) rad, also those out of view or behind the camera.

    ``current`` (n,) rad places a camera on the flange.

    Raises:
        GenimaError: for an appearance without radius for the camera's view, or a sphere at a frame the arm lacks.
    """
    if camera.view not in appearance.radii:
        views = ", ".join(appearance.radii)
        raise GenimaError(f"appearance: no sphere radius for view {camera.view} (only for {views}); add it")
    appearance.require_frames(robot)
    frames = np.linalg.inv(camera.T_base_camera(robot, current)) @ robot.link_poses(target)
    placed = []
    for sphere in appearance.spheres:
        T_camera_frame = frames[sphere.frame]
        colour = sphere.colour if gripper_open or sphere.closed_colour is None else sphere.closed_colour
        radius = appearance.radii[camera.view]
        placed.append(PlacedSphere(sphere.name, T_camera_frame[:3, 3], radius, T_camera_frame[:3, 0], colour))
    return placed


def stripe_colours(sphere: PlacedSphere, appearance: Appearance) -> NDArray[np.uint8]:
    """Return the rgba (2, 4) of the first and of the second stripe, which then alternate."""
    rgba = np.full((2, 4), 255, np.uint8)
    rgba[:, :3] = np.rint(np.outer(appearance.stripes, sphere.colour))
    return rgba


def boxes_in_view(camera: Camera, spheres: Sequence[PlacedSphere]) -> list[tuple[PlacedSphere, Box]]:
    """Return the visible spheres, each with the box of pixels that it may cover."""
    visible = []
    for sphere in spheres:
        x, y, z = sphere.centre.tolist()
        columns = _extent(x, z, sphere.radius, camera.fx, camera.cx, camera.width)
        rows = _extent(y, z, sphere.radius, camera.fy, camera.cy, camera.height)
        if columns.start < columns.stop and rows.start < rows.stop:
            visible.append((sphere, (rows, columns)))
    return visible


def _extent(lateral: float, depth: float, radius: float, focal: float, principal: float, size: int) -> slice:
    """Return the pixel range of a sphere along one image axis: the tangents to its circle in that plane."""
    if depth + radius <= NEAR:
        return slice(0, 0)
    if depth <= radius:  # the camera's plane cuts the sphere: no finite tangents
        return slice(0, size)
    centre, spread = math.atan2(lateral, depth), math.asin(radius / math.hypot(lateral, depth))
    low, high = focal * math.tan(centre - spread) + principal, focal * math.tan(centre + spread) + principal
    return slice(min(max(math.floor(low - 0.5), 0), size), min(max(math.ceil(high + 0.5), 0), size))
