"""Drawn targets: appearance, rendering and decoding of the spheres."""

from genima.targets.appearance import Appearance, Sphere
from genima.targets.rendering import RENDERERS, composite, draw_targets, render_spheres
from genima.targets.sphere_geometry import PlacedSphere, place_spheres

__all__ = [
    "RENDERERS",
    "Appearance",
    "PlacedSphere",
    "Sphere",
    "composite",
    "draw_targets",
    "place_spheres",
    "render_spheres",
]
