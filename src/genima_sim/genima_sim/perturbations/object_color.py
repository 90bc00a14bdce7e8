"""Colour of manipulated objects."""

from __future__ import annotations

from genima_sim.perturbations._colors import ColorPerturbation
from genima_sim.task import SceneObject


class ObjectColor(ColorPerturbation):
    """One colour for each object that is manipulated, uniform in RGB.

    Source: MO_Color of The Colosseum.
    """

    def selects(self, each: SceneObject) -> bool:
        """See :class:`ColorPerturbation`."""
        return super().selects(each) and not each.receives
