"""Raise the cover of a grill by its handle."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from genima_sim.motions import Motion, MoveJoint, grasp
from genima_sim.parts import add_bar, add_box, add_hinge, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, SceneObject, Task

_BLACK, _STEEL, _RED = (0.12, 0.12, 0.13), (0.75, 0.75, 0.78), (0.55, 0.10, 0.08)
_HALF, _HALF_WIDTH, _HEIGHT = 0.09, 0.15, 0.14  # m
_OPEN = np.radians(50)  # rad


class Grill(SceneObject):
    """Grill on legs with a hinged cover, whose handle is towards the robot."""

    name = "grill"
    region = Region((0.64, 0.70), (-0.15, 0.15), (-0.4, 0.4))
    radius = 0.22

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        grill = spec.worldbody.add_body(name=self.name)
        for x in (-0.07, 0.07):
            for y in (-0.13, 0.13):
                add_box(grill, [x, y, 0.04], [0.01, 0.01, 0.04], _STEEL)
        add_box(grill, [0, 0, 0.11], [_HALF, _HALF_WIDTH, 0.03], _BLACK)
        cover = grill.add_body(name="grill_cover", pos=[_HALF, 0, _HEIGHT + 0.005])
        add_hinge(cover, "grill_cover", [0, 0, 0], [0, 1, 0], (0, 1.4), friction=0.05)
        add_box(cover, [-_HALF, 0, 0.03], [_HALF, _HALF_WIDTH, 0.025], _RED, mass=0.3)
        x = -2 * _HALF - 0.085
        add_bar(cover, [x, -0.07, 0.02], [x, 0.07, 0.02], 0.009, _STEEL, mass=0.02)
        for side in (-1, 1):
            add_bar(cover, [x, side * 0.07, 0.02], [-2 * _HALF, side * 0.07, 0.02], 0.006, _STEEL, mass=0.01)
        add_site(cover, "grill_handle", [x, 0, 0.02], z=(1, 0, -1.4), x=(0, 0, 1))


class OpenGrill(Task):
    """Judged as in the GENIMA paper, appendix A: the cover has turned by 50 deg."""

    instructions = (
        "open the grill",
        "grasp the handle and raise the cover to open the grill",
        "lift the cover of the grill up",
    )
    objects = (Grill(),)
    allows_scaling = True
    near_misses = {
        "ajar": {"grill_cover": 0.15},
        "open by half": {"grill_cover": 0.5 * _OPEN},
        "open by 90%": {"grill_cover": 0.9 * _OPEN},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.moved("grill_cover") > _OPEN

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        yield from grasp(scene.frame("grill_handle"))
        yield MoveJoint("grill_cover", 1.0, 3.0, turn=0.3)
