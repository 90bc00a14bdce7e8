"""Sphere renderer by ray casting in NumPy: exact, without a graphics system."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genima.cameras.camera import Camera
from genima.targets.appearance import Appearance
from genima.targets.sphere_geometry import NEAR, PlacedSphere, boxes_in_view, stripe_colours
from genima.types import Image


def render(camera: Camera, spheres: Sequence[PlacedSphere], appearance: Appearance) -> Image:
    """Return the layer (h, w, 4) of :func:`genima.targets.render_spheres`."""
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
