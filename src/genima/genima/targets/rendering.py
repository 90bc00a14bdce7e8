"""Draw target spheres on a view by casting the rays of their bounding boxes: exact, and needs no graphics system."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genima.observation import Image
from genima.robot.model import RobotModel
from genima.targets.appearance import Appearance
from genima.views.camera import Camera

_NEAR = 1e-3  # m


def draw_targets(
    image: Image,
    camera: Camera,
    robot: RobotModel,
    appearance: Appearance,
    target: NDArray[np.floating],
    gripper_open: bool,
    current: NDArray[np.floating],
    opacity: float = 1.0,
) -> Image:
    """Draw the spheres of joint positions ``target`` (n,) in rad over a copy of ``image`` (h, w, 3).

    The scene never hides a sphere; nearer spheres hide farther ones. ``current`` (n,) in rad places a camera
    that moves with the arm. Joints out of view or behind the camera are left out.
    """
    drawn = image.copy()
    depth = np.full(image.shape[:2], np.inf)
    T_camera_base = np.linalg.inv(camera.T_base_camera(robot, current))
    frames = T_camera_base @ robot.link_poses(target)
    radius = appearance.radii[camera.view]
    for sphere in appearance.spheres:
        colour = sphere.colour if gripper_open or sphere.closed_colour is None else sphere.closed_colour
        _draw_sphere(drawn, depth, camera, frames[sphere.frame], radius, np.array(colour, float), appearance, opacity)
    return drawn


def _draw_sphere(
    image: Image,
    depth: NDArray[np.float64],
    camera: Camera,
    T_camera_frame: NDArray[np.float64],
    radius: float,
    colour: NDArray[np.float64],
    appearance: Appearance,
    opacity: float,
) -> None:
    centre, stripe_normal = T_camera_frame[:3, 3], T_camera_frame[:3, 0]
    columns = _extent(centre[0], centre[2], radius, camera.fx, camera.cx, camera.width)
    rows = _extent(centre[1], centre[2], radius, camera.fy, camera.cy, camera.height)
    if columns.start >= columns.stop or rows.start >= rows.stop:
        return
    u, v = np.arange(columns.start, columns.stop) + 0.5, np.arange(rows.start, rows.stop) + 0.5
    # A ray t * (x, y, 1) meets |p - centre| = radius where a t^2 - 2 b t + c = 0; t is the depth of the hit.
    x, y = ((u - camera.cx) / camera.fx)[None, :], ((v - camera.cy) / camera.fy)[:, None]
    a = x**2 + y**2 + 1
    b = x * centre[0] + y * centre[1] + centre[2]
    discriminant = b**2 - a * (centre @ centre - radius**2)
    t = (b - np.sqrt(np.maximum(discriminant, 0))) / a
    box = depth[rows, columns]
    hit = (discriminant >= 0) & (t > _NEAR) & (t < box)
    box[hit] = t[hit]
    along = (t * x - centre[0]) * stripe_normal[0] + (t * y - centre[1]) * stripe_normal[1]
    along += (t - centre[2]) * stripe_normal[2]
    band = np.floor((along / radius + 1) * appearance.bands / 2)
    brightness = np.where(band % 2 == 0, appearance.dark, 1.0)
    pixels = image[rows, columns]
    shade = brightness[hit][:, None] * colour
    pixels[hit] = np.rint((1 - opacity) * pixels[hit] + opacity * shade).astype(np.uint8)


def _extent(lateral: float, depth: float, radius: float, focal: float, principal: float, size: int) -> slice:
    """Pixel range that a sphere covers along one image axis: the tangents to its circle in that plane."""
    if depth <= -radius:
        return slice(0, 0)
    squared = lateral**2 + depth**2 - radius**2
    if depth <= radius or squared <= 0:  # the camera's plane cuts the sphere: no finite tangents
        return slice(0, size)
    centre, spread = np.arctan2(lateral, depth), np.arcsin(radius / np.hypot(lateral, depth))
    low, high = focal * np.tan(centre - spread) + principal, focal * np.tan(centre + spread) + principal
    return slice(int(np.clip(np.floor(low - 0.5), 0, size)), int(np.clip(np.ceil(high + 0.5), 0, size)))
