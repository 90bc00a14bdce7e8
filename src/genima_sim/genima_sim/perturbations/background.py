"""Texture of the room."""

from __future__ import annotations

import mujoco
import numpy as np

from genima_sim.perturbation import Perturbation, SceneSpec
from genima_sim.perturbations._textures import cover, find_floor, random_texture


class Background(Perturbation):
    """One of 17 textures on the floor, and one on what is beyond it, which is black otherwise.

    Source: background_texture of The Colosseum, on walls and floor; the textures are those of table_texture.
    """

    def change(self, scene: SceneSpec, rng: np.random.Generator) -> None:
        """See :class:`Perturbation`."""
        spec = scene.spec
        cover(spec, find_floor(spec), "floor_texture", 6.0, file=random_texture(rng))
        spec.add_texture(name="room_texture", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, file=random_texture(rng))
