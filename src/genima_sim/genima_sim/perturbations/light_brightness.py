"""Brightness of all light."""

from __future__ import annotations

import numpy as np

from genima_sim.perturbation import Perturbation, SceneSpec

FACTORS = 0.4, 1.6


class LightBrightness(Perturbation):
    """One factor for all light, the ambient light among it, uniform from 0.4 to 1.6.

    Source: "lighting color and brightness variations" in section 3.2 of the GENIMA paper, which gives no range.
    """

    def change(self, scene: SceneSpec, rng: np.random.Generator) -> None:
        """See :class:`Perturbation`."""
        factor = rng.uniform(*FACTORS)
        for light in (*scene.spec.lights, scene.spec.visual.headlight):
            light.diffuse *= factor
            light.ambient *= factor
