"""Perturbations of the colours of objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima_sim.perturbation import Perturbation, SceneSpec
from genima_sim.task import SceneObject, Task


class ColorPerturbation(Perturbation):
    """One colour for each object that it selects, uniform in RGB; none for one whose colour the instruction names."""

    def selects(self, each: SceneObject) -> bool:
        """Return whether the colour of an object may change."""
        return not each.color_matters

    def require_task(self, task: Task, objects: Sequence[SceneObject]) -> None:
        """See :class:`Perturbation`."""
        if not any(map(self.selects, objects)):
            raise GenimaError(
                f"perturbation {self.name}: no object to colour in the scene of task {task.name}; leave it out"
            )

    def change(self, scene: SceneSpec, rng: np.random.Generator) -> None:
        """See :class:`Perturbation`."""
        for each in filter(self.selects, scene.objects):
            color = random_color(rng)
            for geom in scene.visible_geoms(each):
                geom.rgba[:3] = color


def random_color(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return uniform red, green and blue (3,) from 0 to 1."""
    return rng.uniform(0.0, 1.0, 3)
