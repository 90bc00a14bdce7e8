"""Draw target spheres on a view, with a choice of renderers that agree."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.observation import Image
from genima.robot.model import RobotModel
from genima.targets.appearance import Appearance
from genima.targets.spheres import PlacedSphere, place_spheres
from genima.views.camera import Camera

# Modules with a function `render`, imported when first used: only the first needs no graphics system.
RENDERERS = {
    "raycast": "genima.targets.raycast",
    "moderngl": "genima.targets.opengl",
    "pyrender": "genima.targets.meshes",
}


def render_spheres(
    camera: Camera, spheres: Sequence[PlacedSphere], appearance: Appearance, renderer: str = "raycast"
) -> Image:
    """A layer (h, w, 4) rgba: alpha 255 inside spheres, all zeros outside.

    Nearer spheres hide farther ones; what is behind the camera, or round it, is not seen.

    Args:
        renderer: "raycast" (exact, the reference), "moderngl" (as exact, for large images) or "pyrender" (meshes).

    Raises:
        GenimaError: for an unknown renderer or one that cannot start.
    """
    if renderer not in RENDERERS:
        raise GenimaError(f"unknown renderer {renderer!r}; known: {', '.join(RENDERERS)}")
    layer: Image = importlib.import_module(RENDERERS[renderer]).render(camera, spheres, appearance)
    return layer


def composite(image: Image, layer: Image, opacity: float = 1.0) -> Image:
    """A copy of ``image`` (h, w, 3) with the spheres of ``layer`` (h, w, 4) on top; ``opacity`` is theirs, 0..1."""
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

    The scene never hides a sphere; nearer spheres hide farther ones. ``current`` (n,) in rad places a camera
    that moves with the arm. Joints out of view or behind the camera are left out.

    Raises:
        GenimaError: see :func:`place_spheres` and :func:`render_spheres`.
    """
    spheres = place_spheres(camera, robot, appearance, target, gripper_open, current)
    return composite(image, render_spheres(camera, spheres, appearance, renderer), opacity)
