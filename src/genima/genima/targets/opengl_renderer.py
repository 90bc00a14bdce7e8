"""Spheres by casting the rays of their bounding boxes in a fragment shader: exact up to single precision."""

from __future__ import annotations

from collections.abc import Sequence

import moderngl
import numpy as np

from genima.cameras.camera import Camera
from genima.system.opengl_context import OnePerProcess
from genima.targets.appearance import Appearance
from genima.targets.sphere_geometry import NEAR, Box, PlacedSphere, boxes_in_view
from genima.types import Image

# An instance is a sphere's bounding box. Row 0 of the framebuffer is the image's top row: pixels need no flip.
_VERTEX_SHADER = """
#version 330
uniform vec2 size;
in vec4 box;
in vec4 ball;
in vec3 normal;
in vec3 rgb;
flat out vec3 centre;
flat out float radius;
flat out vec3 stripe_normal;
flat out vec3 colour;
void main() {
    vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
    gl_Position = vec4(mix(box.xy, box.zw, corner) / size * 2.0 - 1.0, 0.0, 1.0);
    centre = ball.xyz;
    radius = ball.w;
    stripe_normal = normal;
    colour = rgb / 255.0;
}
"""
_FRAGMENT_SHADER = """
#version 330
uniform vec2 focal, principal;
uniform float z_near, z_far, stripe_period;
uniform vec2 stripes;  // brightness of the first and the second, which alternate
flat in vec3 centre;
flat in float radius;
flat in vec3 stripe_normal;
flat in vec3 colour;
out vec4 rgba;
void main() {
    vec3 ray = vec3((gl_FragCoord.xy - principal) / focal, 1.0);
    float squared = dot(ray, ray), nearest = dot(ray, centre) / squared;
    vec3 miss = ray * nearest - centre;  // from the centre to the nearest point: keeps single precision's digits
    float inside = radius * radius - dot(miss, miss);
    float back = sqrt(max(inside, 0.0) / squared), depth = nearest - back;
    if (inside < 0.0 || depth <= z_near) discard;
    int stripe = int((dot(miss - ray * back, stripe_normal) / radius + 1.0) / stripe_period);
    rgba = vec4(stripes[stripe & 1] * colour, 1.0);
    gl_FragDepth = depth / z_far;
}
"""


def render(camera: Camera, spheres: Sequence[PlacedSphere], appearance: Appearance) -> Image:
    """The layer (h, w, 4) of :func:`genima.targets.render_spheres`.

    Raises:
        GenimaError: when OpenGL cannot start, or in a process forked from one that used it.
    """
    layer = np.zeros((camera.height, camera.width, 4), np.uint8)
    if seen := boxes_in_view(camera, spheres):
        rows, columns = zip(*(box for _, box in seen), strict=True)
        part = _union(rows), _union(columns)
        with _painter.in_turn() as painter:
            layer[part] = painter.paint(camera, seen, appearance, part)
    return layer


def _union(slices: Sequence[slice]) -> slice:
    return slice(min(s.start for s in slices), max(s.stop for s in slices))


class _Painter:
    """A context without a display (EGL), the program, and a framebuffer that grows to the largest image asked for."""

    def __init__(self) -> None:
        self._context = moderngl.create_context(standalone=True, backend="egl")  # type: ignore[arg-type]  # its stub's
        with self._context as context:  # leaves other contexts of this process, such as MuJoCo's, as they were
            self._program = context.program(_VERTEX_SHADER, _FRAGMENT_SHADER)
            self._instances = context.buffer(reserve=1)
            self._boxes = context.vertex_array(
                self._program, [(self._instances, "4f 4f 3f 3f/i", "box", "ball", "normal", "rgb")]
            )
            self._framebuffer = self._new_framebuffer(1, 1)

    def _new_framebuffer(self, width: int, height: int) -> moderngl.Framebuffer:
        size = (width, height)
        return self._context.framebuffer([self._context.renderbuffer(size, 4)], self._context.depth_renderbuffer(size))

    def _resize(self, width: int, height: int) -> None:
        old = self._framebuffer
        if width > old.width or height > old.height:
            self._framebuffer = self._new_framebuffer(max(width, old.width), max(height, old.height))
            for part in (old, *old.color_attachments, old.depth_attachment):
                part.release()

    def paint(
        self, camera: Camera, seen: Sequence[tuple[PlacedSphere, Box]], appearance: Appearance, part: Box
    ) -> Image:
        """Pixels (rows, columns, 4) of the part of the image that holds all boxes."""
        instances = np.array(
            [
                (columns.start, rows.start, columns.stop, rows.stop, *s.centre, s.radius, *s.stripe_normal, *s.colour)
                for s, (rows, columns) in seen
            ],
            np.float32,
        )
        values = {
            "size": (camera.width, camera.height),
            "focal": (camera.fx, camera.fy),
            "principal": (camera.cx, camera.cy),
            "z_near": NEAR,
            "z_far": max(sphere.centre[2] + sphere.radius for sphere, _ in seen),
            "stripe_period": appearance.stripe_period,
            "stripes": appearance.stripes,
        }
        height, width = (side.stop - side.start for side in part)
        viewport = (part[1].start, part[0].start, width, height)
        with self._context as context:
            self._resize(camera.width, camera.height)
            self._framebuffer.use()
            self._framebuffer.viewport = (0, 0, camera.width, camera.height)
            self._framebuffer.clear(viewport=viewport)
            context.enable_only(moderngl.DEPTH_TEST)
            for name, value in values.items():
                self._program[name] = value
            self._instances.orphan(instances.nbytes)
            self._instances.write(instances)
            self._boxes.render(moderngl.TRIANGLE_STRIP, vertices=4, instances=len(seen))
            pixels = self._framebuffer.read(viewport, components=4)
        return np.frombuffer(pixels, np.uint8).reshape(height, width, 4)


_painter = OnePerProcess("moderngl", _Painter)
