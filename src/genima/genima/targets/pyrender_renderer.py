"""Sphere renderer by pyrender, as in the paper: meshes split along the stripes, for sharp borders."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import trimesh
from numpy.typing import NDArray

from genima.cameras.camera import Camera
from genima.robot.rigid_transforms import pose
from genima.system.opengl_context import ProcessRenderer
from genima.targets.appearance import Appearance
from genima.targets.sphere_geometry import NEAR, PlacedSphere, boxes_in_view, stripe_colours
from genima.types import Image

_SECTIONS = 96  # around the axis, and half as many along it
# Factor of the radius that gives a polygon of that many sides the area of the circle.
_BULGE = np.sqrt((2 * np.pi / _SECTIONS) / np.sin(2 * np.pi / _SECTIONS))


def render(camera: Camera, spheres: Sequence[PlacedSphere], appearance: Appearance) -> Image:
    """Return the layer (h, w, 4) of :func:`genima.targets.render_spheres`.

    Raises:
        GenimaError: when OpenGL cannot start, or in a process forked from one that used it.
    """
    visible = [sphere for sphere, _ in boxes_in_view(camera, spheres)]
    if not visible:
        return np.zeros((camera.height, camera.width, 4), np.uint8)
    # Background, odd and even stripes of the first sphere, of the second, ...
    colours = np.concatenate([np.zeros((1, 4), np.uint8), *(stripe_colours(sphere, appearance) for sphere in visible)])
    with _renderer.acquire() as renderer:
        return colours[renderer.segment(camera, visible, appearance.stripe_period)]


class _SegmentRenderer:
    """pyrender renderer with a persistent scene, whose spheres are placed for each image."""

    def __init__(self) -> None:
        import pyrender
        from OpenGL.EGL import eglReleaseThread

        self._renderer = pyrender.OffscreenRenderer(1, 1)
        self._segment, self._release = pyrender.RenderFlags.SEG, eglReleaseThread
        self._scene = pyrender.Scene()
        self._camera = pyrender.IntrinsicsCamera(1, 1, 0, 0, znear=NEAR)
        self._scene.add(self._camera, pose=np.diag([1.0, -1.0, -1.0, 1.0]))  # OpenGL cameras: view along -z, y up

        @cache
        def meshes(stripe_period: float) -> list[pyrender.Mesh]:
            stripes = striped_sphere(stripe_period)
            return [pyrender.Mesh([pyrender.Primitive(triangles.reshape(-1, 3))]) for triangles in stripes]

        @cache
        def nodes(stripe_period: float, sphere: int) -> list[pyrender.Node]:
            return [self._scene.add(mesh) for mesh in meshes(stripe_period)]

        self._nodes = nodes

    def segment(self, camera: Camera, spheres: Sequence[PlacedSphere], stripe_period: float) -> NDArray[np.uint8]:
        """Render segment indices (h, w): 0 background, 1 odd stripes of the first sphere, 2 its even ones, 3 ..."""
        gl_camera = self._camera
        gl_camera.fx, gl_camera.fy, gl_camera.cx, gl_camera.cy = camera.fx, camera.fy, camera.cx, camera.cy
        gl_camera.zfar = max(sphere.centre[2] + sphere.radius for sphere in spheres)
        # Segments, unlike colours, are not blended at borders. Nodes without a segment are not rendered.
        segments = dict[object, tuple[int, int, int]]()
        for i, sphere in enumerate(spheres):
            for node in self._nodes(stripe_period, i):
                self._scene.set_pose(node, _pose(sphere))
                segments[node] = (len(segments) + 1, 0, 0)
        self._renderer.viewport_width, self._renderer.viewport_height = camera.width, camera.height
        image: Image = self._renderer.render(self._scene, self._segment, segments)[0]
        self._release()  # pyrender leaves its context current, which blocks other threads
        return image[..., 0]


def _pose(sphere: PlacedSphere) -> NDArray[np.float64]:
    """Return the transform (4, 4) of the unit sphere with its axis along z."""
    z = sphere.stripe_normal
    x = np.cross(z, np.eye(3)[np.argmin(np.abs(z))])
    x /= np.linalg.norm(x)
    return pose(sphere.radius * np.stack([x, np.cross(z, x), z], axis=1), sphere.centre)


def striped_sphere(stripe_period: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return triangles (n, 3, 3) of the odd and the even stripes of a unit sphere with poles on the z axis."""
    planes = np.append(np.arange(-1, 1 - 1e-9, stripe_period), 1.0)
    stripes = []
    for low, high in zip(np.arcsin(planes[:-1]), np.arcsin(planes[1:]), strict=True):
        latitudes = np.linspace(low, high, int(np.ceil((high - low) / (2 * np.pi / _SECTIONS))) + 1)
        profile = _BULGE * np.column_stack([np.cos(latitudes), np.sin(latitudes)])
        stripes.append(trimesh.creation.revolve(profile, sections=_SECTIONS).triangles)
    return np.concatenate(stripes[::2]), np.concatenate(stripes[1::2])


_renderer = ProcessRenderer("pyrender", _SegmentRenderer)
