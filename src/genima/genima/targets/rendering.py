"""Rendering of target spheres on a view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera import Camera
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.targets.appearance import Appearance
from genima.targets.sphere_geometry import NEAR, PlacedSphere, boxes_in_view, place_spheres, stripe_colours
from genima.types import Image

RENDERERS = ("raycast", "pyrender")


def render_spheres(
    camera: Camera, spheres: Sequence[PlacedSphere], appearance: Appearance, renderer: str = "raycast"
) -> Image:
    """Render a layer (h, w, 4) rgba: alpha 255 inside spheres, all zeros outside.

    Nearer spheres occlude farther ones; spheres behind or around the camera are not visible.

    Args:
        renderer: "raycast" (exact, the reference) or "pyrender" (meshes, as in the paper).

    Raises:
        GenimaError: for an unknown renderer or one that cannot start.
    """
    if renderer not in RENDERERS:
        raise GenimaError(f"renderer: unknown ({renderer!r}); use {' or '.join(RENDERERS)}")
    if renderer == "raycast":
        return _cast_rays(camera, spheres, appearance)
    from genima.targets import pyrender_renderer  # imported here: it needs a graphics system

    return pyrender_renderer.render(camera, spheres, appearance)


def _cast_rays(camera: Camera, spheres: Sequence[PlacedSphere], appearance: Appearance) -> Image:
    layer = np.zeros((camera.height, camera.width), np.uint32)
    depth = np.empty((camera.height, camera.width))
    visible = boxes_in_view(camera, spheres)
    for _, box in visible:
        depth[box] = np.inf
    for sphere, box in visible:
        rows, columns = box
        u, v = np.arange(columns.start, columns.stop) + 0.5, np.arange(rows.start, rows.stop) + 0.5
        # A ray t * (x, y, 1) meets |p - centre| = radius where a t^2 - 2 b t + c = 0; t is the depth of the hit.
        x, y = ((u - camera.cx) / camera.fx)[None, :], ((v - camera.cy) / camera.fy)[:, None]
        centre, normal = sphere.centre, sphere.stripe_normal
        a = x**2 + (y**2 + 1)
        b = x * centre[0] + (y * centre[1] + centre[2])
        discriminant = b**2 - a * (centre @ centre - sphere.radius**2)
        t = (b - np.sqrt(np.maximum(discriminant, 0))) / a
        hit = (discriminant >= 0) & (t > NEAR) & (t < depth[box])
        along = t * (x * normal[0] + (y * normal[1] + normal[2])) - centre @ normal  # -radius..radius
        stripe = ((along / sphere.radius + 1) / appearance.stripe_period).astype(np.int32)
        colours = stripe_colours(sphere, appearance).view(np.uint32).ravel()  # four bytes each
        np.copyto(depth[box], t, where=hit)
        np.copyto(layer[box], colours[stripe & 1], where=hit)
    return layer.view(np.uint8).reshape(camera.height, camera.width, 4)


def label_stripes(camera: Camera, spheres: Sequence[PlacedSphere], appearance: Appearance) -> NDArray[np.uint8]:
    """Label each pixel (h, w): 0 none, 2i + 1 a first stripe of the i-th sphere, 2i + 2 a second one.

    Colours are ambiguous: black stripes of different spheres are equal. Errors as :func:`render_spheres`.
    """
    numbered = [replace(sphere, colour=(2 * i + 2, 254, 0)) for i, sphere in enumerate(spheres)]
    layer = render_spheres(camera, numbered, replace(appearance, dark=0.5, first_stripe="dark"))
    second = layer[..., 1] == 254  # first stripes have half of both numbers
    return np.where(second, layer[..., 0], 2 * layer[..., 0] - (layer[..., 3] > 0)).astype(np.uint8)


def composite(image: Image, layer: Image, opacity: float = 1.0) -> Image:
    """Composite the spheres of ``layer`` (h, w, 4) over a copy of ``image`` (h, w, 3) with ``opacity`` 0..1."""
    blended = cv2.addWeighted(image, 1 - opacity, cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB), opacity, 0)
    return np.asarray(cv2.copyTo(blended, cv2.extractChannel(layer, 3), image.copy()), np.uint8)


def draw_targets(
    image: Image,
    camera: Camera,
    robot: RobotModel,
    appearance: Appearance,
    target: NDArray[np.floating],
    gripper_open: bool,
    current: NDArray[np.floating],
    opacity: float = 1.0,
    renderer: str = "raycast",
) -> Image:
    """Draw the spheres of joint positions ``target`` (n,) in rad over a copy of ``image`` (h, w, 3).

    The scene does not occlude spheres; nearer spheres occlude farther ones. ``current`` (n,) in rad places a camera
    on the flange. Joints out of view or behind the camera are omitted.

    Raises:
        GenimaError: see :func:`place_spheres` and :func:`render_spheres`.
    """
    spheres = place_spheres(camera, robot, appearance, target, gripper_open, current)
    return composite(image, render_spheres(camera, spheres, appearance, renderer), opacity)
