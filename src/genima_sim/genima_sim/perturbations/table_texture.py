"""Texture of the table."""

from __future__ import annotations

import numpy as np

from genima_sim.perturbation import Perturbation, SceneSpec
from genima_sim.perturbations._textures import cover, random_texture


class TableTexture(Perturbation):
    """One of 17 textures of wood, stone, plaster, felt and metal on the table.

    Source: table_texture of The Colosseum, which has textures of its own; these are of the package robosuite (MIT).
    """

    def change(self, scene: SceneSpec, rng: np.random.Generator) -> None:
        """See :class:`Perturbation`."""
        cover(scene.spec, scene.spec.geom("table"), "table_texture", 2.0, file=random_texture(rng))
