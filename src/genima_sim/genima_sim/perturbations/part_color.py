"""Colour of one part of an object."""

from __future__ import annotations

import numpy as np

from genima_sim.perturbation import SceneSpec
from genima_sim.perturbations._colors import ColorPerturbation, random_color


class PartColor(ColorPerturbation):
    """A colour, uniform in RGB, for one geom of one object, manipulated or receiving.

    Source: "randomized object and part colors" in section 3.2 of the GENIMA paper.
    """

    def change(self, scene: SceneSpec, rng: np.random.Generator) -> None:
        """See :class:`Perturbation`."""
        objects = list(filter(self.selects, scene.objects))
        geoms = scene.visible_geoms(objects[rng.integers(len(objects))])
        geoms[rng.integers(len(geoms))].rgba[:3] = random_color(rng)
