"""Drawn targets: what the spheres look like, and how they are drawn on a view."""

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
