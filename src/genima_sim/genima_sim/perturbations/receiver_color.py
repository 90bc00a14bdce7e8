"""Colour of the objects that others are put into or onto."""

from __future__ import annotations

from genima_sim.perturbations._colors import ColorPerturbation
from genima_sim.task import SceneObject


class ReceiverColor(ColorPerturbation):
    """One colour for each object that receives another one, uniform in RGB.

    Source: RO_Color of The Colosseum.
    """

    def selects(self, each: SceneObject) -> bool:
        """See :class:`ColorPerturbation`."""
        return super().selects(each) and each.receives
