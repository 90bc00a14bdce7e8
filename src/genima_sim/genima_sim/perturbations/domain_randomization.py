"""Random appearance of the scenes that policies are trained on."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from genima_sim.perturbation import Perturbation, SceneSpec
from genima_sim.perturbations._colors import random_color
from genima_sim.perturbations._textures import cover, find_floor

BRIGHTNESS, SHARES = (0.7, 1.3), (0.5, 1.0)  # half the ranges of light_brightness and light_color
REPEATS = 1.0, 8.0  # along each side of the table or the floor
_OWN_COLOR = 0.5  # probability that a geom has another colour than its object
_SIZE = 64  # px, side of a pattern
_DOTS = 0.1  # share of the pixels of a plain pattern
_PATTERNS = (
    mujoco.mjtBuiltin.mjBUILTIN_FLAT,
    mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
    mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
)


class DomainRandomization(Perturbation):
    """Colours of objects, patterns of table and floor, and light, for training: the tests' textures are not among them.

    Each object has a random colour, and each of its geoms another one with probability 0.5, unless the instruction
    names the colour; colours are uniform in RGB. Table and floor have a checker, a gradient or dots of random colours,
    and the room a gradient. Light varies by half the ranges of light_brightness and light_color.

    Source: Tobin et al., Domain Randomization for Transferring Deep Neural Networks from Simulation to the Real World,
    2017.
    """

    def change(self, scene: SceneSpec, rng: np.random.Generator) -> None:
        """See :class:`Perturbation`."""
        spec = scene.spec
        for each in scene.objects:
            color = random_color(rng)
            for geom in scene.visible_geoms(each):
                own, other = rng.random() < _OWN_COLOR, random_color(rng)
                if not each.color_matters:
                    geom.rgba[:3] = other if own else color
        for name, geom in (("table", spec.geom("table")), ("floor", find_floor(spec))):
            cover(spec, geom, f"randomized_{name}", rng.uniform(*REPEATS), **_random_pattern(rng))
        spec.add_texture(
            name="randomized_room", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=_SIZE, height=_SIZE,
            builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT, rgb1=random_color(rng), rgb2=random_color(rng),
        )  # fmt: skip
        factor = rng.uniform(*BRIGHTNESS)
        for light in (*spec.lights, spec.visual.headlight):
            light.diffuse *= factor
            light.ambient *= factor
        for light in spec.lights:
            light.diffuse *= rng.uniform(*SHARES, 3)


def _random_pattern(rng: np.random.Generator) -> dict[str, Any]:
    """Return the options of a texture that MuJoCo makes of two colours."""
    return {
        "builtin": _PATTERNS[rng.integers(len(_PATTERNS))],
        "rgb1": random_color(rng),
        "rgb2": random_color(rng),
        "mark": mujoco.mjtMark.mjMARK_RANDOM,
        "markrgb": random_color(rng),
        "random": _DOTS,
        "width": _SIZE,
        "height": _SIZE,
    }
