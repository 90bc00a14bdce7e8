"""Drawn targets: what the spheres look like, and how they are drawn on a view."""

from genima.targets.appearance import Appearance, Sphere
from genima.targets.rendering import draw_targets

__all__ = ["Appearance", "Sphere", "draw_targets"]
