"""Colour of the lights."""

from __future__ import annotations

import numpy as np

from genima_sim.perturbation import Perturbation, SceneSpec

SHARES = 0.0, 1.0  # of red, green and blue


class LightColor(Perturbation):
    """Shares of red, green and blue that each light keeps of its diffuse colour, uniform from 0 to 1.

    Ambient light stays, so that no scene is black.

    Source: light_color of The Colosseum, which draws the diffuse colours of the lights uniformly from 0 to 0.5, where
    ours have 0.5 and 0.25.
    """

    def change(self, scene: SceneSpec, rng: np.random.Generator) -> None:
        """See :class:`Perturbation`."""
        for light in scene.spec.lights:
            light.diffuse *= rng.uniform(*SHARES, 3)
