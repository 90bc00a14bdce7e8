"""Spheres as meshes, drawn by pyrender as in the paper; split along the stripes, so that their borders are sharp."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import trimesh
from numpy.typing import NDArray

from genima.cameras.camera import Camera
from genima.system.opengl_context import ProcessRenderer
from genima.targets.appearance import Appearance
from genima.targets.sphere_geometry import NEAR, PlacedSphere, boxes_in_view, stripe_colours
from genima.types import Image

_SECTIONS = 96  # around the axis, and half as many along it
# A polygon of so many sides has a circle's area when its radius is larger by this factor.
_BULGE = np.sqrt((2 * np.pi / _SECTIONS) / np.sin(2 * np.pi / _SECTIONS))


def render(camera: Camera, spheres: Sequence[PlacedSphere], appearance: Appearance) -> Image:
    """The layer (h, w, 4) of :func:`genima.targets.render_spheres`.

    Raises:
        GenimaError: when OpenGL cannot start, or in a process forked from one that used it.
    """
    seen = [sphere for sphere, _ in boxes_in_view(camera, spheres)]
    if not seen:
        return np.zeros((camera.height, camera.width, 4), np.uint8)
    # Of nothing, of the first sphere's odd and even stripes, of the second's ...
    colours = np.concatenate([np.zeros((1, 4), np.uint8), *(stripe_colours(sphere, appearance) for sphere in seen)])
    with _studio.in_turn() as studio:
        return colours[studio.segment(camera, seen, appearance.stripe_period)]


class _Studio:
    """pyrender's renderer with a scene that keeps its camera and spheres, to be placed anew for each image."""

    def __init__(self) -> None:
        import pyrender
        from OpenGL.EGL import eglReleaseThread

        self._renderer = pyrender.OffscreenRenderer(1, 1)
        self._segment, self._release = pyrender.RenderFlags.SEG, eglReleaseThread
        self._scene = pyrender.Scene()
        self._lens = pyrender.IntrinsicsCamera(1, 1, 0, 0, znear=NEAR)
        self._scene.add(self._lens, pose=np.diag([1.0, -1.0, -1.0, 1.0]))  # OpenGL's look along -z with y up

        @cache
        def meshes(stripe_period: float) -> list[pyrender.Mesh]:
            stripes = striped_sphere(stripe_period)
            return [pyrender.Mesh([pyrender.Primitive(triangles.reshape(-1, 3))]) for triangles in stripes]

        @cache
        def nodes(stripe_period: float, sphere: int) -> list[pyrender.Node]:
            return [self._scene.add(mesh) for mesh in meshes(stripe_period)]

        self._nodes = nodes

    def segment(self, camera: Camera, spheres: Sequence[PlacedSphere], stripe_period: float) -> NDArray[np.uint8]:
        """Layer that each pixel (h, w) shows: 0 none, 1 odd stripes of the first sphere, 2 its even ones, 3 ..."""
        lens = self._lens
        lens.fx, lens.fy, lens.cx, lens.cy = camera.fx, camera.fy, camera.cx, camera.cy
        lens.zfar = max(sphere.centre[2] + sphere.radius for sphere in spheres)
        # Segments, unlike colours, are not blended where they meet. Nodes without one are not drawn.
        segments = dict[object, tuple[int, int, int]]()
        for i, sphere in enumerate(spheres):
            for node in self._nodes(stripe_period, i):
                self._scene.set_pose(node, _pose(sphere))
                segments[node] = (len(segments) + 1, 0, 0)
        self._renderer.viewport_width, self._renderer.viewport_height = camera.width, camera.height
        image: Image = self._renderer.render(self._scene, self._segment, segments)[0]
        self._release()  # pyrender leaves its context current, and no other thread could use it
        return image[..., 0]


def _pose(sphere: PlacedSphere) -> NDArray[np.float64]:
    """T (4, 4) from the unit sphere with its axis along z."""
    z = sphere.stripe_normal
    x = np.cross(z, np.eye(3)[np.argmin(np.abs(z))])
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3] = sphere.radius * np.stack([x, np.cross(z, x), z], axis=1)
    T[:3, 3] = sphere.centre
    return T


def striped_sphere(stripe_period: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Triangles (n, 3, 3) of the odd and of the even stripes of a unit sphere with its poles on the z axis."""
    planes = np.append(np.arange(-1, 1 - 1e-9, stripe_period), 1.0)
    stripes = []
    for low, high in zip(np.arcsin(planes[:-1]), np.arcsin(planes[1:]), strict=True):
        latitudes = np.linspace(low, high, int(np.ceil((high - low) / (2 * np.pi / _SECTIONS))) + 1)
        profile = _BULGE * np.column_stack([np.cos(latitudes), np.sin(latitudes)])
        stripes.append(trimesh.creation.revolve(profile, sections=_SECTIONS).triangles)
    return np.concatenate(stripes[::2]), np.concatenate(stripes[1::2])


_studio = ProcessRenderer("pyrender", _Studio)
